"""The versions that a model should serve by its repository: candidates, and the version policy over them."""

from collections.abc import Mapping

from tritonclient.grpc.model_config_pb2 import ModelConfig

from predictor.settings import Settings
from predictor.synchroniser.staging import Candidate
from registry import config as configs
from registry.config import Policy
from registry.errors import VersionRejected
from registry.judgement.version import judge_config
from registry.layout import CONFIG, TEXT_BYTES, ModelFolder
from registry.profiles import first_of
from registry.signatures.trust import Trust
from registry.storage.reading import Storage, read


class ModelSource:
    """One model of the repository.

    Attributes:
        policy_text: the version policy as it was read last, for `/status`.
    """

    def __init__(self, model: str, settings: Settings, storage: Storage, trust: Trust | None) -> None:
        """Begin with nothing read."""
        self.policy_text = ""
        self._model, self._settings, self._storage, self._trust = model, settings, storage, trust
        self._etag = ""
        self._config: ModelConfig | None = None

    def read(self, folder: ModelFolder) -> tuple[Mapping[int, Candidate], Policy]:
        """Read the candidates by version, and the version policy, which the setting PREDICTOR_PINS replaces.

        Raises:
            VersionRejected: the model's own config is invalid, or has a field that is not allowed.
            TransientError: it could not be read now.
        """
        config, settings = self._read_config(folder), self._settings
        pins = settings.pins.get(self._model)
        policy = configs.read_policy(config) if pins is None else Policy(latest=None, specific=frozenset(pins))
        self.policy_text = f"{policy}{'' if pins is None else ' (setting)'}"
        served = (first_of(settings.profile), settings.cpus, settings.plans, settings.bf16, self._trust)
        return {
            version: Candidate(self._model, version, folder, config, *served) for version in folder.versions
        }, policy

    def explain_no_version(self, folder: ModelFolder, ignored: str) -> str:
        """Return why a folder has no version: an invalid config, or an ignored file.

        Raises:
            TransientError: its config could not be read now.
        """
        try:
            self.read(folder)
        except VersionRejected as exc:
            return str(exc)
        rest = f"; ignored: {ignored}" if ignored else ""
        return f"no version: expected {self._model}/1/model.onnx or the like{rest}"

    def _read_config(self, folder: ModelFolder) -> ModelConfig | None:
        """Read the model's own config.pbtxt where it has changed; None where it is missing."""
        item = folder.shared.get(CONFIG)
        if item is None:
            self._etag, self._config = "", None
        elif item.etag != self._etag:
            text = read(self._storage, item, limit=TEXT_BYTES)
            self._config = ModelConfig.FromString(judge_config(text, where=CONFIG))
            self._etag = item.etag
        return self._config
