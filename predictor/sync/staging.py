"""A version from the repository to a model folder of its own, complete and checked."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from registry import config as configs
from registry.errors import Incomplete, Refused
from registry.judgement.version import Terms, Texts, complete_version, judge_texts
from registry.layout import CONFIG, EXPORTED, GOLDEN, MANIFEST, TEXT_BYTES, ModelFolder, Object, lacks
from registry.manifest import Entry
from registry.storage.reading import Storage, download, read

_WEIGHTS = (".onnx", ".data", ".bin", ".weights")

Reserve = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Request:
    """A version that is wanted.

    Attributes:
        model: name of the model.
        version: its number.
        folder: the model as it was listed.
        config: `ModelConfig` of the model's own config.pbtxt, or None where it has none.
        profile, cpus, plans: of the settings.
    """

    model: str
    version: int
    folder: ModelFolder
    config: Any
    profile: str
    cpus: float
    plans: bool = False

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
    lines.append(f"{request.version}\0{request.profile}\0{request.cpus:g}\0{request.plans}")
    digest = hashlib.sha256("\n".join(lines).encode())
    if CONFIG not in request.files and request.config is not None:
        digest.update(configs.with_policy_cleared(request.config))
    return digest.hexdigest()


def check_arrived(request: Request) -> None:
    """Tell what the listing alone says to be missing.

    Raises:
        Incomplete: something is.
    """
    if MANIFEST not in request.files and (missing := lacks(request.files)):
        # What export writes has a manifest, however long that takes.
        raise Incomplete(f"waits for {missing}", patient=bool(EXPORTED & request.files.keys()))


def stage(storage: Storage, request: Request, target: Path, *, reserve: Reserve, count: Callable[[int], None]) -> None:
    """Download a version and check it.

    Args:
        storage: where it is.
        request: what is wanted.
        target: a model folder to make, with this version alone; removed again when this fails.
        reserve: keeps room for so many bytes there.
        count: told of every block's bytes.

    Raises:
        Incomplete: something of it is still to come.
        Refused: it must not serve.
        Passing, OSError: it could not be fetched now.
    """
    shutil.rmtree(target, ignore_errors=True)
    try:
        _stage(storage, request, target, reserve, count)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def golden_of(target: Path, version: int) -> Path | None:
    """golden.npz of a staged version, where it has one."""
    path = target / str(version) / GOLDEN
    return path if path.exists() else None


def _stage(storage: Storage, request: Request, target: Path, reserve: Reserve, count: Callable[[int], None]) -> None:
    texts = _read_texts(storage, request)
    terms = Terms(request.profile, request.cpus, request.plans)
    entries = judge_texts(texts, terms)
    _check_listed(request, entries)
    files = {name: request.files[name] for name in entries} if entries is not None else dict(request.files)
    shared = {path: item for path, item in request.folder.shared.items() if not _is_config(path)}
    with reserve(sum(item.size for item in (*files.values(), *shared.values()))):
        version = target / str(request.version)
        for name in files:
            (version / name).parent.mkdir(parents=True, exist_ok=True)
        digests = {name: download(storage, item, version / name, count=count) for name, item in files.items()}
        for name, entry in (entries or {}).items():
            if digests[name] != entry.sha256:
                got, want = digests[name][:12], entry.sha256[:12]
                raise Refused(f"{name}: sha256 got {got}..., expected {want}... by {MANIFEST}")
        complete_version(version, texts, replace(terms, engines=_engines_prefix(request, digests)))
        for path, item in shared.items():
            (target / path).parent.mkdir(exist_ok=True)
            download(storage, item, target / path, count=count)


def _engines_prefix(request: Request, digests: Mapping[str, str]) -> str:
    """Another one for each model, and whenever what engines are built from is another."""
    lines = [f"{name}\0{digest}" for name, digest in sorted(digests.items()) if name.endswith(_WEIGHTS)]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{request.model}-{digest[:16]}"


def _is_config(path: str) -> bool:
    """Whether a file of the model is composed into the one config that Triton reads."""
    return path == CONFIG or path.startswith("configs/")


def _shared_profile(request: Request) -> str:
    return f"configs/{request.profile}.pbtxt"


def _read_texts(storage: Storage, request: Request) -> Texts:
    """What says how the version serves, unread."""
    names = request.files.keys() & {MANIFEST, CONFIG, f"{request.profile}.pbtxt"}
    own = {name: read(storage, request.files[name], limit=TEXT_BYTES) for name in sorted(names)}
    item = None if CONFIG in own else request.folder.shared.get(_shared_profile(request))
    shared = None if item is None else read(storage, item, limit=TEXT_BYTES)
    model = b"" if request.config is None else request.config.SerializeToString()
    return Texts(own, shared, model, frozenset(request.files))


def _check_listed(request: Request, entries: Mapping[str, Entry] | None) -> None:
    """What manifest.json lists has come."""
    for name, entry in (entries or {}).items():
        item = request.files.get(name)
        if item is None:
            raise Incomplete(f"waits for {name}, listed in {MANIFEST}")
        if item.size != entry.size:
            raise Incomplete(f"{name}: got {item.size} bytes, expected {entry.size} by {MANIFEST}")
