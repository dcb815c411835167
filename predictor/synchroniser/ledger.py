"""The records of the versions of a model, by their fingerprints: rejections, attempts, and verifications."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictor.synchroniser.records import Records
from registry.layout import Object

MAX_ATTEMPTS = 3  # of a version, crashes included; then others are ready without it


@dataclass(frozen=True)
class Postponement:
    """A version that failed repeatedly, and is skipped for a while.

    Attributes:
        until: monotonic time of the next attempt.
        reason: of the last failure.
    """

    until: float
    reason: str


@dataclass(frozen=True)
class Activation:
    """When a version began to serve.

    Attributes:
        since: UTC time, as `/status` writes it.
        seconds: from the first listing that showed the version.
    """

    since: str
    seconds: float


class VersionLedger:
    """The ledger of one model; it keeps nothing of versions that were removed.

    Rejections, missing verifications and crashes survive a restart of the process.

    Attributes:
        rejected: why each rejected version is.
        unsigned: why the signature of a version is not accepted, until that file changes; a restart looks again.
        unverified: why no output verified a version that passed its validation.
        crashes: how many processes before this one ended during the trial of a version.
        incomplete: what a version waits for, until the next listing.
        postponed: versions that are skipped for a while.
        incompatible: versions that cannot serve beside a newer one, with that one.
        validated: staged folders of the versions that passed their validation and do not serve yet.
        activations: of the versions that serve and that this process activated.
    """

    def __init__(self, model: str, records: Records) -> None:
        """Read what the process before has recorded."""
        self._model, self._records = model, records
        self.rejected = records.read_rejected(model)
        self.unsigned: dict[str, str] = {}
        self._signatures: dict[str, str] = {}  # etags of the files that `unsigned` is about
        self._defects: set[str] = set()  # rejected because of a defect here: the next process tries them again
        self.unverified = records.read_unverified(model)
        self.crashes = records.read_crashes(model)
        self._skipped: set[str] = set()  # for their crashes, once by this process
        self.incomplete: dict[str, str] = {}
        self._deaths: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self.postponed: dict[str, Postponement] = {}
        self.incompatible: dict[str, str] = {}
        self.validated: dict[str, Path] = {}
        self.activations: dict[str, Activation] = {}

    # Reading

    @property
    def unusable(self) -> set[str]:
        """Versions that are rejected, unsigned, incomplete or postponed."""
        return {*self.rejected, *self.unsigned, *self.incomplete, *self.postponed}

    @property
    def next_attempt(self) -> float | None:
        """Monotonic time when the first postponement ends; None without any."""
        return min((each.until for each in self.postponed.values()), default=None)

    def postponement(self, key: str) -> str | None:
        """Return why a version is skipped for a while."""
        return f"{self.postponed[key].reason}; tried again later" if key in self.postponed else None

    def postponements(self, fingerprints: Mapping[int, str]) -> str | None:
        """Return why versions are skipped for a while, newest first; None where none is."""
        reasons = [
            f"version {version}: {reason}"
            for version, key in sorted(fingerprints.items(), reverse=True)
            if (reason := self.postponement(key))
        ]
        return "; ".join(reasons) or None

    # Writing

    def reject(self, key: str, reason: str, *, is_defect: bool = False) -> None:
        """Reject a version; with `is_defect` this process alone does."""
        if is_defect:
            self._defects.add(key)
        self.rejected[key] = reason
        self._write_rejected()

    def set_unsigned(self, key: str, reason: str, signature: Object | None) -> None:
        """Reject a version until the file with its signature changes."""
        self.unsigned[key], self._signatures[key] = reason, _etag(signature)

    def forget_unsigned(self, listed: Mapping[str, Object | None]) -> None:
        """Forget the verdicts on signatures that have changed.

        Args:
            listed: the file with the signature of each version, by fingerprint.
        """
        changed = [key for key in self.unsigned if key not in listed or _etag(listed[key]) != self._signatures[key]]
        for key in changed:
            del self.unsigned[key], self._signatures[key]

    def set_validated(self, key: str, folder: Path, *, unverified: str | None) -> None:
        """Record a passed validation, and why it verified no output, if so."""
        self.validated[key] = folder
        before = self.unverified.pop(key, None)
        if unverified:
            self.unverified[key] = unverified
        if unverified != before:
            self._records.write_unverified(self._model, self.unverified)

    def activate(self, activations: Mapping[str, Activation | None]) -> None:
        """Record the versions that serve from now on; None for one that served before."""
        self.activations = {
            key: known for key, new in activations.items() if (known := new or self.activations.get(key))
        }
        for key in activations:
            self._failures.pop(key, None)
        self.validated.clear()

    def count_death(self, key: str) -> int:
        """Count a death or timeout of Triton during the trial of a version, and return the total."""
        self._deaths[key] = self._deaths.get(key, 0) + 1
        return self._deaths[key]

    def count_failure(self, key: str) -> int:
        """Count a transient failure of a version, and return the total."""
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._failures[key]

    def postpone(self, key: str, reason: str, *, until: float) -> None:
        """Skip a version until a monotonic time."""
        self.postponed[key] = Postponement(until, reason)

    def end_postponements(self, now_s: float) -> None:
        """End the postponements that last no longer than a monotonic time."""
        self.postponed = {key: each for key, each in self.postponed.items() if now_s < each.until}

    def skip_crashing(self, key: str) -> bool:
        """Whether the trials of a version ended processes so often that it is skipped; true once per process."""
        if self.crashes.get(key, 0) < MAX_ATTEMPTS or key in self._skipped:
            return False
        self._skipped.add(key)
        return True

    @contextmanager
    def trial(self, key: str) -> Iterator[None]:
        """Record the trial of a version, so that the next process counts a crash of this one."""
        self._records.write_crashes(self._model, self.crashes, running=key)
        try:
            yield
        finally:
            self.crashes.pop(key, None)
            self._records.write_crashes(self._model, self.crashes)

    def begin_listing(self, listed: Collection[str], *, serving: Collection[str]) -> None:
        """Forget versions that neither are listed nor serve; none is incomplete until it is checked again."""
        if self.rejected.keys() - listed:
            self.rejected = {key: reason for key, reason in self.rejected.items() if key in listed}
            self._write_rejected()
        kept = {*listed, *serving}
        if self.unverified.keys() - kept:
            self.unverified = {key: reason for key, reason in self.unverified.items() if key in kept}
            self._records.write_unverified(self._model, self.unverified)
        memories: tuple[dict[str, Any], ...] = (
            self.crashes, self._deaths, self._failures, self.postponed, self.incompatible, self.validated
        )  # fmt: skip
        for memory in memories:
            for key in memory.keys() - listed:
                del memory[key]
        self._defects.intersection_update(listed)
        self.incomplete.clear()

    def clear(self) -> None:
        """Forget all versions: the model was removed."""
        self.begin_listing((), serving=())
        self.forget_unsigned({})
        self.activations.clear()
        self._skipped.clear()
        self._records.write_crashes(self._model, {})

    def _write_rejected(self) -> None:
        lasting = {key: reason for key, reason in self.rejected.items() if key not in self._defects}
        self._records.write_rejected(self._model, lasting)


def _etag(item: Object | None) -> str:
    return "" if item is None else item.etag
