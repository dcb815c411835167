"""A version from the repository to a model folder of its own, complete and checked."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictor.settings import DEFAULT_PROFILE
from predictor.sync.errors import Passing
from predictor.sync.storage import Storage, download, read
from predictor.sync.threads import fill_threads
from predictor.sync.warmup import add_warmup
from registry import config as configs
from registry.errors import Incomplete, Refused
from registry.layout import CONFIG, EXPORTED, GOLDEN, MANIFEST, MODEL_SUFFIXES, ModelFolder, Object, refuse_file
from registry.manifest import Entry, read_manifest
from registry.onnx_file import read_external_files

TEXT_BYTES = 2**20  # of a config.pbtxt or manifest.json
_SPARE_BYTES = 16 * 2**20  # left free on the disk


@dataclass(frozen=True)
class Request:
    """A version that is wanted.

    Attributes:
        model: name of the model.
        version: its number.
        folder: the model as it was listed.
        config: `ModelConfig` of the model's own config.pbtxt, or None where it has none.
        profile: of the settings.
        cpus: of the settings.
    """

    model: str
    version: int
    folder: ModelFolder
    config: Any
    profile: str
    cpus: float

    @property
    def files(self) -> Mapping[str, Object]:
        """Files of the version, by name."""
        return self.folder.versions[self.version]


def fingerprint(request: Request) -> str:
    """Another one whenever anything that belongs to the version is another: files, labels, how and as what it serves.

    The version policy is none of it.
    """
    shared = {path: item for path, item in request.folder.shared.items() if not _is_config(path)}
    if CONFIG not in request.files and (profile := request.folder.shared.get(_shared_profile(request))):
        shared[profile.key] = profile
    lines = [
        f"{path}\0{item.etag}\0{item.size}"
        for path, item in sorted([*shared.items(), *((f"./{name}", item) for name, item in request.files.items())])
    ]
    lines.append(f"{request.version}\0{request.profile}\0{request.cpus:g}")
    digest = hashlib.sha256("\n".join(lines).encode())
    if CONFIG not in request.files and request.config is not None:
        digest.update(configs.with_policy_cleared(request.config))
    return digest.hexdigest()


def check_arrived(request: Request) -> None:
    """Tell what the listing alone says to be missing.

    Raises:
        Incomplete: something is.
    """
    if MANIFEST in request.files:
        return
    if written := sorted(EXPORTED & request.files.keys()):
        # These come with a manifest, which comes last.
        raise Incomplete(f"waits for {MANIFEST}: it has {', '.join(written)}, which export writes", patient=True)
    if not any(name.endswith(MODEL_SUFFIXES) for name in request.files):
        raise Incomplete(f"waits for a model file: it has {', '.join(sorted(request.files))}")


def stage(storage: Storage, request: Request, target: Path, *, count: Callable[[int], None]) -> None:
    """Download a version and check it.

    Args:
        storage: where it is.
        request: what is wanted.
        target: a model folder to make, with this version alone; removed again when this fails.
        count: told of every block's bytes.

    Raises:
        Incomplete: something of it is still to come.
        Refused: it must not serve.
        Passing, OSError: it could not be fetched now.
    """
    shutil.rmtree(target, ignore_errors=True)
    try:
        _stage(storage, request, target, count)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def golden_of(target: Path, version: int) -> Path | None:
    """golden.npz of a staged version, where it has one."""
    path = target / str(version) / GOLDEN
    return path if path.exists() else None


def _stage(storage: Storage, request: Request, target: Path, count: Callable[[int], None]) -> None:
    entries = _read_entries(storage, request)
    files = {name: request.files[name] for name in entries} if entries is not None else dict(request.files)
    shared = {path: item for path, item in request.folder.shared.items() if not _is_config(path)}
    _check_space(target, sum(item.size for item in (*files.values(), *shared.values())))
    version = target / str(request.version)
    version.mkdir(parents=True)
    own = _own_config(storage, request)
    config = _profile_config(storage, request, own, files)
    for name, item in files.items():
        digest = download(storage, item, version / name, count=count)
        if entries is not None and digest != entries[name].sha256:
            raise Refused(f"{name}: sha256 got {digest[:12]}..., expected {entries[name].sha256[:12]}... by {MANIFEST}")
    _check_model_file(version, config)
    config = fill_threads(config, cpus=request.cpus)
    if golden := golden_of(target, request.version):
        add_warmup(config, golden, target)
    text = configs.compose(config, versions=[request.version])
    (target / CONFIG).write_bytes(text)
    # The config it serves with stays with it.
    (version / CONFIG).write_bytes(text)
    for path, item in shared.items():
        (target / path).parent.mkdir(exist_ok=True)
        download(storage, item, target / path, count=count)


def _is_config(path: str) -> bool:
    """Whether a file of the model is composed into the one config that Triton reads."""
    return path == CONFIG or path.startswith("configs/")


def _shared_profile(request: Request) -> str:
    return f"configs/{request.profile}.pbtxt"


def _read_entries(storage: Storage, request: Request) -> Mapping[str, Entry] | None:
    """What manifest.json lists; None where there is none."""
    if MANIFEST not in request.files:
        return None
    data = read(storage, request.files[MANIFEST], limit=TEXT_BYTES)
    entries = read_manifest(data, where=MANIFEST)
    for name, entry in entries.items():
        item = request.files.get(name)
        if reason := refuse_file(name):
            raise Refused(f"{MANIFEST}: {reason}")
        if item is None:
            raise Incomplete(f"waits for {name}, listed in {MANIFEST}")
        if item.size != entry.size:
            raise Incomplete(f"{name}: got {item.size} bytes, expected {entry.size} by {MANIFEST}")
    return entries


def _own_config(storage: Storage, request: Request) -> Any:
    """`ModelConfig` that the version serves with: its own, or the model's."""
    if CONFIG in request.files:
        return _read_config(storage, request.files[CONFIG], request)
    return request.config


def _profile_config(storage: Storage, request: Request, own: Any, files: Mapping[str, Object]) -> Any:
    """The config of the profile, which says so; `own` where the version has none.

    A version with a config of its own brings its profiles too: those of the model belong to other files.
    """
    item = files.get(f"{request.profile}.pbtxt")
    if item is None and CONFIG not in files:
        item = request.folder.shared.get(_shared_profile(request))
    if item is None or request.profile == DEFAULT_PROFILE:
        return own
    config = configs.merge_variant(_read_config(storage, item, request), own)
    config.parameters["profile"].string_value = request.profile
    return config


def _read_config(storage: Storage, item: Object, request: Request) -> Any:
    where = item.key.removeprefix(f"{request.model}/")
    config = configs.parse(read(storage, item, limit=TEXT_BYTES), where=where)
    configs.check(config, where=where)
    return config


def _check_model_file(version: Path, config: Any) -> None:
    """The model file is there, and with it every file that holds its weights."""
    configs.check_formats(config)
    # Triton takes the one for its kind of GPU, and the default where there is none.
    named = [configs.model_filename(config), *sorted(config.cc_model_filenames.values() if config else ())]
    if not any((version / name).exists() for name in named):
        raise Incomplete(f"waits for {' or '.join(named)}")
    for path in version.glob("*.onnx"):
        try:
            external = read_external_files(path)
        except (ValueError, IndexError, KeyError, RecursionError) as exc:
            raise Refused(f"{path.name}: no ONNX file: {exc or type(exc).__name__}") from exc
        for name in sorted(external):
            if refuse_file(name):
                raise Refused(f"{path.name}: external data {name!r:.80}: expected a file beside it")
            if not (version / name).exists():
                raise Incomplete(f"waits for {name}, external data of {path.name}")


def _check_space(target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size + _SPARE_BYTES:
        raise Passing(f"disk full: {size / 1e6:.1f} MB wanted, {free / 1e6:.1f} MB free in the mirror")
