"""An ONNX file that Ultralytics exported: what it says of itself."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from export.errors import ExportError


@dataclass(frozen=True)
class Detector:
    """A detector as Ultralytics exported it.

    Attributes:
        graph: input `images` FP32 `(batch, 3, height, width)`, output `output0`.
        names: index -> class.
        imgsz_hw: height and width it was trained for.
        stride: its largest.
        fixed_hw: height and width of the input where the file fixes them, else None.
        fixed_batch: whether the file takes a batch of one only.
        end2end: whether the head needs no NMS.
    """

    graph: ModelProto
    names: Mapping[int, str]
    imgsz_hw: tuple[int, int]
    stride: int
    fixed_hw: tuple[int, int] | None
    fixed_batch: bool
    end2end: bool


def read_onnx(path: Path) -> ModelProto:
    """Load an ONNX file.

    Raises:
        ExportError: there is none, or it is something else.
    """
    try:
        graph = onnx.load(path)
    except FileNotFoundError as exc:
        raise ExportError(f"{path}: there is no such file") from exc
    except (DecodeError, OSError, onnx.checker.ValidationError) as exc:
        raise ExportError(f"{path}: got no complete ONNX file ({exc}): is it cut off, or something else?") from exc
    if not graph.graph.node:
        raise ExportError(f"{path}: got no ONNX file ({path.stat().st_size} bytes without a graph)")
    return graph


def read_detector(path: Path) -> Detector:
    """Load a detector and its metadata.

    Raises:
        ExportError: the file is no ONNX file, or none that Ultralytics exported, or no detector that can be served.
    """
    graph = read_onnx(path)
    metadata = _metadata(graph, path)
    if metadata["task"] != "detect":
        raise ExportError(f"{path}: task: got {metadata['task']!r}, expected 'detect': other tasks are not served yet")
    _check_tensors(graph, metadata, path)
    images = graph.graph.input[0].type.tensor_type.shape.dim
    height, width = images[2].dim_value, images[3].dim_value
    imgsz = metadata["imgsz"]
    return Detector(
        graph=graph,
        names={int(index): str(name) for index, name in metadata["names"].items()},
        imgsz_hw=(imgsz, imgsz) if isinstance(imgsz, int) else (int(imgsz[0]), int(imgsz[1])),
        stride=int(metadata["stride"]),
        fixed_hw=(height, width) if height and width else None,
        fixed_batch=bool(images[0].dim_value),
        end2end=_is_end2end(graph, metadata, path),
    )


def _metadata(graph: ModelProto, path: Path) -> dict[str, Any]:
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    missing = [key for key in ("task", "names", "imgsz", "stride") if key not in texts]
    if missing:
        raise ExportError(
            f"{path}: got no {', '.join(missing)} in its metadata, expected an ONNX file that Ultralytics exported "
            "(yolo export format=onnx dynamic=True opset=17)"
        )
    metadata: dict[str, Any] = {"task": texts["task"]}
    for key in texts.keys() & {"names", "imgsz", "stride", "args", "channels", "end2end"}:
        try:
            metadata[key] = ast.literal_eval(texts[key])
        except (ValueError, SyntaxError) as exc:
            raise ExportError(f"{path}: {key} in its metadata: got {texts[key][:80]!r}, expected a literal") from exc
    if not isinstance(metadata["names"], dict) or not metadata["names"]:
        raise ExportError(f"{path}: names in its metadata: got {texts['names'][:80]!r}, expected index -> class")
    return metadata


def _check_tensors(graph: ModelProto, metadata: Mapping[str, Any], path: Path) -> None:
    if (metadata.get("args") or {}).get("nms"):
        raise ExportError(f"{path}: it has NMS inside, with fixed thresholds: export it again without nms=True")
    tensors = [*graph.graph.input, *graph.graph.output]
    got = ", ".join(f"{tensor.name} {_dims(tensor)}" for tensor in tensors)
    expected = "one input FP32 (batch, 3, height, width) and one output FP32 of three dimensions"
    if [len(graph.graph.input), len(graph.graph.output)] != [1, 1] or [len(_dims(t)) for t in tensors] != [4, 3]:
        raise ExportError(f"{path}: tensors: got {got}, expected {expected}")
    if any(tensor.type.tensor_type.elem_type != TensorProto.FLOAT for tensor in tensors):
        raise ExportError(f"{path}: tensors: got half precision or integers, expected {expected}: export in FP32")
    if int(metadata.get("channels", 3)) != 3 or tensors[0].type.tensor_type.shape.dim[1].dim_value != 3:
        raise ExportError(f"{path}: channels: got {got}, expected 3 (RGB)")


def _is_end2end(graph: ModelProto, metadata: Mapping[str, Any], path: Path) -> bool:
    """Told by the output's shape where the file knows it, else by the metadata."""
    _, rows, columns = _dims(graph.graph.output[0])
    if rows == 4 + len(metadata["names"]):
        return False
    if columns == 6:
        return True
    if isinstance(rows, int) and rows > 0 and isinstance(columns, int) and columns > 0:
        raise ExportError(
            f"{path}: output: got ({rows}, {columns}), expected ({4 + len(metadata['names'])}, N) or (N, 6) for "
            f"{len(metadata['names'])} classes"
        )
    return bool(metadata.get("end2end", False))


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
