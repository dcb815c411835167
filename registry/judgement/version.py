"""The judgement of a version: of its texts before its files are fetched, and of its files as they lie in a folder.

All that reads them runs in a process of its own, see `confinement`; what is exported here calls it there.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry import config as configs
from registry.errors import Incomplete, VersionRejected
from registry.golden import Arrays, read_golden, split_golden, write_golden
from registry.judgement.confinement import confined
from registry.judgement.onnx_file import read_facts
from registry.judgement.openvino_file import check_openvino
from registry.judgement.triton_rules import refuse_as_triton
from registry.layout import (
    CONFIG,
    DEFAULT_PROFILE,
    GOLDEN,
    MANIFEST,
    TEXT_BYTES,
    golden_name,
    is_model_folder,
    refuse_file,
)
from registry.manifest import Entry, read_manifest
from registry.threads import fill_threads
from registry.warmup import add_warmup

_IN_FOLDER = "model.onnx"  # what Triton reads where the model is a folder


@dataclass(frozen=True)
class Texts:
    """What says what a version is.

    Attributes:
        own: texts of the version's folder, by file name: manifest.json, config.pbtxt, those of profiles.
        shared: config of the profile that the model has for versions without one.
        model: the model's own config, judged, serialised; empty where it has none.
        files: names of all files of the version's folder.
    """

    own: Mapping[str, bytes]
    shared: bytes | None = None
    model: bytes = b""
    files: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terms:
    """How versions are to serve.

    Attributes:
        profile: of the settings.
        cpus: that Triton may use; 0: threads stay as the config has them.
        plans: whether TensorRT plans, and graphs that hold compiled engines, may be loaded: they are code.
        engines: prefix of the names under which engines that are built of it are kept; empty: as the config has it.
    """

    profile: str = DEFAULT_PROFILE
    cpus: float = 0
    plans: bool = False
    engines: str = ""


def judge_config(text: bytes, *, where: str) -> bytes:
    """Read and judge one config.pbtxt; the `ModelConfig`, serialised.

    Raises:
        VersionRejected: see `config.parse`, `config.check`.
        OSError, Defect: see `confined`; so it is below.
    """
    encoded: str = confined(_judge_config, text, where)
    return base64.b64decode(encoded)


def judge_texts(texts: Texts, terms: Terms) -> Mapping[str, Entry] | None:
    """Judge what is read before the files are; what manifest.json lists, None where there is none.

    Raises:
        VersionRejected: a text is not what it must be.
    """
    entries: dict[str, list[Any]] | None = confined(judge_texts_here, texts, terms)
    return None if entries is None else {name: Entry(*entry) for name, entry in entries.items()}


def complete_version(version: Path, texts: Texts, terms: Terms) -> None:
    """Judge the files of a version, and write the config.pbtxt that Triton gets over it, warm-up included.

    Args:
        version: its folder, in a model's folder that is the version's alone.
        texts: judged.
        terms: how it serves.

    Raises:
        VersionRejected: a file is not what it must be.
        Incomplete: a file is missing.
    """
    confined(complete_version_here, version, texts, terms)


def judge_version(version: Path, texts: Texts, terms: Terms) -> None:
    """Judge texts and files of a version as they lie in a folder, and write nothing.

    Raises:
        VersionRejected, Incomplete: as above.
    """
    confined(_judge_version, version, texts, terms)


def read_texts(version: Path) -> Texts:
    """The texts of a version in a local folder.

    Raises:
        VersionRejected: one is too large, or a name is no file of a version.
        OSError: it cannot be read.
    """
    own = {}
    paths = sorted(version.iterdir())
    folders = [path for path in paths if is_model_folder(path.name) and path.is_dir() and not path.is_symlink()]
    paths = [path for path in paths if path not in folders]
    for path in (*paths, *(part for folder in folders for part in sorted(folder.iterdir()))):
        if reason := refuse_file(path.name):
            raise VersionRejected(reason)
        if path.is_symlink() or not path.is_file():
            raise VersionRejected(f"{path.name}: got a link or a folder, expected a file")
        if path.parent == version and (path.name == MANIFEST or path.suffix == ".pbtxt"):
            size = path.stat().st_size
            if size > TEXT_BYTES:
                raise VersionRejected(f"{path.name}: got {size} bytes, expected at most {TEXT_BYTES}")
            own[path.name] = path.read_bytes()
    return Texts(own, files=frozenset(path.name for path in paths))


# In the process


def _judge_config(text: bytes, where: str) -> str:
    return base64.b64encode(_read_config(text, where).SerializeToString()).decode()


def _read_config(text: bytes, where: str) -> ModelConfig:
    config = configs.parse(text, where=where)
    configs.check(config, where=where)
    return config


def judge_texts_here(texts: Texts, terms: Terms) -> dict[str, list[Any]] | None:
    """`judge_texts` in this process: entries as lists, which is what JSON takes from a confined one."""
    entries = read_manifest(texts.own[MANIFEST], where=MANIFEST) if MANIFEST in texts.own else None
    _compose(texts, terms)
    return None if entries is None else {name: [entry.sha256, entry.size] for name, entry in entries.items()}


def _judge_version(version: Path, texts: Texts, terms: Terms) -> None:
    judge_texts_here(texts, terms)
    for name, text in texts.own.items():
        if name.endswith(".pbtxt"):
            _read_config(text, name)
    config = _compose(texts, terms)
    _judge_files(version, config, plans=terms.plans)
    for path in sorted(version.glob("golden*.npz")):
        _judge_golden(path, config)


def complete_version_here(version: Path, texts: Texts, terms: Terms) -> None:
    """`complete_version` in this process, for callers that are confined already."""
    config = _compose(texts, terms)
    _judge_files(version, config, plans=terms.plans)
    config = fill_threads(config, cpus=terms.cpus)
    golden = _find_golden(version, config, terms.profile)
    if golden.exists():
        arrays = _judge_golden(golden, config)
        # As it is read here it is read again, whatever the archive of the bucket may be to other readers.
        write_golden(version / GOLDEN, arrays)
        add_warmup(config, arrays, version.parent)
    if terms.engines and configs.keeps_engines(config):
        configs.name_engines(config, terms.engines)
    text = configs.compose(config, versions=[int(version.name)])
    if len(text) > configs.MAX_BYTES:  # signs of control take more room when they are written
        raise VersionRejected(
            f"{CONFIG}: got {len(text)} bytes when it is composed, expected at most {configs.MAX_BYTES}"
        )
    (version.parent / CONFIG).write_bytes(text)
    # The config it serves with stays with it.
    (version / CONFIG).write_bytes(text)


def _compose(texts: Texts, terms: Terms) -> ModelConfig:
    """The config that the version serves with: its own or the model's, with the profile where there is one.

    A version with a config of its own brings its profiles too: those of the model belong to other files.
    """
    own = ModelConfig.FromString(texts.model) if texts.model else None
    has_own = CONFIG in texts.own
    if has_own:
        own = _read_config(texts.own[CONFIG], CONFIG)
    name = f"{terms.profile}.pbtxt"
    text = texts.own.get(name)
    if MANIFEST in texts.own and name not in read_manifest(texts.own[MANIFEST], where=MANIFEST):
        text = None  # no part of the version
    if text is None and not has_own:
        name, text = f"configs/{name}", texts.shared
    if text is not None and terms.profile != DEFAULT_PROFILE:
        own = configs.merge_variant(_read_config(text, name), own)
        configs.check(own, where=f"{name} over {CONFIG}")
        own.parameters["profile"].string_value = terms.profile
    config = configs.resolve(own, texts.files, plans=terms.plans)
    configs.check_formats(config, plans=terms.plans)
    refuse_as_triton(config)
    return config


def _find_golden(version: Path, config: ModelConfig, profile: str) -> Path:
    """The golden outputs of the profile that it serves with, where they differ from those in FP32."""
    own = version / golden_name(profile)
    serves_with = config.parameters["profile"].string_value if "profile" in config.parameters else ""
    return own if serves_with == profile and own.exists() else version / GOLDEN


def _judge_golden(path: Path, config: ModelConfig) -> Arrays:
    arrays = read_golden(path)
    if config.input:  # else Triton completes it
        split_golden(arrays, config)
    return arrays


def _judge_files(version: Path, config: ModelConfig, *, plans: bool) -> None:
    """The model file is there, and with it every file that holds its weights; nothing of it is code."""
    # Triton takes the one for its kind of GPU, and the default where there is none.
    named = [config.default_model_filename, *sorted(config.cc_model_filenames.values())]
    if folders := [name for name in named if (version / name).is_dir()]:
        if configs.backend_of(config) != "onnxruntime":
            raise VersionRejected(f"{folders[0]}: got a folder, expected a file: onnxruntime alone reads a folder")
        named = [f"{name}/{_IN_FOLDER}" if name in folders else name for name in named]
    if not any((version / name).exists() for name in named):
        raise Incomplete(f"waits for {' or '.join(named)}")
    for path in sorted(version.glob("*.xml")):
        check_openvino(path)
    for path in sorted(path for path in version.rglob("*.onnx") if path.is_file()):
        try:
            facts = read_facts(path)
        except (ValueError, IndexError, KeyError, RecursionError) as exc:
            raise VersionRejected(f"{path.name}: no ONNX file: {exc or type(exc).__name__}") from exc
        if facts.engines and not plans:
            raise VersionRejected(
                f"{path.name}: got {facts.engines} nodes EPContext, which hold compiled engines, expected none: they "
                "are code; PREDICTOR_PLANS=true allows them"
            )
        for name in sorted(facts.external):
            if refuse_file(name):
                raise VersionRejected(f"{path.name}: external data {name!r:.80}: expected a file beside it")
            if not (path.parent / name).exists():
                raise Incomplete(f"waits for {name}, external data of {path.name}")
