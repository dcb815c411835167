"""Has validated versions of a model serve together, in place of those before."""

import logging
from collections.abc import Callable, Mapping

from predictor.synchroniser.deployment import Deployment, find_incompatible
from predictor.synchroniser.errors import LoadFailed, is_transient
from predictor.synchroniser.ledger import Activation, VersionLedger
from predictor.synchroniser.status import now
from predictor.synchroniser.uploads import Uploads
from predictor.synchroniser.verdicts import Verdicts
from predictor.synchroniser.view import join_numbers
from registry.errors import VersionRejected

log = logging.getLogger("synchroniser")


class Activator:
    """Activates the versions of one model."""

    def __init__(  # noqa: PLR0913 - what an activation reads and writes
        self,
        model: str,
        deployment: Deployment,
        *,
        ledger: VersionLedger,
        verdicts: Verdicts,
        uploads: Uploads,
        clock: Callable[[], float],
    ) -> None:
        """Activate in a deployment; `clock` is monotonic time."""
        self._model, self._deployment, self._ledger = model, deployment, ledger
        self._verdicts, self._uploads, self._clock = verdicts, uploads, clock

    def run(self, selected: Mapping[int, str]) -> bool:
        """Activate versions, or write to the ledger why that failed.

        Args:
            selected: fingerprints of versions that serve or are validated, by version.

        Returns:
            Whether they serve.

        Raises:
            TransientError, OSError: a retry is due.
        """
        before = self._deployment.current
        fresh = [version for version, key in selected.items() if key != before.fingerprints.get(version)]
        try:
            sources = {
                version: self._ledger.validated[key] if version in fresh else before.folder
                for version, key in selected.items()
            }
            if incompatible := find_incompatible(sources):
                self._note_incompatible(incompatible, selected)
                return False
            self._deployment.activate(sources, selected, keep=self._ledger.validated.values())
        except Exception as exc:
            # A version that serves already would be selected again at once.
            if not fresh or (is_transient(exc) and not isinstance(exc, LoadFailed)):
                raise
            self._note_failure(max(fresh), selected[max(fresh)], exc)
            return False
        self._note_success(selected, before.fingerprints)
        return True

    def _note_incompatible(self, versions: list[int], selected: Mapping[int, str]) -> None:
        newest = max(selected)
        for version in versions:
            self._ledger.set_incompatible(selected[version], selected[newest])
            reason = "its labels or tensors differ"
            log.warning("%s: version %d cannot serve beside %d: %s", self._model, version, newest, reason)

    def _note_failure(self, version: int, key: str, exc: Exception) -> None:
        if isinstance(exc, LoadFailed):
            self._verdicts.postpone_repeated(version, key, exc)
        elif isinstance(exc, VersionRejected):  # of validated versions: a retry would fail as well
            self._verdicts.reject(version, key, str(exc))
        else:
            self._verdicts.reject_for_defect(version, key, exc)

    def _note_success(self, selected: Mapping[int, str], before: Mapping[int, str]) -> None:
        activations: dict[str, Activation | None] = dict.fromkeys(selected.values())
        for version, key in sorted(selected.items()):
            if before.get(version) != key:
                seconds = self._clock() - self._uploads.first_seen(version)
                activations[key] = Activation(now(), seconds)
                self._deployment.metrics.seconds.labels(self._model).observe(seconds)
                log.info("%s: version %d serves, %.1f s after it was listed first", self._model, version, seconds)
        self._ledger.activate(activations)
        self._uploads.forget_changes()
        if retired := before.keys() - selected.keys():
            log.info("%s: version %s is retired", self._model, join_numbers(retired))
