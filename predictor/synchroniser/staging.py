"""Staging: downloads a version into a model folder of its own, and checks it."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from predictor.synchroniser.files import hard_link, replace_file
from registry import config as configs
from registry.errors import Incomplete, Unsigned, VersionRejected
from registry.judgement.version import Terms, Texts, complete_version, judge_texts
from registry.layout import (
    CONFIG,
    EXPORTED,
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    TEXT_BYTES,
    ModelFolder,
    Object,
    find_missing,
)
from registry.manifest import Entry
from registry.signatures.judgement import judge_signature
from registry.signatures.trust import Trust
from registry.storage.reading import Storage, download, read

_WEIGHTS = (".onnx", ".data", ".bin", ".weights")

_WRITTEN = frozenset({CONFIG, GOLDEN})  # again by `complete_version`

log = logging.getLogger("synchroniser")

Reserve = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Candidate:
    """A version of the repository that may serve.

    Attributes:
        model: name of the model.
        version: its number.
        folder: the model as listed.
        config: `ModelConfig` of the model's own config.pbtxt; None where that is missing.
        profile, cpus, plans, bf16: from the settings.
        trust: whose signatures are required; None: signatures are not looked at.
    """

    model: str
    version: int
    folder: ModelFolder
    config: ModelConfig | None
    profile: str
    cpus: float
    plans: bool = False
    bf16: bool = True
    trust: Trust | None = None

    @property
    def files(self) -> Mapping[str, Object]:
        """Files of the version, by name."""
        return self.folder.versions[self.version]

    @property
    def signature(self) -> Object | None:
        """The file with the signature of the version, which is no part of it; None where it is missing."""
        return self.folder.signatures.get(self.version)

    @property
    def beside(self) -> Mapping[str, Object]:
        """Files beside the versions that are staged too; none where signatures are required: no manifest lists them."""
        if self.trust is not None:
            return {}
        return {path: item for path, item in self.folder.shared.items() if not _is_config(path)}

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes whenever files, labels, profile or number of the version, or the CPUs change.

        The version policy does not count; nor, where signatures are required, do files beside the versions.
        """
        shared = dict(self.beside)
        if CONFIG not in self.files and (profile := self.folder.shared.get(_shared_profile(self))):
            shared[profile.key] = profile
        lines = [
            f"{path}\0{item.etag}\0{item.size}"
            for path, item in sorted([*shared.items(), *((f"./{name}", item) for name, item in self.files.items())])
        ]
        lines.append(f"{self.version}\0{self.profile}\0{self.cpus:g}\0{self.plans}\0{self.bf16}")
        digest = hashlib.sha256("\n".join(lines).encode())
        if CONFIG not in self.files and self.config is not None:
            digest.update(configs.with_policy_cleared(self.config))
        return digest.hexdigest()


def check_complete(candidate: Candidate) -> None:
    """Check by the names in the listing alone that no file is missing.

    Raises:
        Incomplete: a file is missing.
    """
    if MANIFEST not in candidate.files and (missing := find_missing(candidate.files)):
        # A version that export writes gets a manifest, however long its upload takes.
        raise Incomplete(f"waits for {missing}", patient=bool(EXPORTED & candidate.files.keys()))


def stage(  # noqa: PLR0913 - from where, what, to where, and two reports
    storage: Storage,
    candidate: Candidate,
    target: Path,
    *,
    reserve: Reserve,
    count: Callable[[int], None],
    held: Path | None = None,
) -> None:
    """Download a version and check it.

    Args:
        storage: of the repository.
        candidate: the version.
        target: the model folder to make, with this version alone; removed if staging fails.
        reserve: reserves disk space for a number of bytes.
        count: called with the number of bytes of each downloaded block.
        held: folder of the same files from before: they are linked, not downloaded; what staging wrote there is not.

    Raises:
        Incomplete: a file is missing.
        VersionRejected: the version must not serve; Unsigned, which is one: for its signature.
        TransientError, OSError: the version could not be downloaded now.
    """
    shutil.rmtree(target, ignore_errors=True)
    try:
        _stage(storage, candidate, target, reserve=reserve, count=count, held=held)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def find_golden(folder: Path, version: int) -> Path | None:
    """Return golden.npz of a version in a model folder, if there is one."""
    path = folder / str(version) / GOLDEN
    return path if path.exists() else None


def read_config(folder: Path, version: int) -> ModelConfig:
    """Read the config that a version in a model folder serves with."""
    return configs.parse((folder / str(version) / CONFIG).read_bytes(), where=CONFIG)


def read_signature(storage: Storage, item: Object | None) -> bytes | None:
    """Content of the signature of a version in the repository; None where it is missing.

    Raises:
        Unsigned: it is too large.
        StorageError: it could not be read now.
    """
    try:
        return None if item is None else read(storage, item, limit=TEXT_BYTES)
    except VersionRejected as exc:
        raise Unsigned(str(exc)) from exc


def _stage(  # noqa: PLR0913 - as above
    storage: Storage,
    candidate: Candidate,
    target: Path,
    *,
    reserve: Reserve,
    count: Callable[[int], None],
    held: Path | None,
) -> None:
    manifest = candidate.files.get(MANIFEST)
    listed = None if manifest is None else read(storage, manifest, limit=TEXT_BYTES)
    signature = None if candidate.trust is None else _judge_signature(storage, candidate, listed, candidate.trust)
    texts = _read_texts(storage, candidate, listed)
    terms = Terms(candidate.profile, candidate.cpus, candidate.plans, bf16=candidate.bf16)
    entries = judge_texts(texts, terms)
    _check_listed(candidate, entries)
    for name, text in texts.own.items():
        _check_digest(name, hashlib.sha256(text).hexdigest(), entries)
    files = {name: candidate.files[name] for name in entries} if entries is not None else dict(candidate.files)
    linked = {name for name in files if name not in _WRITTEN and held is not None and (held / name).exists()}
    new = [item for name, item in files.items() if name not in linked]
    with reserve(sum(item.size for item in (*new, *candidate.beside.values()))):
        version = target / str(candidate.version)
        for name in files:
            (version / name).parent.mkdir(parents=True, exist_ok=True)
        digests = {
            name: _link(held / name, version / name)
            if held is not None and name in linked
            else download(storage, item, version / name, count=count)
            for name, item in files.items()
        }
        for name, digest in digests.items():
            _check_digest(name, digest, entries)
        complete_version(version, texts, replace(terms, engines=_engines_prefix(candidate, digests)))
        for path, item in candidate.beside.items():
            (target / path).parent.mkdir(exist_ok=True)
            download(storage, item, target / path, count=count)
        if signature is not None:
            _keep_signature(version, signature, texts.own[MANIFEST])


def _judge_signature(storage: Storage, candidate: Candidate, manifest: bytes | None, trust: Trust) -> bytes | None:
    """Verify the signature of a version before anything but its manifest is read, and return the signature's file.

    Raises:
        Unsigned: no trusted key signed this manifest for this version.
    """
    signature = read_signature(storage, candidate.signature)
    signer = judge_signature((signature, manifest), trust, model=candidate.model, version=candidate.version)
    log.info("%s: version %d is signed by %s", candidate.model, candidate.version, signer)
    return signature


def _keep_signature(version: Path, signature: bytes, manifest: bytes) -> None:
    """Write what a later start verifies again into the folder of a version of the mirror."""
    replace_file(version / MANIFEST, manifest)
    replace_file(version / SIGNATURE, signature)


def _link(source: Path, target: Path) -> str:
    """Link a file, and return its SHA-256."""
    hard_link(source, target)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _engines_prefix(candidate: Candidate, digests: Mapping[str, str]) -> str:
    """Return the file prefix of compiled engines: it differs between models, and changes with the weights."""
    lines = [f"{name}\0{digest}" for name, digest in sorted(digests.items()) if name.endswith(_WEIGHTS)]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{candidate.model}-{digest[:16]}"


def _is_config(path: str) -> bool:
    """Whether a file of the model is merged into the one config that Triton reads."""
    return path == CONFIG or path.startswith("configs/")


def _shared_profile(candidate: Candidate) -> str:
    return f"configs/{candidate.profile}.pbtxt"


def _read_texts(storage: Storage, candidate: Candidate, manifest: bytes | None) -> Texts:
    """Download the configs, unparsed, beside the manifest."""
    names = candidate.files.keys() & {CONFIG, f"{candidate.profile}.pbtxt"}
    own = {} if manifest is None else {MANIFEST: manifest}
    own |= {name: read(storage, candidate.files[name], limit=TEXT_BYTES) for name in sorted(names)}
    item = None if CONFIG in own else candidate.folder.shared.get(_shared_profile(candidate))
    shared = None if item is None else read(storage, item, limit=TEXT_BYTES)
    model = b"" if candidate.config is None else candidate.config.SerializeToString()
    return Texts(own, shared, model, frozenset(candidate.files))


def _check_digest(name: str, digest: str, entries: Mapping[str, Entry] | None) -> None:
    """Check the SHA-256 of a file that manifest.json lists.

    Raises:
        VersionRejected: it is another one.
    """
    if entries is not None and name in entries and digest != entries[name].sha256:
        got, want = digest[:12], entries[name].sha256[:12]
        raise VersionRejected(f"{name}: sha256 got {got}..., expected {want}... by {MANIFEST}")


def _check_listed(candidate: Candidate, entries: Mapping[str, Entry] | None) -> None:
    """Check that the files in manifest.json are listed with their sizes."""
    for name, entry in (entries or {}).items():
        item = candidate.files.get(name)
        if item is None:
            raise Incomplete(f"waits for {name}, listed in {MANIFEST}")
        if item.size != entry.size:
            raise Incomplete(f"{name}: got {item.size} bytes, expected {entry.size} by {MANIFEST}")
