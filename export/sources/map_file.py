"""Reads an ONNX file of semantic segmentation or of depth that Ultralytics exported."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from export.errors import ExportError
from export.graph.dims import free_batch
from export.graph.nodes import opset_of
from export.proof.session import Session
from export.sources.exported_detector import read_metadata
from export.sources.onnx_file import normalise, read_onnx
from transformer.triton.model import MAX_SIDE_PX

_HEADS = {"SemanticSegment": "semantic", "Depth": "depth"}
_OLDEST_OPSET = 11  # since then Resize aligns corners
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_KINDS = {"semantic": {TensorProto.UINT8, TensorProto.INT32}, "depth": _FLOATS}
_EXPECTED = {
    "semantic": "a map of classes (1, height, width) in UINT8 or INT32",
    "depth": "a map of depth (1, 1, height, width) in FP32 or FP16",
}
_AGAIN = "export it again with Ultralytics 8.4.190 or newer (yolo export format=onnx dynamic=True opset=17)"


@dataclass(frozen=True)
class MapFile:
    """A model that returns a map, as Ultralytics exported it.

    Attributes:
        task: `semantic` or `depth`.
        graph: input `images` FP32 `(batch, 3, height, width)`, output `output0`.
        source: the file itself, unchanged.
        names: index -> class; one of depth, which has none.
        imgsz_hw: height and width of its training.
        stride: its largest.
        fixed_hw: height and width of the input where the file fixes them, else None.
    """

    task: str
    graph: ModelProto
    source: Session
    names: Mapping[int, str]
    imgsz_hw: tuple[int, int]
    stride: int
    fixed_hw: tuple[int, int] | None


def read_map(path: Path) -> MapFile:
    """Load a file and its metadata, and run it once.

    Raises:
        ExportError: the file is not an ONNX file that Ultralytics exported, or not one of a map.
    """
    model = read_onnx(path)
    metadata = read_metadata(model, path)
    task = _check_head(metadata, path)
    batch, *size = _check_tensors(model, path, task)
    if opset_of(model) < _OLDEST_OPSET:
        raise ExportError(f"{path}: opset: got {opset_of(model)}, expected {_OLDEST_OPSET} or newer: {_AGAIN}")
    imgsz_hw = metadata["imgsz"]
    fixed_hw = (size[0] or imgsz_hw[0], size[1] or imgsz_hw[1]) if any(size) else None
    source = Session(path, name=str(path))
    height, width = fixed_hw or imgsz_hw
    (output,) = source.infer(np.full((1, 3, height, width), 0.5, np.float32)).values()
    if output.shape != ((1, height, width) if task == "semantic" else (1, 1, height, width)):
        raise ExportError(
            f"{path}: output: got {output.shape} for an image of {height}x{width}, expected {_EXPECTED[task]}: {_AGAIN}"
        )
    graph = normalise(model)
    return MapFile(
        task=task,
        graph=free_batch(graph) if batch else graph,
        source=source,
        names=metadata["names"],
        imgsz_hw=imgsz_hw,
        stride=metadata["stride"],
        fixed_hw=fixed_hw,
    )


def _check_head(metadata: Mapping[str, object], path: Path) -> str:
    """The task of the file, whose head is that of the task where it names one."""
    task, head = str(metadata["task"]), metadata.get("head")
    if task not in _HEADS.values() or (head is not None and _HEADS.get(str(head)) != task):
        expected = ", ".join(f"{name} of task {of!r}" for name, of in _HEADS.items())
        raise ExportError(f"{path}: head: got {head!r:.80}, task {task!r:.80}, expected {expected}")
    return task


def _check_tensors(model: ModelProto, path: Path, task: str) -> list[int]:
    """Batch, height and width of the input; 0 where one is free."""
    known = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        got = f"{len(inputs)} inputs and {len(model.graph.output)} outputs"
        raise ExportError(f"{path}: tensors: got {got}, expected images and {_EXPECTED[task]}: {_AGAIN}")
    source, target = (value.type.tensor_type for value in (inputs[0], model.graph.output[0]))
    dims = [max(dim.dim_value, 0) for dim in source.shape.dim]
    if source.elem_type not in _FLOATS or len(dims) != 4 or dims[1] not in {0, 3} or max(dims) > MAX_SIDE_PX:
        raise ExportError(f"{path}: input: got {dims}, expected (batch, 3, height, width) in FP32 or FP16: {_AGAIN}")
    if target.elem_type not in _KINDS[task]:
        kind = TensorProto.DataType.Name(target.elem_type)
        raise ExportError(f"{path}: output: got {kind}, expected {_EXPECTED[task]}: {_AGAIN}")
    if dims[0] > 1:
        raise ExportError(f"{path}: batch: got a file for {dims[0]} images at a time, expected a free batch or 1")
    return [dims[0], *dims[2:]]
