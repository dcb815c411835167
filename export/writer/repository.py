"""Writes a verified version into a local model repository: whole or not at all."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from export.graph.compatibility import check_dims, check_loads
from export.proof.session import Session
from export.writer import manifest
from export.writer.config import follow, read_config, to_text, under_policy
from export.writer.manifest import Interface, Source
from export.writer.profiles import INT8, ONNX, PROFILES
from export.writer.staging import HIDDEN_CONFIG, move_in, stage, sweep
from registry.golden import write_golden
from registry.layout import GOLDEN, golden_name
from registry.storage.folder_lock import lock_folder


@dataclass(frozen=True)
class Version:
    """A version that is verified and may be published.

    Attributes:
        graph: model.onnx; None for a plan without one.
        config: `ModelConfig`; names the model.
        task, interface, source: see manifest.schema.json.
        parity: how far the exported model is from its source.
        golden: one small input and the outputs it must give, by tensor name, with a batch dimension of one; empty
            where it cannot run here.
        goldens: the same with the outputs of a profile, by its name, where they differ.
        profiles: other configs to run it with, by name.
        quantised: model.int8.onnx, of a detector that has one.
        plans: TensorRT's, by file name.
        precisions: what each precision costs, as in manifest.schema.json.
    """

    graph: onnx.ModelProto | None
    config: Any
    task: str
    interface: Interface | None
    source: Source
    parity: Mapping[str, Any]
    golden: Mapping[str, NDArray[Any]]
    goldens: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    quantised: onnx.ModelProto | None = None
    plans: Mapping[str, bytes] = field(default_factory=dict)
    precisions: Mapping[str, Any] = field(default_factory=dict)


def write_version(repository: Path, version: Version) -> Path:
    """Write a version under the next number and bring the model's config.pbtxt up to date.

    Returns:
        The version's folder.

    Raises:
        ExportError: Triton would not load the config with the graph.
    """
    if version.graph is not None:
        check_dims(version.graph, version.config)
        _check_loads(version.graph, version.config)
    repository.mkdir(parents=True, exist_ok=True)
    with lock_folder(repository):
        sweep(repository)
        model = repository / version.config.name
        model.mkdir(exist_ok=True)
        staging = stage(model)
        first = not (model / "config.pbtxt").exists()
        try:
            _write_files(staging, version)
            if first:  # Triton never sees a version without it
                _write_configs(model, version)
            folder = move_in(staging, partial(_describe, version, staging))
        except BaseException:  # Ctrl-C too
            if first:
                (model / "config.pbtxt").unlink(missing_ok=True)
                _remove_profiles(model, keep=())
            sweep(repository)
            raise
        _write_configs(model, version)
    return folder


def _check_loads(graph: onnx.ModelProto, config: Any) -> None:
    session = Session(graph, name=config.name)
    check_loads(session.inputs, session.outputs, config)


def _describe(version: Version, staging: Path, number: int) -> dict[str, Any]:
    return manifest.describe(
        model=version.config.name,
        version=number,
        task=version.task,
        interface=version.interface,
        source=version.source,
        precisions=version.precisions,
        folder=staging,
    )


def _write_files(staging: Path, version: Version) -> None:
    for name, graph in ((ONNX, version.graph), (INT8, version.quantised)):
        if graph is not None:
            onnx.save(graph, staging / name)
    for name, plan in version.plans.items():
        (staging / name).write_bytes(plan)
    for name, config in ({"config": version.config} | dict(version.profiles)).items():
        (staging / f"{name}.pbtxt").write_text(to_text(config), encoding="utf-8")
    (staging / "parity.json").write_text(json.dumps(version.parity, indent=2) + "\n", encoding="utf-8")
    goldens = {GOLDEN: version.golden} | {golden_name(name): arrays for name, arrays in version.goldens.items()}
    for name, arrays in goldens.items():
        if arrays:
            write_golden(staging / name, arrays, compressed=True)  # np.savez takes some names for its own


def _write_configs(model: Path, version: Version) -> None:
    """Bring the configs that a stock Triton reads up to date, the profiles first."""
    path = model / "config.pbtxt"
    present = read_config(path) if path.exists() else None
    if present is not None and present.version_policy.HasField("specific"):
        return
    _remove_profiles(model, keep=version.profiles)
    for name, profile in version.profiles.items():
        place = model / "configs" / f"{name}.pbtxt"
        place.parent.mkdir(exist_ok=True)
        _replace(model, place, under_policy(profile, present or profile))
    composed = follow(version.config, present)
    if composed is not None:
        _replace(model, path, composed)


def _replace(model: Path, path: Path, config: Any) -> None:
    hidden = model / HIDDEN_CONFIG
    hidden.write_text(to_text(config), encoding="utf-8")
    hidden.replace(path)


def _remove_profiles(model: Path, *, keep: Collection[str]) -> None:
    """Remove profiles that the newest version does not have; files of a user beside them stay."""
    for name in PROFILES - set(keep):
        (model / "configs" / f"{name}.pbtxt").unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or not there
        (model / "configs").rmdir()
