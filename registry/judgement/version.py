"""Checks a version: its texts before its files are fetched, and its files in a folder.

Texts and files are parsed in a confined process (`sandbox_process`), which the public functions start; those whose
names end in `_here` are for callers that are confined already.
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
from registry.judgement.onnx_file import read_facts
from registry.judgement.openvino_file import check_openvino
from registry.judgement.sandbox_process import confined
from registry.judgement.triton_rules import reject_as_triton
from registry.layout import (
    CONFIG,
    DEFAULT_PROFILE,
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    TEXT_BYTES,
    find_file_problem,
    golden_name,
    is_model_folder,
)
from registry.manifest import Entry, read_changes, read_manifest
from registry.profiles import OPENVINO
from registry.threads import fit_cpus
from registry.warmup import add_warmup

_IN_FOLDER = "model.onnx"  # what Triton reads where the model is a folder


@dataclass(frozen=True)
class Texts:
    """The texts that describe a version.

    Attributes:
        own: texts of the version's folder, by file name: manifest.json, config.pbtxt, those of profiles.
        shared: the model's config of the profile, for versions without one of their own.
        model: the model's own config, judged, serialised; empty where it has none.
        files: names of all files of the version's folder.
    """

    own: Mapping[str, bytes]
    shared: bytes | None = None
    model: bytes = b""
    files: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terms:
    """How versions are served.

    Attributes:
        profile: of the settings.
        cpus: that Triton may use; 0: threads stay as the config has them.
        plans: whether TensorRT plans, and graphs that hold compiled engines, may be loaded: they are code.
        engines: prefix of the names of engines that are built of it; empty: as in the config.
        bf16: whether its CPUs compute bf16 in hardware.
    """

    profile: str = DEFAULT_PROFILE
    cpus: float = 0
    plans: bool = False
    engines: str = ""
    bf16: bool = True


def judge_config(text: bytes, *, where: str) -> bytes:
    """Parse and check one config.pbtxt, and return the `ModelConfig`, serialised.

    Raises:
        VersionRejected: see `config.parse`, `config.check`.
        OSError, Defect: see `confined`; likewise below.
    """
    encoded: str = confined(_judge_config, text, where)
    return base64.b64decode(encoded)


def judge_texts(texts: Texts, terms: Terms) -> Mapping[str, Entry] | None:
    """Check the texts of a version, and return the entries of manifest.json; None without one.

    Raises:
        VersionRejected: a text is invalid.
    """
    entries: dict[str, list[Any]] | None = confined(judge_texts_here, texts, terms)
    return None if entries is None else {name: Entry(*entry) for name, entry in entries.items()}


def judge_changes(manifest: bytes) -> Mapping[str, float]:
    """How the accuracy of each precision of a version differs from that of FP32: `read_changes`.

    Raises:
        VersionRejected: the manifest is invalid.
    """
    changes: dict[str, float] = confined(_judge_changes, manifest)
    return changes


def complete_version(version: Path, texts: Texts, terms: Terms) -> None:
    """Check the files of a version, and write the config.pbtxt for Triton in place of its own, warm-up included.

    Args:
        version: its folder, in a model's folder without other versions.
        texts: checked.
        terms: how it is served.

    Raises:
        VersionRejected: a file is invalid.
        Incomplete: a file is missing.
    """
    confined(complete_version_here, version, texts, terms)


def judge_version(version: Path, texts: Texts, terms: Terms) -> None:
    """Check texts and files of a version in a folder, and write nothing.

    Raises:
        VersionRejected, Incomplete: as above.
    """
    confined(_judge_version, version, texts, terms)


def read_texts(version: Path) -> Texts:
    """The texts of a version in a local folder, of which its signature is no part.

    Raises:
        VersionRejected: one is too large, or a name is not legal.
        OSError: it cannot be read.
    """
    own = {}
    paths = sorted(path for path in version.iterdir() if path.name != SIGNATURE)
    folders = [path for path in paths if is_model_folder(path.name) and path.is_dir() and not path.is_symlink()]
    paths = [path for path in paths if path not in folders]
    for path in (*paths, *(part for folder in folders for part in sorted(folder.iterdir()))):
        if reason := find_file_problem(path.name):
            raise VersionRejected(reason)
        if path.is_symlink() or not path.is_file():
            raise VersionRejected(f"{path.name}: got a link or a folder, expected a file")
        if path.parent == version and (path.name == MANIFEST or path.suffix == ".pbtxt"):
            size = path.stat().st_size
            if size > TEXT_BYTES:
                raise VersionRejected(f"{path.name}: got {size} bytes, expected at most {TEXT_BYTES}")
            own[path.name] = path.read_bytes()
    return Texts(own, files=frozenset(path.name for path in paths))


# In the confined process


def _judge_config(text: bytes, where: str) -> str:
    return base64.b64encode(_read_config(text, where).SerializeToString()).decode()


def _judge_changes(manifest: bytes) -> dict[str, float]:
    return dict(read_changes(manifest, where=MANIFEST))


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
    config = fit_cpus(config, cpus=terms.cpus, bf16=terms.bf16)
    golden = find_golden(version, config, terms.profile)
    if golden.exists():
        arrays = _judge_golden(golden, config)
        # Written again: other readers might read the archive of the bucket in another way.
        write_golden(version / GOLDEN, arrays)
        add_warmup(config, arrays, version.parent)
    if terms.engines and configs.keeps_engines(config):
        configs.name_engines(config, terms.engines)
    text = configs.compose(config, versions=[int(version.name)])
    (version.parent / CONFIG).write_bytes(text)
    # A copy stays with the version.
    (version / CONFIG).write_bytes(text)


def _compose(texts: Texts, terms: Terms) -> ModelConfig:
    """The config that the version serves with: its own or the model's, with the profile where there is one.

    A version with a config of its own has its own profiles: those of the model belong to other files.
    """
    own = ModelConfig.FromString(texts.model) if texts.model else None
    has_own = CONFIG in texts.own
    if has_own:
        own = _read_config(texts.own[CONFIG], CONFIG)
    name = f"{terms.profile}.pbtxt"
    text = texts.own.get(name)
    if MANIFEST in texts.own and name not in read_manifest(texts.own[MANIFEST], where=MANIFEST):
        text = None  # not part of the version
    if text is None and not has_own:
        name, text = f"configs/{name}", texts.shared
    if text is not None and terms.profile != DEFAULT_PROFILE:
        own = configs.merge_variant(_read_config(text, name), own)
        configs.check(own, where=f"{name} over {CONFIG}")
        own.parameters["profile"].string_value = terms.profile
    config = configs.resolve(own, texts.files, plans=terms.plans)
    if text is None and terms.profile == OPENVINO and (derived := configs.in_openvino(config)) is not None:
        config = derived
        config.parameters["profile"].string_value = OPENVINO
    configs.check_formats(config, plans=terms.plans)
    reject_as_triton(config)
    return config


def find_golden(version: Path, config: ModelConfig, profile: str) -> Path:
    """The golden outputs of the profile that the version serves with, where they differ from those in FP32."""
    own = version / golden_name(profile)
    serves_with = config.parameters["profile"].string_value if "profile" in config.parameters else ""
    return own if serves_with == profile and own.exists() else version / GOLDEN


def _judge_golden(path: Path, config: ModelConfig) -> Arrays:
    arrays = read_golden(path)
    if config.input:  # otherwise Triton completes the config
        split_golden(arrays, config)
    return arrays


def _judge_files(version: Path, config: ModelConfig, *, plans: bool) -> None:
    """Check that the model file and all files of its weights are there, and that none of them holds code."""
    # Triton takes the file for its GPU, else the default.
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
            raise VersionRejected(f"{path.name}: not an ONNX file: {exc or type(exc).__name__}") from exc
        if facts.engines and not plans:
            raise VersionRejected(
                f"{path.name}: got {facts.engines} nodes EPContext, which hold compiled engines, expected none: they "
                "are code; PREDICTOR_PLANS=true allows them"
            )
        for name in sorted(facts.external):
            if find_file_problem(name):
                raise VersionRejected(f"{path.name}: external data {name!r:.80}: expected a file beside it")
            if not (path.parent / name).exists():
                raise Incomplete(f"waits for {name}, external data of {path.name}")
