"""Compares an exported detector with its source, on drawn images, with the preprocessing that is served."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.drawn_images import NamedImage
from export.proof.plausibility import COMPARED, Candidates, Floats, check, check_places, check_sizes
from export.proof.session import Session
from transformer.tasks.detect import DETECT
from transformer.triton.model import Model

# FP32 `(1, 3, height, width)` in 0 to 1 -> the head, with its batch dimension
Head = Callable[[Floats], Floats]

TOLERANCE_BOXES_PX = 1.0
TOLERANCE_SCORES = 0.001  # FP32 on both sides: 0.00002 seen with YOLOv8n
_MEANINGFUL = 0.01  # below this score the class of a box is chance


@dataclass(frozen=True)
class Reference:
    """The source's candidates for an image.

    Attributes:
        image: the image.
        candidates: the best `COMPARED`.
    """

    image: NamedImage
    candidates: Candidates


@dataclass(frozen=True)
class Difference:
    """The largest difference of boxes and of scores of two detectors on an image, and the number of other classes."""

    boxes_px: float
    scores: float
    classes: int


def decode(outputs: Mapping[str, NDArray[Any]], *, end2end: bool) -> Candidates:
    """Candidates of one image from outputs without batch dimension, of either interface."""
    if "boxes" in outputs:
        return Candidates(outputs["boxes"], outputs["scores"], outputs["classes"].astype(np.int64))
    head = outputs["output0"]
    if end2end:
        corners = head[:, :4]
        boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
        return Candidates(boxes, head[:, 4], head[:, 5])
    return Candidates(head[:4].T, head[4:].max(axis=0), head[4:].argmax(axis=0))


def run_source(source: Head, model: Model, *, images: Sequence[NamedImage]) -> list[Reference]:
    """Run the source on images.

    Args:
        source: the detector that is exported.
        model: the `ultralytics` interface of the model, whose preprocessing is the one that is served.
        images: the drawn ones.

    Raises:
        ExportError: its scores or boxes are impossible.
    """
    references = []
    for image in images:
        pixels, _ = DETECT.preprocess(image.image_hwc, model)
        candidates = decode({"output0": source(pixels[None])[0]}, end2end=model.end2end)
        where = f"the source, image {image.name}"
        check(candidates, pixels.shape[1:], classes=model.classes, where=where)
        check_places(candidates, pixels.shape[1:], where=where)
        references.append(Reference(image, candidates.best(COMPARED)))
    highest = [float(reference.candidates.scores[0]) for reference in references]
    if max(highest) == min(float(reference.candidates.scores[-1]) for reference in references):
        raise ExportError(f"scores of the source: got {highest[0]} for everything, expected a detector")
    check_sizes([reference.candidates for reference in references])
    return references


def verify(session: Session, model: Model, *, references: Sequence[Reference], source: str) -> dict[str, Any]:
    """Compare an exported detector with its source, image by image and in batches.

    Returns:
        Content of parity.json.

    Raises:
        ExportError: they differ by more than the tolerance, or a batch differs from its single images.
    """
    rows = []
    for reference in references:
        image, plan = DETECT.preprocess(reference.image.image_hwc, model)
        # The second of the batch is mirrored and has other outputs than the first, which shows rows that are mixed up.
        batch = session.infer(np.stack([image, _mirror(image, model)]))
        for label, outputs in (("alone", session.infer(image[None])), ("in a batch", batch)):
            candidates = decode({name: output[0] for name, output in outputs.items()}, end2end=model.end2end)
            where = f"image {reference.image.name}, {label}"
            check(candidates, (plan.input_wh[1], plan.input_wh[0]), classes=model.classes, where=where)
            difference = measure(reference.candidates, candidates)
            _check_close(difference, where=where)
            rows.append(_row(reference, difference, input_wh=plan.input_wh, batch=label == "in a batch"))
    return {
        "source": source,
        "compared_with": "the ONNX file itself",
        "tolerance": {"boxes_px": TOLERANCE_BOXES_PX, "scores": TOLERANCE_SCORES, "classes": 0},
        "boxes_px": max(row["boxes_px"] for row in rows),
        "scores": max(row["scores"] for row in rows),
        "classes": sum(row["classes"] for row in rows),
        "pictures": rows,
    }


def measure(source: Candidates, exported: Candidates) -> Difference:
    """Look up each candidate of the source among the exported ones and take the largest differences."""
    boxes_px = np.abs(source.boxes[:, None] - exported.boxes[None]).max(axis=2)
    scores = np.abs(source.scores[:, None] - exported.scores[None])
    other_class = source.classes[:, None] != exported.classes[None]
    # A thousandth of score weighs as much as a tenth of a pixel; the class decides between equals.
    partner = (boxes_px + 100 * scores + 0.1 * other_class).argmin(axis=1)
    rows = np.arange(len(source.scores))
    wrong_class = other_class[rows, partner] & (source.scores > _MEANINGFUL)
    return Difference(
        float(boxes_px[rows, partner].max()), float(scores[rows, partner].max()), int(np.count_nonzero(wrong_class))
    )


def _check_close(difference: Difference, *, where: str) -> None:
    limits = (
        ("boxes", difference.boxes_px, TOLERANCE_BOXES_PX, " px"),
        ("scores", difference.scores, TOLERANCE_SCORES, ""),
        ("classes", difference.classes, 0, " boxes with another class"),
    )
    for what, got, limit, unit in limits:
        if not got <= limit:
            raise ExportError(f"{what} differ from the source: got {got:.4g}{unit}, expected at most {limit} ({where})")


def _mirror(image: NDArray[Any], model: Model) -> NDArray[Any]:
    width_axis = 1 if model.input.datatype == "UINT8" else 2
    return np.flip(image, width_axis)


def _row(reference: Reference, difference: Difference, *, input_wh: tuple[int, int], batch: bool) -> dict[str, Any]:
    height, width = reference.image.image_hwc.shape[:2]
    return {
        "name": reference.image.name,
        "width": width,
        "height": height,
        "input": [input_wh[1], input_wh[0]],
        "batch": 2 if batch else 1,
        "candidates": len(reference.candidates.scores),
        "best_score": round(float(reference.candidates.scores[0]), 4),
        "boxes_px": difference.boxes_px,
        "scores": difference.scores,
        "classes": difference.classes,
    }
