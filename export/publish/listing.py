"""What a repository holds: models, their versions, and which of them each model's policy selects."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.errors import ExportError
from export.writer import manifest
from export.writer.config import to_text
from registry.config import Policy, parse, read_policy
from registry.errors import VersionRejected
from registry.layout import CONFIG, MANIFEST, MODEL_SUFFIXES, ModelFolder, Object, find_missing, is_version, read_layout
from registry.listing import gather
from registry.storage.writing import TooLarge, WritableStorage

_REQUESTS = 8  # at once
_TRIES = 5


class BrokenConfig(ExportError):
    """A config.pbtxt that is invalid."""


@dataclass(frozen=True)
class Version:
    """A version folder.

    Attributes:
        files: its files, by path inside the folder.
        foreign: keys in its folder that are not part of a version.
        manifest: None where it is missing, or does not fit the schema.
        signature: None where it is missing.
    """

    number: int
    files: Mapping[str, Object]
    foreign: Collection[str]
    manifest: Mapping[str, Any] | None
    signature: Object | None = None

    @property
    def complete(self) -> bool:
        """Whether all files are there, by their names and sizes; without a manifest as the synchroniser decides it."""
        if self.manifest is not None:
            return all(
                name in self.files and self.files[name].size == listed["size_bytes"]
                for name, listed in self.manifest["files"].items()
            )
        return MANIFEST not in self.files and bool(self.files) and find_missing(self.files) is None

    @property
    def model_file(self) -> str | None:
        """Name of the model file, of the first where there are several; None where there is none."""
        models = (name for name in self.files if name.endswith(MODEL_SUFFIXES))
        return min(models, key=lambda name: (not name.startswith("model."), name), default=None)

    @property
    def modified(self) -> datetime:
        """When its last file was written."""
        return max((item.modified for item in self.files.values()), default=datetime.min.replace(tzinfo=UTC))

    @property
    def created(self) -> datetime:
        """When it was exported; without that in its manifest, when its last file was written."""
        try:
            created = datetime.fromisoformat((self.manifest or {})["created"])
        except (KeyError, ValueError):
            return self.modified
        return created if created.tzinfo else created.replace(tzinfo=UTC)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the model file, from the manifest."""
        files = (self.manifest or {"files": {}})["files"]
        listed = files.get(self.model_file)
        return str(listed["sha256"]) if listed else None


@dataclass(frozen=True)
class Model:
    """A model's folder.

    Attributes:
        config: `ModelConfig` of the model itself; empty where it is missing or invalid.
        policy: its version policy.
        error: what is wrong with the config; None where nothing is.
        versions: by number, lowest first.
    """

    config: Any
    policy: Policy
    error: str | None
    versions: Mapping[int, Version]

    @property
    def complete(self) -> list[int]:
        """Numbers of the complete versions, lowest first."""
        return [number for number, version in self.versions.items() if version.complete]

    @property
    def wanted(self) -> set[int]:
        """Numbers of the complete versions that the policy selects, and that the synchroniser serves."""
        return set(self.policy.select(self.complete))


def read_models(storage: WritableStorage, model: str | None = None) -> dict[str, Model]:
    """The models of a repository by name, or one of them; folders that are not a model's have an error."""
    objects = gather(storage.walk(f"{model}/" if model else ""), known=()).objects
    folders, ignored = read_layout(objects)
    numbers: dict[str, dict[int, list[str]]] = {name: {} for name in folders}
    for key in ignored.keys() - {item.key for item in objects if item.link}:
        name, _, path = key.partition("/")
        number, _, file = path.partition("/")
        if name in folders and file and is_version(number):
            numbers[name].setdefault(int(number), []).append(key)
    names = sorted(folders)
    strange = {key.removesuffix("/"): reason for key, reason in ignored.items() if key.endswith("/")}
    with ThreadPoolExecutor(_REQUESTS) as pool:
        read = pool.map(lambda name: _read_model(storage, name, folders[name], numbers[name]), names)
        models = dict(zip(names, read, strict=True))
    return models | {
        name: Model(ModelConfig(), read_policy(None), reason, {}) for name, reason in sorted(strange.items())
    }


def read_model(storage: WritableStorage, name: str) -> Model:
    """One model; without versions where the repository does not have it."""
    return read_models(storage, name).get(name) or _read_model(storage, name, ModelFolder(), {})


def read_known_model(storage: WritableStorage, name: str) -> Model:
    """One model that the repository has.

    Raises:
        ExportError: it has no version of it.
    """
    found = read_model(storage, name)
    if not found.versions:
        raise ExportError(f"{storage.url}/{name}: got no version, expected a model; next: make versions")
    return found


def edit_config(
    storage: WritableStorage, model: str, change: Callable[[Any | None], Any | None], *, name: str = CONFIG
) -> bool:
    """Change a config of a model without losing what another process writes into it meanwhile.

    Args:
        storage: the repository.
        model: its name.
        change: the present `ModelConfig` or None -> the new one, or None to leave it; called again after a conflict.
        name: of the file in the model's folder.

    Returns:
        Whether it was written.

    Raises:
        ExportError: it is invalid, or it changed again and again.
    """
    key = f"{model}/{name}"
    for _ in range(_TRIES):
        content = storage.get(key)
        changed = change(_parse(content.data, key) if content else None)
        if changed is None:
            return False
        if storage.put(key, to_text(changed).encode(), etag=content.etag if content else None):
            return True
    raise ExportError(f"{key}: another process changed it {_TRIES} times while it was written; next: try again")


def read_own_config(storage: WritableStorage, model: str, number: int) -> Any | None:
    """The config of a version, or None where it has none.

    Raises:
        ExportError: it is invalid.
    """
    key = f"{model}/{number}/{CONFIG}"
    content = storage.get(key)
    return _parse(content.data, key) if content else None


def _read_model(
    storage: WritableStorage, name: str, folder: ModelFolder, foreign: Mapping[int, Collection[str]]
) -> Model:
    key = f"{name}/{CONFIG}"
    config, policy, error = ModelConfig(), read_policy(None), None
    try:
        content = storage.get(key)
        config = _parse(content.data if content else b"", key)
        policy = read_policy(config)
    except (BrokenConfig, TooLarge) as exc:
        error = str(exc)
    except VersionRejected as exc:
        error = f"{key}: {exc}"
    read = {}
    for number in sorted(folder.versions.keys() | foreign.keys()):
        files = folder.versions.get(number, {})
        described = _read_manifest(storage, f"{name}/{number}/{MANIFEST}") if MANIFEST in files else None
        read[number] = Version(number, files, foreign.get(number, ()), described, folder.signatures.get(number))
    return Model(config, policy, error, read)


def _read_manifest(storage: WritableStorage, key: str) -> Mapping[str, Any] | None:
    try:
        content = storage.get(key)
    except TooLarge:
        return None
    return manifest.read(content.data) if content else None


def _parse(data: bytes, key: str) -> Any:
    try:
        return parse(data, where=key)
    except VersionRejected as exc:
        raise BrokenConfig(f"{exc}; next: correct it") from exc
