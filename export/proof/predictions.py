"""Compares what is served with what the source program predicts: objects in the image, after preprocessing and NMS.

Objects of the two sides are paired by box, score and class; the task then compares the pairs, masks, keypoints and
corners of rotated boxes included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.drawn_images import NamedImage
from export.proof.parity import OTHER_QUERIES, preprocess
from export.proof.rotated_precision import probiou
from export.proof.session import Session
from transformer.imaging.masks import mask_iou
from transformer.tasks import image_task
from transformer.tasks.candidates import MAX_NMS_CANDIDATES, Ids, is_stretched
from transformer.tasks.detection_options import Selection
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.segment import Segments
from transformer.triton.model import Model

# Image and lowest score -> detections, at most `MAX_DETECTIONS` above that score, at `IOU`.
Predict = Callable[[NamedImage, float], Detections]

IOU, MAX_DETECTIONS = 0.7, 300
TOLERANCE_BOXES_PX = 1.0  # of the input: more in pixels of a larger image
TOLERANCE_SCORES = 0.001
_COMPARED = 100  # of each image: the last ones may be dropped on one side
_CONFIDENCE = 0.001
_SAME_PX = 0.1
_LOGITS_ABOUT_0 = 2  # pixels of a mask
_VERGE = 0.01  # of IoU: there a last bit decides which of two boxes NMS drops
_TIE = 0.0001  # of scores: two classes this close are equally good, and a last bit decides which a box has
_MOST_TIES = 0.02  # of the detections of an image, or one: more come of classes that are read wrongly

Box = NDArray[np.float32]


@dataclass(frozen=True)
class _Figures:
    """The largest differences of pairs by name, and how many detections there were.

    Attributes:
        apart: by the names of the task's tolerances.
        found: all that were compared.
        suppressed: left by NMS to an equal one.
        ties: of another class with the same score.
    """

    apart: Mapping[str, float]
    found: int
    suppressed: int
    ties: int


@dataclass(frozen=True)
class _Comparison:
    """Two sides that are compared.

    Attributes:
        one, other: the sides.
        candidates: the served ones before NMS.
        limit_px: tolerance of boxes, in pixels of the image.
        exempt: share of detections that may be on one side only, see `parity.OTHER_QUERIES`.
    """

    one: Detections
    other: Detections
    candidates: Callable[[], Detections]
    limit_px: float
    exempt: float


@dataclass
class _Pairs:
    """What of one side is on the other.

    Attributes:
        ones, others: indices of those that are on both sides, on either.
        suppressed: number of those that NMS left to an equal one, or that come of a place of the image that RT-DETR
            decodes on one side only.
        ties: number of those that have another class on the other side, with the same score.
    """

    ones: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    suppressed: int = 0
    ties: int = 0


def choose_confidence(best_score: float) -> float:
    """A score that some detection reaches, even where a detector knows nothing of the drawn images."""
    return min(_CONFIDENCE, best_score / 10)


def select_all(model: Model, **options: Any) -> Any:
    """Options of the model's task; masks as runs, which are made without outlines."""
    form = {"mask": "rle"} if model.task == "segment" else {}
    return image_task(model).options(**form, **options)


def verify(
    session: Session, model: Model, predict: Predict, *, images: Sequence[NamedImage], confidence: float
) -> Mapping[str, Any]:
    """Compare served detections with predictions of the source program, in both directions.

    Args:
        session: the exported model.
        model: how it is served.
        predict: the source program.
        images: the drawn ones.
        confidence: lowest score.

    Returns:
        For parity.json.

    Raises:
        ExportError: one has a detection that the other has not.
    """
    figures: list[_Figures] = []
    selection = select_all(model, confidence=confidence, iou=IOU, max_detections=MAX_DETECTIONS)
    for image in images:
        figures += _compare(session, model, predict, image, selection)
    return {
        "confidence": confidence,
        "iou": IOU,
        "found": sum(figure.found for figure in figures[::2]),
        **{name: max(figure.apart[name] for figure in figures) for name in image_task(model).tolerances},
        "suppressed_on_one_side": sum(figure.suppressed for figure in figures),
        "class_ties": sum(figure.ties for figure in figures),
    }


def _compare(
    session: Session, model: Model, predict: Predict, image: NamedImage, selection: Selection
) -> Iterator[_Figures]:
    """The figures of one image: first of the predictions among the served detections, then the other way round."""
    task = image_task(model)
    pixels, plan = preprocess(image, model)
    outputs = {name: output[0] for name, output in session.infer(pixels[None]).items()}
    served = task.postprocess(outputs, model, plan=plan, options=selection)
    predicted = predict(image, selection.confidence)
    scale = max(1.0, *(image / resized for image, resized in zip(plan.image_wh, plan.resized_wh, strict=True)))
    # Before NMS: with iou=1 no box suppresses another. Masks are not needed there.
    bare: dict[str, Any] = {"mask": "none"} if model.task == "segment" else {}
    unsuppressed = replace(selection, iou=1.0, max_detections=MAX_NMS_CANDIDATES, **bare)
    candidates = cache(partial(task.postprocess, outputs, model, plan=plan, options=unsuppressed))
    for one, other, what in (
        (predicted, served, "Ultralytics' predict finds, what would be served does not have"),
        (served, predicted, "would be served, Ultralytics' predict does not find"),
    ):
        exempt = OTHER_QUERIES if is_stretched(model) else 0.0
        comparison = _Comparison(one, other, candidates, scale * TOLERANCE_BOXES_PX, exempt)
        pairs = _find(comparison, confidence=selection.confidence, what=what)
        apart = _measure(one, other, np.array(pairs.ones, np.int64), np.array(pairs.others, np.int64))
        _check_close(apart, task.tolerances, scale=scale, image=image.name)
        yield _Figures(apart, len(pairs.ones) + pairs.suppressed + pairs.ties, pairs.suppressed, pairs.ties)


def _measure(one: Detections, other: Detections, ones: Ids, others: Ids) -> Mapping[str, float]:
    """The largest differences of pairs, see `Detections.compare_pairs`.

    A mask ends where its box ends: where a last bit moves a side of the box over a pixel's edge, the mask has a row
    or a column more, which of a small one is more than the tolerance; so is a single pixel whose logit is about 0. Of
    a pair that much is left out.
    """
    apart = one.compare_pairs(other, ones, others)
    if not isinstance(one, Segments) or not isinstance(other, Segments):
        return apart
    ious = mask_iou([one.masks[index] for index in ones], [other.masks[index] for index in others])
    boxes, theirs = one.boxes_xyxy[ones], other.boxes_xyxy[others]
    ends = np.ceil(boxes) != np.ceil(theirs)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    rows_and_columns = ends[:, [0, 2]].sum(axis=1) * height + ends[:, [1, 3]].sum(axis=1) * width
    pixels = np.array([one.masks[index].counts[1::2].sum() for index in ones])
    exempt = (rows_and_columns + _LOGITS_ABOUT_0) / np.maximum(pixels, 1)
    return {**apart, "mask_iou": float((1 - ious - exempt).max(initial=0))}


def _check_close(apart: Mapping[str, float], limits: Mapping[str, float], *, scale: float, image: str) -> None:
    for figure, limit in limits.items():
        most = limit * (scale if figure.endswith("_px") else 1)
        if not apart[figure] <= most:
            raise ExportError(
                f"{figure}: what would be served differs from Ultralytics' predict by {apart[figure]:.4g}, expected at "
                f"most {most:.4g} (image {image})"
            )


def _find(comparison: _Comparison, *, confidence: float, what: str) -> _Pairs:
    """Look up the best detections of one side among all of the other."""
    one, other, limit_px = comparison.one, comparison.other, comparison.limit_px
    # Detections near the lowest score may be on one side alone.
    count = int((one.scores[:_COMPARED] > 1.1 * confidence).sum())
    pairs = _Pairs()
    places, own_places = other.places, one.places
    for index in range(count):
        box, score, class_id = one.boxes_xyxy[index], one.scores[index], one.class_ids[index]
        distances = np.abs(other.boxes_xyxy - box).max(axis=1, initial=0)
        apart = np.abs(other.scores - score)
        there = (distances <= limit_px) & (apart <= TOLERANCE_SCORES)
        (near,) = np.nonzero(there & (other.class_ids == class_id))
        if len(near):
            differences = np.abs(places[near] - own_places[index]).max(axis=1) / limit_px
            differences += apart[near] / TOLERANCE_SCORES
            pairs.ones.append(index)
            pairs.others.append(int(near[differences.argmin()]))
        elif pairs.suppressed < comparison.exempt * count or _is_suppressed(index, comparison):
            pairs.suppressed += 1
        elif (there & (apart <= _TIE)).any() and pairs.ties < max(1, _MOST_TIES * count):
            pairs.ties += 1
        else:
            place = ", ".join(f"{value:.1f}" for value in box)
            raise ExportError(
                f"detections: class {class_id}, score {score:.4f} at x1, y1, x2, y2 = {place}: {what}; expected the "
                f"same on both sides, within {limit_px:.2g} px and a score of {TOLERANCE_SCORES}"
            )
    return pairs


def _is_suppressed(index: int, comparison: _Comparison) -> bool:
    """Whether NMS suppressed a box on the other side for an equally good one, and both are served before NMS.

    Where two scores are alike, or their overlap is at the threshold of NMS, a last bit decides which of the boxes is
    suppressed, and then which others are. The box that stayed is looked up on this side as well. Of rotated boxes one
    that does not stay suppresses others too.
    """
    one, candidates = comparison.one, comparison.candidates()
    class_id, score = one.class_ids[index], one.scores[index]

    def is_served(box: Box, score: np.float32) -> bool:
        same = (candidates.class_ids == class_id) & (np.abs(candidates.scores - score) <= TOLERANCE_SCORES)
        distances = np.abs(candidates.boxes_xyxy[same] - box).max(axis=1, initial=0)
        return bool((distances <= comparison.limit_px).any())

    other = candidates if isinstance(one, OrientedBoxes) else comparison.other
    rivals = (other.class_ids == class_id) & (other.scores >= score - TOLERANCE_SCORES)
    rivals[rivals] = _overlaps(one, index, other, rivals) > IOU - _VERGE
    served = map(is_served, other.boxes_xyxy[rivals], other.scores[rivals])
    return is_served(one.boxes_xyxy[index], score) and any(served)


def _overlaps(one: Detections, index: int, other: Detections, rivals: NDArray[np.bool_]) -> NDArray[Any]:
    """Overlap of a box with each of its rivals, as the task's NMS has it."""
    if isinstance(one, OrientedBoxes) and isinstance(other, OrientedBoxes):
        overlaps = probiou(one.rotated_boxes[index : index + 1], other.rotated_boxes[rivals])[0]
        # The box itself is among the candidates, of the other side with other last bits.
        apart = np.abs(other.rotated_boxes[rivals] - one.rotated_boxes[index]).max(axis=1, initial=0)
        return np.where(apart > _SAME_PX, overlaps, 0)
    box, boxes = one.boxes_xyxy[index], other.boxes_xyxy[rivals]
    corners = np.concatenate([np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])], axis=1)
    common = np.clip(corners[:, 2:] - corners[:, :2], 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - common
    return np.asarray(common / np.maximum(areas, 1e-9))
