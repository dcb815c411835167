"""Loads and unloads in Triton the versions of a model that serve together: its generation in the mirror."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from predictor.synchroniser.errors import IncompleteConfig, LoadFailed, ModelProcessDied, TritonError
from predictor.synchroniser.mirror import Generation
from predictor.synchroniser.services import Services
from predictor.synchroniser.staging import find_golden, read_config
from predictor.synchroniser.validation import validate
from predictor.synchroniser.view import join_numbers
from registry import config as configs
from registry.errors import VersionRejected
from registry.judgement.completion import complete_config

log = logging.getLogger("synchroniser")

_QUEUE_S = 5.0
_UNLOAD_S = 30.0  # of a candidate, which may never finish its last request
# Between examinations: requests of some clients fail all the time, and each examination costs a response. The requests
# to a model whose process is dead fail for so much longer.
_EXAMINATION_PAUSE_S = 10.0
_NOTHING = Generation(Path())


class Deployment:
    """The deployment of one model.

    Attributes:
        metrics: of the synchroniser.
        is_loaded: whether Triton has loaded the current generation.
        is_suspect: whether requests to the model have failed since the last examination.
    """

    def __init__(self, model: str, services: Services) -> None:
        """Begin with the generation that the mirror has of the model, not loaded."""
        self._model, self._mirror, self._triton = model, services.mirror, services.triton
        self.metrics, self._clock = services.status.metrics, services.clock
        self.is_loaded = self.is_suspect = False
        self._examine_from = 0.0

    @property
    def current(self) -> Generation:
        """The current generation; without versions where the model has none."""
        return self._mirror.current(self._model) or _NOTHING

    def load(self) -> None:
        """Load the current generation.

        Raises:
            VersionRejected: Triton rejects it.
            TritonError: it could not be loaded now.
        """
        self._load(self._model, self.current.folder)
        self.is_loaded = True

    def unload(self) -> None:
        """Unload the model; the mirror keeps its generation.

        Raises:
            TritonError: it could not be unloaded now.
        """
        self._triton.unload(self._model)
        self.is_loaded = False

    def discard(self) -> None:
        """Remove the current generation from the mirror."""
        self._mirror.switch(self._model, None)
        self.is_loaded = False

    def clean(self, keep: Collection[Path] = ()) -> None:
        """Remove all but the current generation from the mirror.

        Args:
            keep: staged versions to keep.
        """
        self._mirror.clean(self._model, keep=keep)

    def activate(
        self, sources: Mapping[int, Path], fingerprints: Mapping[int, str], *, keep: Collection[Path] = ()
    ) -> None:
        """Make versions the current generation and load it, or keep the one before; `clean` removes that.

        Args:
            sources: the model folder, staged or current, that holds each version.
            fingerprints: by version.
            keep: staged versions to keep if the load fails.

        Raises:
            VersionRejected: their config cannot be composed.
            LoadFailed: Triton does not load them; the generation before is current again.
        """
        before = self.current
        newest = max(sources)
        text = configs.compose(read_config(sources[newest], newest), versions=list(sources))
        self._mirror.switch(self._model, self._mirror.assemble(self._model, sources, fingerprints, text))
        try:
            self.load()
        except (VersionRejected, TritonError) as exc:
            self._mirror.switch(self._model, before if before.fingerprints else None)
            self.clean(keep)
            raise LoadFailed(f"version {join_numbers(fingerprints)} is valid, and does not load: {exc}") from exc

    @contextmanager
    def candidate(self, folder: Path) -> Iterator[str]:
        """Load a staged version under a candidate's name, and unload it at the end.

        Raises:
            VersionRejected: Triton rejects it.
            TritonError: it could not be loaded now.
        """
        name = self._mirror.offer(self._model, folder)
        try:
            self._load(name, folder)
            yield name
        finally:
            with suppress(TritonError):
                self._triton.unload(name, limit_s=_UNLOAD_S)
            self._mirror.withdraw(self._model)

    def check_labels(self, version: int, folder: Path) -> None:
        """Check that a number that serves keeps its labels: clients could not tell the old from the new ones.

        Args:
            version: its number.
            folder: where it is staged; its config has all tensors.

        Raises:
            VersionRejected: the version serves with other labels or tensors.
        """
        if version not in self.current.fingerprints:
            return
        served, new = (read_config(each, version) for each in (self.current.folder, folder))
        if configs.meaning(served) != configs.meaning(new):
            raise VersionRejected(
                "its labels or tensors differ from those that this number serves with: a version is immutable; "
                "upload it under a new number"
            )

    @property
    def is_examination_due(self) -> bool:
        """Whether the model is suspect, and the last examination long enough ago."""
        return self.is_loaded and self.is_suspect and self._clock() >= self._examine_from

    def examine(self) -> None:
        """Find out whether Triton's process of the model is dead, and unload the model then.

        Triton (24.10) keeps reporting such a model as ready. Most failed requests have other causes: invalid inputs, or
        an exceeded deadline.

        Raises:
            TritonError: the model could not be unloaded.
        """
        self.is_suspect = False
        try:
            self._validate()
        except ModelProcessDied as exc:
            log.warning("%s: %s; it is loaded again", self._model, exc)
            self.unload()  # otherwise Triton sees no change, and does nothing
        except TritonError as exc:
            # A full queue says nothing about the process. The loop notices where Triton is down or lost the model.
            self.is_suspect = True
            pause_s = _EXAMINATION_PAUSE_S
            log.info("%s: cannot be examined: %s; tried again in %.0f s", self._model, exc, pause_s)
        except VersionRejected as exc:
            log.warning("%s: serves, and its outputs are invalid: %s", self._model, exc)
        finally:
            self._examine_from = self._clock() + _EXAMINATION_PAUSE_S

    def _validate(self) -> None:
        """Validate the versions that serve.

        Raises:
            VersionRejected: a version returns other outputs than its golden ones.
            ModelProcessDied: the process that runs a version is dead.
            TritonError: Triton does not respond.
        """
        current = self.current
        for version in current.fingerprints:
            golden = find_golden(current.folder, version)
            validate(self._triton, self._model, golden=golden, version=str(version), queue_s=_QUEUE_S)

    def _load(self, name: str, folder: Path) -> None:
        loads = self.metrics.loads
        try:
            try:
                self._triton.load(name)
            except IncompleteConfig as exc:
                complete_config(folder, exc.fields)
                self._triton.load(name)
        except (VersionRejected, TritonError):
            loads.labels(self._model, "failed").inc()
            raise
        loads.labels(self._model, "ok").inc()


def find_incompatible(sources: Mapping[int, Path]) -> list[int]:
    """Return the versions whose labels or tensors differ from the newest one's: Triton has one config for all.

    Args:
        sources: the model folder that holds each version.
    """
    contracts = {version: configs.contract(read_config(folder, version)) for version, folder in sources.items()}
    return [version for version, contract in contracts.items() if contract != contracts[max(contracts)]]
