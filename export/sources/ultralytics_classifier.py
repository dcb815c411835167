"""Reads a classifier of Ultralytics: a checkpoint, or the ONNX file that Ultralytics exports from one."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError, first_line
from export.proof.session import Session
from export.sources import classifier
from export.sources.classifier import Classifier
from export.sources.classifier_description import Description, Pixels
from export.sources.exported_detector import read_form
from export.sources.onnx_file import normalise, read_onnx
from export.sources.ultralytics_tasks import File
from export.writer.repository import Version

if TYPE_CHECKING:
    from export.sources.classifier import Predict

TASK = "classify"
_HEAD = "Classify"
_LITERALS = ("names", "imgsz", "stride", "channels")
_EXPECTED = "one input (batch, 3, height, width) and one output (batch, classes), as Ultralytics exports a classifier"


def prepare(file: File) -> Version:
    """Bring a classifier into the form that is served, and verify it.

    Raises:
        ExportError: it is no classifier as Ultralytics exports one, an option is for another task, or it differs from
            Ultralytics' `predict`, where there is one to compare it with.
    """
    if file.choice.nms_free or file.choice.letterbox is not None:
        option = "--nms-free" if file.choice.nms_free else "--letterbox"
        raise ExportError(f"{option}: got a classifier, which has neither boxes nor letterbox; next: omit it")
    read = read_classifier(file.path)
    return classifier.prepare(
        file.name,
        read,
        source=file.source,
        choice=file.choice,
        report=file.report,
        predict=_predict(file.checkpoint.load(), read.description) if file.checkpoint else None,
    )


def read_classifier(path: Path) -> Classifier:
    """Load a file and its metadata, and run it once.

    Raises:
        ExportError: it is no classifier as Ultralytics exports one.
    """
    model = read_onnx(path)
    metadata = _read_metadata(model, path)
    source = Session(path, name=str(path))
    (image, *others), outputs = source.inputs.values(), source.outputs
    channels, (height, width) = image.shape[1:2], metadata["imgsz"]
    if others or len(outputs) != 1 or len(image.shape) != 4 or channels not in {(3,), (-1,)}:
        got = ", ".join(f"{each} {list(tensor.shape)}" for each, tensor in {**source.inputs, **outputs}.items())
        raise ExportError(f"{path}: tensors: got {got}, expected {_EXPECTED}")
    if image.shape[0] > 1:
        raise ExportError(
            f"{path}: batch: got a file for {image.shape[0]} images at a time, expected a free batch or 1: export it "
            f"again without batch={image.shape[0]}, or with dynamic=True"
        )
    fixed_hw = tuple(
        fixed if fixed > 0 else trained for fixed, trained in zip(image.shape[2:], (height, width), strict=True)
    )
    size_hw = fixed_hw[0], fixed_hw[1]
    (output,) = outputs
    shape = source.infer(np.full((1, 3, *size_hw), 0.5, np.float32))[output].shape
    names = metadata["names"]
    classes = max(names) + 1
    if shape != (1, classes):
        raise ExportError(
            f"{path}: output: got {list(shape)}, expected [1, {classes}], one for each of its {len(names)} names up to "
            f"index {classes - 1}"
        )
    return Classifier(
        graph=normalise(model),
        source=source,
        output=output,
        output_shape=shape,
        softmax=False,
        fixed_batch=image.shape[0] == 1,
        description=describe(size_hw, {index: names.get(index, str(index)) for index in range(classes)}),
        metadata={"stride": metadata["stride"], "args": {"dynamic": False}},
    )


def describe(size_hw: tuple[int, int], names: Mapping[int, str]) -> Description:
    """What Ultralytics' `classify_transforms` does for a size: a square from the shorter side, else the exact size."""
    height, width = size_hw
    resize: dict[str, Any] = {"fit": "stretch"} if height != width else {"fit": "shortest", "size": height}
    resize["interpolation"] = "bilinear"
    return Description(size_hw, resize, "nchw", "rgb", Pixels(), names, "no")


def _read_metadata(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if missing := [key for key in ("names", "imgsz") if key not in texts]:
        raise ExportError(
            f"{path}: got no {', '.join(missing)} in its metadata, expected them as Ultralytics writes them"
        )
    head = texts.get("head", _HEAD)
    if head != _HEAD:
        raise ExportError(f"{path}: head: got {head!r:.80} while task is {TASK!r}, expected {_HEAD!r}")
    metadata: dict[str, Any] = {"stride": 1}
    for key in texts.keys() & set(_LITERALS):
        try:
            metadata[key] = ast.literal_eval(texts[key])
        except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:  # the last two: nested deeply
            raise ExportError(f"{path}: {key} in its metadata: got {texts[key][:80]!r}, expected a literal") from exc
    return metadata | read_form(metadata, where=str(path))


def _predict(yolo: Any, description: Description) -> "Predict":
    """Ultralytics' own `predict`."""

    def run(image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (result,) = yolo.predict(
                np.ascontiguousarray(image_hwc[..., ::-1]),  # it takes BGR
                imgsz=list(description.size_hw),
                device="cpu",
                verbose=False,
            )
        except Exception as exc:  # torch, ONNX Runtime and a network's own code may raise anything
            raise ExportError(f"Ultralytics' predict fails on an image: {first_line(exc)}") from exc
        return np.asarray(result.probs.data.numpy(), np.float32)

    return run
