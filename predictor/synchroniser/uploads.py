"""Whether the upload of a version is complete: since when its files are unchanged, and whether all are there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from predictor.synchroniser.staging import Candidate, check_complete
from registry.errors import Incomplete, VersionRejected
from registry.layout import MANIFEST, ModelFolder

# A manifest that changes so often is not the last file of an upload.
_MAX_CHANGES = 3
# S3 rejects a request whose clock is off by more than 15 minutes, so the clocks here differ by no more.
_CLOCK_SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class ModelListing:
    """A model in a listing of the repository.

    Attributes:
        folder: None where the model is not in the repository.
        began: monotonic time when the listing began.
        newest: modification time of the newest object of the repository: a lower bound of the storage's clock.
        ignored: why a file of the model's folder is ignored; empty where none is.
    """

    folder: ModelFolder | None
    began: float
    newest: datetime
    ignored: str = ""


class Uploads:
    """The versions of a model as the listings show them.

    Attributes:
        settles_at: monotonic time; a listing that begins then, and shows no change, completes an upload.
    """

    def __init__(self, settle_s: float) -> None:
        """Begin before the first listing.

        Args:
            settle_s: seconds without a change after which files without a manifest are complete.
        """
        self.settles_at: float | None = None
        self._settle_s = settle_s
        self._seen: dict[int, tuple[str, float]] = {}  # fingerprint, and when it was listed first
        self._changes: dict[int, int] = {}  # of each version since the last activation

    @property
    def fingerprints(self) -> Mapping[int, str]:
        """Fingerprints of the versions in the last listing, by version."""
        return {version: key for version, (key, _) in self._seen.items()}

    def update(self, fingerprints: Mapping[int, str], *, began: float) -> None:
        """Process a listing, and forget versions that it does not show.

        Args:
            fingerprints: by version.
            began: monotonic time when the listing began.
        """
        before, self._seen = self._seen, {}
        for version, key in fingerprints.items():
            known_key, since = before.get(version, (key, began))
            if known_key != key:
                self._changes[version] = self._changes.get(version, 0) + 1
                since = began
            self._seen[version] = key, since

    def clear(self) -> None:
        """Forget all versions: the model was removed."""
        self._seen = {}

    def forget_changes(self) -> None:
        """Count changes from zero again: versions were activated."""
        self._changes.clear()

    def first_seen(self, version: int) -> float:
        """Return the monotonic time of the first listing that showed the version unchanged."""
        return self._seen[version][1]

    def settled_at(self, version: int) -> float:
        """Return the monotonic time when the files of the version, if unchanged until then, are settled."""
        return self.first_seen(version) + self._settle_s

    def check(self, candidate: Candidate, listing: ModelListing) -> None:
        """Check that a version is complete.

        Raises:
            Incomplete: a file is missing, or may still be uploaded.
            VersionRejected: a file is still missing after the time to settle.
        """
        try:
            self._check(candidate, listing)
        except Incomplete as exc:
            self.wait(candidate, listing, exc)
            raise

    def wait(self, candidate: Candidate, listing: ModelListing, missing: Incomplete) -> None:
        """Wait for a missing file, until the time to settle is over.

        Raises:
            VersionRejected: it is over.
        """
        settled_at = self.settled_at(candidate.version)
        if missing.patient:
            return
        if listing.began >= settled_at:
            raise VersionRejected(f"{missing}, for {self._settle_s:g} s") from missing
        self.settles_at = min(self.settles_at or settled_at, settled_at)

    def _check(self, candidate: Candidate, listing: ModelListing) -> None:
        check_complete(candidate)
        changes = self._changes.get(candidate.version, 0)
        has_manifest = MANIFEST in candidate.files
        if (has_manifest and changes < _MAX_CHANGES) or self._is_settled(candidate, listing):
            return
        why = f"changed {_MAX_CHANGES} times or more" if has_manifest else f"has no {MANIFEST}"
        raise Incomplete(f"{why}: waits {self._settle_s:g} s for more files")

    def _is_settled(self, candidate: Candidate, listing: ModelListing) -> bool:
        """Whether its files are unchanged for a while: without a manifest nothing else shows that all are there."""
        modified = max(item.modified for item in candidate.files.values())
        settle = timedelta(seconds=self._settle_s)
        return (
            listing.began - self.first_seen(candidate.version) >= self._settle_s
            or listing.newest - modified >= settle
            or datetime.now(UTC) - modified >= settle + _CLOCK_SKEW
        )
