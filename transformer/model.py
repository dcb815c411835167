"""What a model is, read from the one place that says it: Triton's `ModelConfig`."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transformer.errors import PredictorError

Task = Literal["detect", "classify", "tabular"]
TASKS: tuple[Task, ...] = ("detect", "classify", "tabular")


class ModelConfigError(PredictorError):
    """The model is loaded, but its config.pbtxt does not describe a model that can be served here."""


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: as in config.pbtxt.
        datatype: v2 protocol string such as `FP32`.
        dims: without the batch dimension; -1 is free.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """One version of a model.

    Attributes:
        name, version: as in the repository.
        task: what it does.
        input: its only input.
        outputs: in the order of config.pbtxt.
        max_batch_size: how many items one request may hold; 1 where Triton does not batch.
        batch_dim: first dimension on the wire; -1 where Triton batches.
        names: class name for each index; empty for a regressor.
        input_wh: picture size it was trained for, `(width, height)`; None for tables.
        channels: of a picture.
        stride: of a detector.
        end2end: a detector whose head needs no NMS.
        features: names of a table's columns.
        platform: what runs it, in Triton's words.
    """

    name: str
    version: str
    task: Task
    input: Tensor
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    names: Mapping[int, str]
    input_wh: tuple[int, int] | None = None
    channels: int = 3
    stride: int = 32
    end2end: bool = False
    features: tuple[str, ...] = ()
    platform: str = ""
    batch_dim: int = -1


def describe(config: Any, *, version: str) -> Model:
    """Read a model's description.

    Args:
        config: `inference.ModelConfig`, the protobuf, as Triton returns it or as config.pbtxt parses to.
        version: the version that the description belongs to.

    Raises:
        ModelConfigError: `parameters.metadata` is missing or says something impossible.
    """
    metadata = _metadata(config)
    task = metadata.get("task")
    if task not in TASKS:
        raise ModelConfigError(f"{config.name}: task in parameters.metadata: got {task!r}, expected one of {TASKS}")
    if len(config.input) != 1 or not config.output:
        raise ModelConfigError(
            f"{config.name}: got {len(config.input)} inputs and {len(config.output)} outputs, expected one input"
        )
    batched = config.max_batch_size > 0
    names = metadata.get("names", {})
    model = Model(
        name=config.name,
        version=version,
        task=task,
        input=_tensor(config.input[0], batched=batched),
        outputs=tuple(_tensor(output, batched=batched) for output in config.output),
        max_batch_size=max(config.max_batch_size, 1),
        names=dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names),
        input_wh=_input_wh(metadata.get("imgsz")),
        channels=int(metadata.get("channels", 3)),
        stride=int(metadata.get("stride", 32)),
        end2end=bool(metadata.get("end2end", False)),
        features=tuple(metadata.get("features", ())),
        platform=config.platform or config.backend,
        batch_dim=-1 if batched else int(config.input[0].dims[0]),
    )
    if model.task != "tabular" and model.input_wh is None:
        raise ModelConfigError(f"{config.name}: imgsz is missing in parameters.metadata")
    return model


def _metadata(config: Any) -> dict[str, Any]:
    text = config.parameters["metadata"].string_value if "metadata" in config.parameters else ""
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError) as exc:
        raise ModelConfigError(
            f"{config.name}: parameters.metadata: got {text[:80]!r}, expected a Python dict"
        ) from exc
    if not isinstance(metadata, dict):
        raise ModelConfigError(f"{config.name}: parameters.metadata: got {text[:80]!r}, expected a Python dict")
    return metadata


def _tensor(proto: Any, *, batched: bool) -> Tensor:
    # TYPE_STRING is BYTES on the wire; the rest differs by its prefix only.
    datatype = proto.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[proto.data_type].name
    datatype = datatype.removeprefix("TYPE_").replace("STRING", "BYTES")
    dims = tuple(proto.dims)
    # Without batching by Triton the leading dimension is part of the dims.
    return Tensor(proto.name, datatype, dims if batched else dims[1:])


def _input_wh(imgsz: Any) -> tuple[int, int] | None:
    """Ultralytics writes `[height, width]` or one number."""
    if imgsz is None:
        return None
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return int(width), int(height)
