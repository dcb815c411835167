"""Compares a new version with what clients of the model rely on: its task, names and tensors."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType

from export.errors import ExportError
from registry.config import MAX_BYTES
from registry.golden_outputs import read_metadata

_SHOWN = 5


def check_same(now: Any, new: Any, *, serves: int) -> None:
    """Check that clients of the version that serves can use a new one.

    Args:
        now: `ModelConfig` of the one that serves.
        new: of the one that is to replace it.
        serves: number of the first one.

    Raises:
        ExportError: its inputs or outputs differ.
    """
    if changes := list(_differences(now, new)):
        raise ExportError(
            f"{now.name}: version {serves} serves, and its clients expect something else: {'; '.join(changes)}; "
            "next: another MODEL name, or FORCE=1 where that is intended"
        )


def _differences(now: Any, new: Any) -> Iterator[str]:
    before, after = (read_metadata(config, longest=MAX_BYTES) for config in (now, new))
    task = before.get("task")
    if task != after.get("task"):
        yield f"task: got {after.get('task')}, expected {task}"
        return
    # The transformer adapts images to any input, and results from any output; `imgsz` is what every task on images has.
    has_images = "imgsz" in before
    # The transformer converts rows to either of them.
    same = {} if has_images else {"FP64": "FP32"}
    taken = [_tensors(each.input, dims=not has_images, same=same) for each in (now, new)]
    pairs = [
        ("features", _names(before.get("features")), _names(after.get("features"))),
        ("classes", _names(before.get("names")), _names(after.get("names"))),
        ("inputs", taken[0], taken[1]),
    ]
    if not has_images:
        pairs.append(("outputs", _tensors(now.output, dims=True), _tensors(new.output, dims=True)))
    for what, expected, got in pairs:
        if expected != got:
            yield f"{what}: got {_words(got, expected)}, expected {_words(expected, got)}"


def _names(these: Any) -> list[str]:
    """Names in the order of their indices."""
    if isinstance(these, dict):
        these = [these[index] for index in sorted(these, key=lambda index: (str(type(index)), index))]
    return [str(name) for name in these] if isinstance(these, list | tuple) else []


def _tensors(tensors: Any, *, dims: bool, same: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    datatypes = [DataType.Name(each.data_type).removeprefix("TYPE_") for each in tensors]
    kinds = [f"{each.name} {same.get(datatype, datatype)}" for each, datatype in zip(tensors, datatypes, strict=True)]
    return [f"{kind} {list(each.dims)}" if dims else kind for kind, each in zip(kinds, tensors, strict=True)]


def _words(these: list[str], others: list[str]) -> str:
    """How many there are, and some of them, from the first one that differs."""
    first = next((index for index, pair in enumerate(zip_longest(these, others)) if pair[0] != pair[1]), 0)
    shown = these[first : first + _SHOWN] or these[:_SHOWN]
    return f"{len(these)} ({', '.join(shown)}{', ...' if len(shown) < len(these) else ''})"
