"""Reads an ONNX file that Ultralytics exported: its metadata, its tensors, and the shapes of its outputs.

A detector is a network that finds objects: boxes alone, or with masks (segment), keypoints (pose), or rotated (obb).
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from export.errors import ExportError
from export.graph.head import Layout, check_head, is_rtdetr, read_layout
from export.graph.nodes import opset_of
from export.proof.session import Session
from export.sources.onnx_file import OUTPUTS, normalise, read_onnx
from transformer.tasks import describe
from transformer.triton.model import MAX_SIDE_PX, MAX_STRIDE, Model, ModelConfigError, class_id

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_OLDEST_OPSET = 10  # since then TopK and Slice take their parameters as inputs
_OLDEST_BEST_OPSET = 12  # Min of whole numbers, for tasks whose best candidates are taken in the graph
_LITERALS = ("names", "imgsz", "stride", "args", "channels", "end2end", "kpt_shape", "kpt_names")
_EXPECTED = (
    "one input (batch, 3, height, width) and one output of three dimensions, with prototypes of four beside it where "
    "the task is segment, in FP32 or FP16"
)


@dataclass(frozen=True)
class Detector:
    """A detector as Ultralytics exported it.

    Attributes:
        graph: input `images` FP32 `(batch, 3, height, width)`, output `output0` FP32.
        source: the file itself, unchanged.
        names: index -> class; indices may have gaps.
        imgsz_hw: height and width of its training.
        stride: its largest.
        fixed_hw: height and width of the input where the file fixes them, else None; RT-DETR has one size always.
        fixed_batch: whether the file takes a batch of one only.
        layout: of the head.
        kpt_names: of keypoints, where the file has them: a list, or a list by class.
    """

    graph: ModelProto
    source: Session
    names: Mapping[int, str]
    imgsz_hw: tuple[int, int]
    stride: int
    fixed_hw: tuple[int, int] | None
    fixed_batch: bool
    layout: Layout
    kpt_names: Any = None

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The outputs of the source: `output0`, the head, and `output1`, the prototypes of masks."""
        return name_outputs(self.source.infer(images))


def read_form(metadata: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The metadata that describe the tensors of a file that Ultralytics exported.

    Args:
        metadata: names, imgsz, stride, and channels where it has them.
        where: names the file in messages.

    Returns:
        names: index -> class; indices may have gaps. imgsz: height and width. stride.

    Raises:
        ExportError: one of them is invalid.
    """
    if metadata.get("channels", 3) != 3:
        raise ExportError(f"{where}: channels: got {metadata['channels']!r:.80}, expected 3 (RGB)")
    return {
        "names": _names(metadata["names"], where),
        "imgsz": _imgsz(metadata["imgsz"], where),
        "stride": _whole("stride", metadata["stride"], where, most=MAX_STRIDE),
    }


def read_detector(path: Path) -> Detector:
    """Load a detector and its metadata, and run it once.

    Raises:
        ExportError: the file is not an ONNX file that Ultralytics exported, or not a detector that can be served.
    """
    model = read_onnx(path)
    metadata = read_metadata(model, path)
    check_head(metadata, where=str(path))
    batch, _, *size = _check_tensors(model, path)
    imgsz_hw = metadata["imgsz"]
    # A free side beside a fixed one becomes that of the training: all images have one size then, as stretched ones do.
    fixed_hw = _fill(size, imgsz_hw) if any(size) or is_rtdetr(metadata) else None
    source = Session(path, name=str(path))
    oldest = _OLDEST_OPSET if metadata["task"] == "detect" else _OLDEST_BEST_OPSET
    if opset_of(model) < oldest:
        raise ExportError(
            f"{path}: opset: got {opset_of(model)}, expected {oldest} or newer: export it again (Ultralytics: opset=17)"
        )
    return Detector(
        graph=normalise(model),
        source=source,
        names=metadata["names"],
        imgsz_hw=imgsz_hw,
        stride=metadata["stride"],
        fixed_hw=fixed_hw,
        fixed_batch=batch == 1,
        layout=_find_layout(source, metadata, size_hw=fixed_hw or imgsz_hw, where=str(path)),
        kpt_names=_kpt_names(metadata.get("kpt_names"), str(path)),
    )


def name_outputs(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Outputs of a file by the names that Ultralytics gives them: the prototypes of masks have four dimensions."""
    return dict(zip(OUTPUTS, sorted(outputs.values(), key=np.ndim), strict=False))


def _find_layout(source: Session, metadata: Mapping[str, Any], *, size_hw: tuple[int, int], where: str) -> Layout:
    """Run the file once, and read the layout of its head."""
    height, width = size_hw
    outputs = name_outputs(source.infer(np.full((1, 3, height, width), 0.5, np.float32)))
    head, prototypes = outputs["output0"], outputs.get("output1")
    got = ", ".join(str(output.shape) for output in outputs.values())
    fits = prototypes is None or (prototypes.ndim == 4 and len(prototypes) == 1 and prototypes.size)
    if head.ndim != 3 or len(head) != 1 or not head.size or not fits:
        raise ExportError(
            f"{where}: output: got {got} for an image of {height}x{width}, expected (1, rows, N), and of the task "
            "segment (1, M, height / 4, width / 4)"
        )
    return read_layout(
        head.shape[1:],
        metadata,
        prototypes=None if prototypes is None else prototypes.shape[1],
        has_whole_classes=bool((head[..., 5:6] == np.floor(head[..., 5:6])).all()),
        where=where,
    )


def read_model(described: Any) -> Model:
    """The model as the transformer reads it.

    Raises:
        ExportError: it rejects the names: one is invalid in JSON, or there are too many.
    """
    try:
        return describe(described, version="0")
    except ModelConfigError as exc:
        raise ExportError(str(exc)) from exc


def _fill(size: list[int], imgsz_hw: tuple[int, int]) -> tuple[int, int]:
    height, width = (fixed or trained for fixed, trained in zip(size, imgsz_hw, strict=True))
    return height, width


def read_texts(model: ModelProto, path: Path) -> dict[str, str]:
    """The metadata of a file as it holds them, as texts.

    Raises:
        ExportError: it is not one that Ultralytics exported.
    """
    texts = {entry.key: entry.value for entry in model.metadata_props}
    missing = [key for key in ("task", "names", "imgsz", "stride") if key not in texts]
    if missing:
        hint = ", like YOLOv5's own repository, which is not supported" if set(texts) >= {"names"} else ""
        raise ExportError(
            f"{path}: got no {', '.join(missing)} in its metadata{hint}; expected an ONNX file that Ultralytics "
            "exported (yolo export format=onnx dynamic=True opset=17)"
        )
    return texts


def read_metadata(model: ModelProto, path: Path) -> dict[str, Any]:
    """Metadata of the file: head, description and task as texts, numbers and names as Python values."""
    texts = read_texts(model, path)
    metadata: dict[str, Any] = {key: texts[key] for key in ("task", "head", "description") if key in texts}
    for key in texts.keys() & set(_LITERALS):
        try:
            metadata[key] = ast.literal_eval(texts[key])
        except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:  # the last two: nested deeply
            raise ExportError(f"{path}: {key} in its metadata: got {texts[key][:80]!r}, expected a literal") from exc
    return metadata | read_form(metadata, where=str(path))


def _names(names: Any, where: str) -> dict[int, str]:
    """Class names in a list, or in a mapping whose keys are whole numbers or, as in JSON, texts of them."""
    numbered = dict(enumerate(names)) if isinstance(names, list | tuple) else names
    found = {class_id(key): str(name) for key, name in numbered.items()} if isinstance(numbered, Mapping) else {}
    if not found or None in found or len(found) < len(numbered):
        raise ExportError(
            f"{where}: names in its metadata: got {names!r:.80}, expected index -> class, each index from 0 and once"
        )
    return {index: name for index, name in found.items() if index is not None}


def _kpt_names(found: Any, where: str) -> Any:
    """Names of keypoints: a list, or a list by class; None where the file has none."""
    lists = list(found.values()) if isinstance(found, Mapping) else [found]
    is_named = all(isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) for names in lists)
    if found is not None and not is_named:
        raise ExportError(
            f"{where}: kpt_names in its metadata: got {found!r:.80}, expected a list of texts, or a list by class"
        )
    return found


def _imgsz(imgsz: Any, where: str) -> tuple[int, int]:
    sides = [imgsz, imgsz] if isinstance(imgsz, int | float) else imgsz
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise ExportError(f"{where}: imgsz in its metadata: got {imgsz!r:.80}, expected one number or two")
    height, width = (_whole("imgsz", side, where, most=MAX_SIDE_PX) for side in sides)
    return height, width


def _whole(key: str, number: Any, where: str, *, most: int) -> int:
    # The remainder of infinity and of NaN is NaN, which counts as true.
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 or not 1 <= number <= most:
        raise ExportError(
            f"{where}: {key} in its metadata: got {number!r:.80}, expected a whole number from 1 to {most}"
        )
    return int(number)


def _check_tensors(model: ModelProto, path: Path) -> list[int]:
    """Dims of the input; 0 where one is free."""
    known = {initializer.name for initializer in model.graph.initializer}  # IR 3 lists them as inputs too
    inputs = [value for value in model.graph.input if value.name not in known]
    tensors = [*inputs, *model.graph.output]
    got = ", ".join(f"{tensor.name} {_describe(tensor)}" for tensor in tensors)
    if len(inputs) != 1 or len(model.graph.output) not in {1, 2} or len(_dims(tensors[0])) != 4:
        raise ExportError(f"{path}: tensors: got {got}, expected {_EXPECTED}")
    if any(tensor.type.tensor_type.elem_type not in _FLOATS for tensor in tensors):
        raise ExportError(f"{path}: tensors: got {got}, expected {_EXPECTED}: export it again in FP32 (no int8)")
    batch, channels, *size = _dims(tensors[0])
    if max(size) > MAX_SIDE_PX:
        raise ExportError(f"{path}: tensors: got {got}, expected sides of at most {MAX_SIDE_PX} pixels")
    # A free second dimension before a last one of 3 is a height.
    if channels not in {0, 3} or (not channels and size[-1] == 3):
        raise ExportError(f"{path}: channels: got {got}, expected (batch, 3, height, width), RGB")
    if batch > 1:
        raise ExportError(
            f"{path}: batch: got a file for {batch} images at a time ({got}), expected a free batch or 1: export it "
            f"again without batch={batch}, or with dynamic=True"
        )
    return _dims(tensors[0])


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes; 0 where one is free."""
    return [max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim]


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim)
    kinds = {number: kind for kind, number in TensorProto.DataType.items()}
    name = kinds.get(tensor.elem_type, "of no datatype")
    return f"{name} ({dims})"
