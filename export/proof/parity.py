"""Compares an exported detector with its source, on drawn images, with the preprocessing that is served.

Both sides are decoded here, from their bare outputs: nothing of what is served decides what is right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph.head import REST, Layout
from export.proof.drawn_images import NamedImage
from export.proof.plausibility import COMPARED, Candidates, Floats, check, check_places, check_sizes
from export.proof.plausible_rest import check_rest
from export.proof.session import Session
from transformer.imaging.letterbox import Letterbox
from transformer.tasks import image_task
from transformer.tasks.task import Array
from transformer.triton.model import Model

# FP32 `(1, 3, height, width)` in 0 to 1 -> the head `output0` and prototypes `output1`, with their batch dimension.
Head = Callable[[Floats], Mapping[str, Floats]]

TOLERANCE_BOXES_PX = 1.0
TOLERANCE_SCORES = 0.001  # FP32 on both sides: 0.00002 seen with YOLOv8n
TOLERANCE_MASKS = 0.01  # 1 - IoU
TOLERANCE_KEYPOINTS_PX = 1.0
TOLERANCE_VISIBILITY = 0.005
TOLERANCE_ANGLES = 0.001  # radians: half a pixel at the end of a box as long as the input
_MEANINGFUL = 0.01  # below this score the class of a box is chance
_MASKS = 20  # compared on each image, those of the best candidates


@dataclass(frozen=True)
class Reference:
    """The source's candidates for an image.

    Attributes:
        image: the image.
        candidates: the best `COMPARED`.
        prototypes: of masks, `(M, height, width)`.
    """

    image: NamedImage
    candidates: Candidates
    prototypes: Floats | None = None


Difference = Mapping[str, float]


def tolerances(layout: Layout) -> dict[str, float]:
    """The largest difference of each figure that a layout has."""
    figures: dict[str, float] = {"boxes_px": TOLERANCE_BOXES_PX, "scores": TOLERANCE_SCORES, "classes": 0}
    if layout.task == "segment":
        figures["masks"] = TOLERANCE_MASKS
    if layout.kpt_shape:
        figures["keypoints_px"] = TOLERANCE_KEYPOINTS_PX
        if layout.kpt_shape[1] == 3:
            figures["visibility"] = TOLERANCE_VISIBILITY
    if layout.task == "obb":
        figures["angles"] = TOLERANCE_ANGLES
    return figures


def decode(outputs: Mapping[str, Array], layout: Layout, input_wh: tuple[int, int]) -> Candidates:
    """Candidates of one image from outputs without batch dimension, of either interface.

    Args:
        outputs: by name.
        layout: of the head.
        input_wh: of the model's input, which boxes are fractions of in RT-DETR's head.
    """
    if "boxes" in outputs:
        rest = outputs[REST[layout.task]].reshape(len(outputs["scores"]), -1) if layout.rest else None
        return Candidates(outputs["boxes"], outputs["scores"], outputs["classes"].astype(np.int64), rest)
    rows = outputs["output0"] if layout.end2end else outputs["output0"].T
    boxes = rows[:, :4]
    if layout.has_corners:
        boxes = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    if layout.stretch:
        boxes = boxes * np.array([*input_wh, *input_wh], np.float32)
    rest = rows[:, layout.columns - layout.rest :] if layout.rest else None
    if layout.end2end and not layout.class_scores:
        return Candidates(boxes, rows[:, 4], rows[:, 5], rest)
    class_scores = rows[:, 4 : 4 + layout.classes]
    return Candidates(boxes, class_scores.max(axis=1), class_scores.argmax(axis=1), rest)


def preprocess(image: NamedImage, model: Model) -> tuple[Array, Letterbox]:
    """The model's input for an image, without batch dimension, and how the image lies in it."""
    height, width = image.image_hwc.shape[:2]
    pixels, plan = image_task(model).preprocess(image.image_hwc, model, size_wh=(width, height))
    return pixels, plan


def run_source(source: Head, model: Model, *, layout: Layout, images: Sequence[NamedImage]) -> list[Reference]:
    """Run the source on images.

    Args:
        source: the detector that is exported.
        model: the `ultralytics` interface of the model, whose preprocessing is the one that is served.
        layout: of the source's head.
        images: the drawn ones.

    Raises:
        ExportError: its scores, boxes, or what belongs to them, are impossible.
    """
    references = []
    for image in images:
        pixels, plan = preprocess(image, model)
        outputs = {name: output[0] for name, output in source(pixels[None]).items()}
        candidates = decode(outputs, layout, plan.input_wh)
        where = f"the source, image {image.name}"
        check(candidates, pixels.shape[1:], classes=model.classes, where=where)
        check_places(candidates, pixels.shape[1:], where=where)
        references.append(Reference(image, candidates.best(COMPARED), outputs.get("output1")))
    highest = [float(reference.candidates.scores[0]) for reference in references]
    if max(highest) == min(float(reference.candidates.scores[-1]) for reference in references):
        raise ExportError(f"scores of the source: got {highest[0]} for everything, expected a detector")
    check_sizes([reference.candidates for reference in references])
    check_rest([(each.candidates, each.prototypes) for each in references], layout)
    return references


def verify(
    session: Session, model: Model, *, layout: Layout, references: Sequence[Reference], source: str
) -> dict[str, Any]:
    """Compare an exported detector with its source, image by image and in batches.

    Returns:
        Content of parity.json.

    Raises:
        ExportError: they differ by more than the tolerance, or a batch differs from its single images.
    """
    rows = []
    for reference in references:
        image, plan = preprocess(reference.image, model)
        # The second of the batch is mirrored and has other outputs than the first, which shows rows that are mixed up.
        batch = session.infer(np.stack([image, _mirror(image, model)]))
        for label, outputs in (("alone", session.infer(image[None])), ("in a batch", batch)):
            first = {name: output[0] for name, output in outputs.items()}
            candidates = decode(first, layout, plan.input_wh)
            where = f"image {reference.image.name}, {label}"
            check(candidates, (plan.input_wh[1], plan.input_wh[0]), classes=model.classes, where=where)
            prototypes = first.get("prototypes", first.get("output1"))
            difference = measure(reference, Reference(reference.image, candidates, prototypes), layout)
            _check_close(difference, layout, where=where)
            rows.append(_row(reference, difference, input_wh=plan.input_wh, batch=label == "in a batch"))
    limits = tolerances(layout)
    return {
        "source": source,
        "compared_with": "the ONNX file itself",
        "tolerance": limits,
        **{figure: max(row[figure] for row in rows) for figure in limits if figure != "classes"},
        "classes": sum(row["classes"] for row in rows),
        "pictures": rows,
    }


def measure(source: Reference, exported: Reference, layout: Layout) -> Difference:
    """Look up each candidate of the source among the exported ones and take the largest differences.

    Returns:
        By the names of `tolerances`; `classes` is the number of boxes with another class.
    """
    one, other = source.candidates, exported.candidates
    boxes_px = np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=2)
    scores = np.abs(one.scores[:, None] - other.scores[None])
    other_class = one.classes[:, None] != other.classes[None]
    # A thousandth of score weighs as much as a tenth of a pixel; the class decides between equals.
    partner = (boxes_px + 100 * scores + 0.1 * other_class).argmin(axis=1)
    rows = np.arange(len(one.scores))
    wrong_class = other_class[rows, partner] & (one.scores > _MEANINGFUL)
    found = {
        "boxes_px": float(boxes_px[rows, partner].max()),
        "scores": float(scores[rows, partner].max()),
        "classes": float(np.count_nonzero(wrong_class)),
    }
    if one.rest is None or other.rest is None:
        return found
    rest, partners = one.rest, other.rest[partner]
    if layout.task == "segment" and source.prototypes is not None and exported.prototypes is not None:
        masks = (_masks(rest, source.prototypes), _masks(partners, exported.prototypes))
        return found | {"masks": _apart(*masks)}
    if layout.kpt_shape:
        points = np.abs(rest - partners).reshape(len(rest), *layout.kpt_shape)
        shown = {"visibility": float(points[..., 2].max())} if layout.kpt_shape[1] == 3 else {}
        return found | {"keypoints_px": float(points[..., :2].max())} | shown
    return found | {"angles": float(np.abs(rest - partners).max())}


def _masks(coefficients: Floats, prototypes: Floats) -> NDArray[np.bool_]:
    """Masks of the best candidates, `(_MASKS, height, width)` of the prototypes."""
    logits = coefficients[:_MASKS].astype(np.float32) @ prototypes.reshape(len(prototypes), -1).astype(np.float32)
    masks: NDArray[np.bool_] = logits.reshape(-1, *prototypes.shape[1:]) > 0
    return masks


def _apart(ones: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """The largest 1 - IoU of masks; 0 where both are empty."""
    if ones.shape != others.shape:
        return float("inf")
    common = (ones & others).sum(axis=(1, 2))
    whole = (ones | others).sum(axis=(1, 2))
    return float((1 - (common + (whole == 0)) / np.maximum(whole, 1)).max())


def _check_close(difference: Difference, layout: Layout, *, where: str) -> None:
    words = {
        "boxes_px": ("boxes differ from the source", " px"),
        "classes": ("classes differ from the source", " boxes with another class"),
        "masks": ("masks differ from the source", " of their union"),
        "keypoints_px": ("keypoints differ from the source", " px"),
        "angles": ("angles differ from the source", " radians"),
    }
    for figure, limit in tolerances(layout).items():
        what, unit = words.get(figure, (f"{figure} differ from the source", ""))
        if not difference[figure] <= limit:
            raise ExportError(f"{what}: got {difference[figure]:.4g}{unit}, expected at most {limit} ({where})")


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
        **difference,
    }
