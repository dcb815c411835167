"""Verdicts on versions that do not serve: incomplete, rejected, or postponed; in ledger, metrics and log."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from predictor.synchroniser.errors import LoadFailed, describe
from predictor.synchroniser.ledger import MAX_ATTEMPTS, VersionLedger
from predictor.synchroniser.retries import Retries, pause_after
from predictor.synchroniser.services import Services
from registry.errors import Incomplete, Unsigned, VersionRejected
from registry.layout import Object

log = logging.getLogger("synchroniser")


class Verdicts:
    """The verdicts on the versions of one model."""

    def __init__(self, model: str, services: Services, ledger: VersionLedger, retries: Retries) -> None:
        """Write to the ledger of a model; its retries begin again where a version is postponed."""
        self._model, self._ledger, self._retries = model, ledger, retries
        self._metrics, self._poll_s, self._clock = services.status.metrics, services.settings.poll_s, services.clock

    @contextmanager
    def recorded(self, version: int, key: str, *, signature: Object | None = None) -> Iterator[None]:
        """Record the verdict that a block raises: that a version is incomplete, or rejected.

        Args:
            version: its number.
            key: its fingerprint.
            signature: the file with its signature, which a verdict on that is about.
        """
        try:
            yield
        except Incomplete as exc:
            self._ledger.incomplete[key] = str(exc)
        except Unsigned as exc:
            self._ledger.set_unsigned(key, str(exc), signature)
            self._report(version, str(exc))
        except VersionRejected as exc:
            self.reject(version, key, str(exc))

    def reject(self, version: int, key: str, reason: str) -> None:
        """Reject a version until it changes."""
        self._reject(version, key, reason, is_defect=False)

    def reject_for_defect(self, version: int, key: str, exc: Exception) -> None:
        """Reject a version that fails in an unforeseen way: endless attempts would keep out the others.

        The defect may be this process's own: the next process tries the version again.
        """
        log.error("%s: version %d cannot be judged", self._model, version, exc_info=exc)
        self._reject(version, key, f"it cannot be judged: {type(exc).__name__}: {exc}", is_defect=True)

    def postpone_repeated(self, version: int, key: str, exc: Exception) -> None:
        """Postpone a version after `MAX_ATTEMPTS` transient failures, so that the next one takes its place.

        Raises:
            Exception: `exc`, after fewer failures.
        """
        failures = self._ledger.count_failure(key)
        if failures < MAX_ATTEMPTS:
            raise exc
        self._postpone(version, key, exc, failures=failures, pause_s=pause_after(failures, poll_s=self._poll_s))

    def postpone(self, version: int, key: str, exc: Exception, *, pause_s: float) -> None:
        """Postpone a version after its first failure."""
        self._postpone(version, key, exc, failures=self._ledger.count_failure(key), pause_s=pause_s)

    def set_incompatible(self, versions: Collection[int], selected: Mapping[int, str]) -> None:
        """Leave out versions that cannot serve beside the newest of the selected ones."""
        newest = max(selected)
        for version in versions:
            self._ledger.incompatible[selected[version]] = selected[newest]
            reason = "its labels or tensors differ"
            log.warning("%s: version %d cannot serve beside %d: %s", self._model, version, newest, reason)

    def end_activation(self, version: int, key: str, exc: Exception) -> None:
        """Postpone a version that is valid and does not load, or reject it where a retry would fail as well.

        Raises:
            Exception: `exc`, see `postpone_repeated`.
        """
        if isinstance(exc, LoadFailed):
            self.postpone_repeated(version, key, exc)
        elif isinstance(exc, VersionRejected):
            self.reject(version, key, str(exc))
        else:
            self.reject_for_defect(version, key, exc)

    def _reject(self, version: int, key: str, reason: str, *, is_defect: bool) -> None:
        self._ledger.reject(key, reason, is_defect=is_defect)
        self._report(version, reason)

    def _report(self, version: int, reason: str) -> None:
        self._metrics.rejections.labels(self._model).inc()
        log.warning("%s: version %d is rejected: %s", self._model, version, reason)

    def _postpone(self, version: int, key: str, exc: Exception, *, failures: int, pause_s: float) -> None:
        pause_s *= 1 + len(self._ledger.postponed)  # older versions get an attempt before it gets another one
        self._ledger.postpone(key, describe(exc), until=self._clock() + pause_s)
        self._retries.failures = 0  # another version takes the place of the failing one
        self._metrics.failures.labels(self._model).inc()
        log.warning(
            "%s: version %d failed (%d): %s; others serve meanwhile, tried again in %.0f s",
            self._model, version, failures, describe(exc), pause_s,
        )  # fmt: skip
