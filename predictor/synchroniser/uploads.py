"""Whether the versions of a model have arrived: since when each is as it is, and whether all of its files are there."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from predictor.synchroniser.shared import Listed
from predictor.synchroniser.staging import Request, check_arrived
from registry.errors import Incomplete
from registry.layout import MANIFEST

# A manifest that changes so often is not the last file of an upload.
_CHANGES = 3
# S3 refuses a request whose clock is 15 minutes away, so no clock here is further from its.
_CLOCK_SKEW = timedelta(minutes=15)


class Arrivals:
    """What the listings have shown of a model's versions."""

    def __init__(self, settle_s: float) -> None:
        """Nothing has been seen yet; files settle in `settle_s` seconds."""
        self._settle_s = settle_s
        self._seen: dict[int, tuple[str, float]] = {}  # fingerprint, and when it was seen first
        self._changes: dict[int, int] = {}  # how often a version that does not serve has become another

    def note(self, prints: Mapping[int, str], *, began: float) -> None:
        """Take a listing in, and forget the versions that it does not show.

        Args:
            prints: fingerprints by version.
            began: monotonic time when the listing began.
        """
        before, self._seen = self._seen, {}
        for version, key in prints.items():
            known_key, since = before.get(version, (key, began))
            if known_key != key:
                self._changes[version] = self._changes.get(version, 0) + 1
                since = began
            self._seen[version] = key, since

    def forget(self) -> None:
        """The model is gone."""
        self._seen = {}

    def settle(self) -> None:
        """Versions serve: changes before that count no more."""
        self._changes.clear()

    @property
    def versions(self) -> Collection[int]:
        """Those of the last listing."""
        return self._seen.keys()

    def key(self, version: int) -> str:
        """The fingerprint of a version; empty where the last listing did not show it."""
        return self._seen.get(version, ("", 0.0))[0]

    def since(self, version: int) -> float:
        """Monotonic time of the first listing that showed a version as it is."""
        return self._seen[version][1]

    def settled_at(self, version: int) -> float:
        """Monotonic time when a version that does not change has had the time that files need to settle."""
        return self.since(version) + self._settle_s

    def check(self, request: Request, listed: Listed) -> None:
        """Find out whether a version is there as a whole.

        Raises:
            Incomplete: a file is missing, or may still come.
        """
        check_arrived(request)
        changes = self._changes.get(request.version, 0)
        has_manifest = MANIFEST in request.files
        if (has_manifest and changes < _CHANGES) or self._is_at_rest(request, listed):
            return
        why = f"changed {_CHANGES} times or more" if has_manifest else f"has no {MANIFEST}"
        raise Incomplete(f"{why}: waits {self._settle_s:g} s for more files")

    def _is_at_rest(self, request: Request, listed: Listed) -> bool:
        """Whether its files have not changed for a while: without a manifest nothing else says that all are there."""
        modified = max(item.modified for item in request.files.values())
        settle = timedelta(seconds=self._settle_s)
        return (
            listed.began - self.since(request.version) >= self._settle_s
            or listed.newest - modified >= settle
            or datetime.now(UTC) - modified >= settle + _CLOCK_SKEW
        )
