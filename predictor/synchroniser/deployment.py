"""What serves of a model: a generation of the mirror, loaded by Triton under the model's name."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from predictor.synchroniser.errors import LoadFailed, TritonError
from predictor.synchroniser.metrics import Metrics
from predictor.synchroniser.mirror import Generation, Mirror
from predictor.synchroniser.staging import find_golden, read_config
from predictor.synchroniser.triton_client import TritonClient
from predictor.synchroniser.validation import validate
from predictor.synchroniser.view import join_numbers
from registry import config as configs
from registry.errors import VersionRejected

_QUEUE_S = 5.0
_UNLOAD_S = 30.0  # of a candidate, which may never finish its last request
_NOTHING = Generation(Path())


class Deployment:
    """The deployment of one model.

    Attributes:
        metrics: of the synchroniser.
        is_loaded: whether Triton has loaded the current generation.
    """

    def __init__(self, model: str, *, mirror: Mirror, triton: TritonClient, metrics: Metrics) -> None:
        """Begin with the generation that the mirror has of the model, not loaded."""
        self._model, self._mirror, self._triton, self.metrics = model, mirror, triton, metrics
        self.is_loaded = False

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
        self._load(self._model)
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
            self._load(name)
            yield name
        finally:
            with suppress(TritonError):
                self._triton.unload(name, limit_s=_UNLOAD_S)
            self._mirror.withdraw(self._model)

    def validate(self) -> None:
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

    def _load(self, name: str) -> None:
        loads = self.metrics.loads
        try:
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
