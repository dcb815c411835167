"""The candidates of a model's response, and which of them are objects: shared by every task that finds objects.

    outputs --read_candidates--> candidates above the score --select--> objects, best first

Both interfaces of a graph are read: `fused` has `boxes`, `scores` and `classes` by name and what else a task needs
beside them, `ultralytics` has one `output0` as the file has it: `(4 + classes + rest, N)`, or `(N, 6 + rest)` of a head
that needs no NMS. That of RT-DETR, which takes stretched images, has boxes as fractions of the input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.nms import Floats, cxcywh_to_xyxy, nms, order_by_score
from transformer.tasks.detection_options import Selection
from transformer.tasks.task import Array
from transformer.triton.model import Model

Ids = NDArray[np.int64]
# Candidates, IoU above which a weaker one goes, how many to keep at most -> indices of those that stay, best first.
Suppress = Callable[["Candidates", float, int], NDArray[np.int64]]

MAX_NMS_CANDIDATES = 30_000  # Ultralytics' `max_nms`: limits the time of NMS


@dataclass(frozen=True)
class Candidates:
    """What a model may have found in one image.

    Attributes:
        boxes: `(N, 4)` in model pixels: x1, y1, x2, y2; of a rotated box cx, cy, w, h.
        scores: `(N,)`.
        class_ids: `(N,)`.
        count: how many the model returned, those of lower scores included.
        rest: what else belongs to each, `(N, ...)` by name.
    """

    boxes: Floats
    scores: Floats
    class_ids: Ids
    count: int
    rest: Mapping[str, Array] = field(default_factory=dict)

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Candidates":
        """Some of them."""
        rest = {name: array[indices] for name, array in self.rest.items()}
        return Candidates(self.boxes[indices], self.scores[indices], self.class_ids[indices], self.count, rest)


def is_fused(model: Model) -> bool:
    """Whether a model takes pixels as they are: the `fused` interface."""
    return model.input.datatype == "UINT8"


def is_stretched(model: Model) -> bool:
    """Whether a model takes images stretched to its input, not letterboxed (RT-DETR)."""
    return model.facts.get("resize") == "stretch"


def read_candidates(
    outputs: Mapping[str, Array], model: Model, *, above: float, rest: str = "", rotated: bool = False
) -> Candidates:
    """Candidates with a higher score.

    Args:
        outputs: by name, without batch dimension.
        model: that responded.
        above: the score.
        rest: output of the `fused` interface with what else belongs to each candidate, and the name that the further
            columns of the other interface get, as `(N, columns)`; none where empty.
        rotated: whether boxes are centre and size in both interfaces, as those of rotated boxes are.

    Raises:
        PredictorError: the outputs are not those of a task that finds objects.
    """
    if {"boxes", "scores", "classes", *([rest] if rest else ())} <= outputs.keys():
        return _read_fused(outputs, above=above, rest=rest, rotated=rotated)
    head = outputs.get("output0")
    if head is None or head.ndim != 2:
        shapes = {name: output.shape for name, output in outputs.items()}
        expected = f"boxes, scores, {rest} and classes" if rest else "boxes, scores and classes"
        raise PredictorError(f"{model.name}: got outputs {shapes}, expected {expected}, or output0")
    head = head.astype(np.float32, copy=False)
    if is_stretched(model):
        return _read_fractions(head, model, above=above)
    if model.end2end:  # rows: corners (centre and size where they are rotated), score, class, rest
        rows = head[head[:, 4] > above]
        further = {rest: rows[:, 6:]} if rest else {}
        return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), len(head), further)
    class_scores = head[4 : 4 + model.classes] if rest else head[4:]
    scores = class_scores.max(axis=0)
    (high,) = np.nonzero(scores > above)
    columns = head[:, high]
    class_ids = class_scores[:, high].argmax(axis=0)
    further = {rest: columns[4 + model.classes :].T} if rest else {}
    return Candidates(_boxes(columns[:4].T, rotated), scores[high], class_ids, head.shape[1], further)


def _read_fractions(head: Array, model: Model, *, above: float) -> Candidates:
    """Candidates of RT-DETR's head `(N, 6)`, or `(N, 4 + classes)` of one with a score for each class."""
    if model.input_wh is None:
        raise PredictorError(f"{model.name}: imgsz is missing in parameters.metadata")
    if model.facts.get("class_scores"):
        scores, class_ids = head[:, 4:].max(axis=1), head[:, 4:].argmax(axis=1)
    else:
        scores, class_ids = head[:, 4], head[:, 5].astype(np.int64)
    (high,) = np.nonzero(scores > above)
    boxes = cxcywh_to_xyxy(head[high, :4] * np.array(model.input_wh * 2, np.float32))
    return Candidates(boxes, scores[high], class_ids[high], len(head))


def _read_fused(outputs: Mapping[str, Array], *, above: float, rest: str, rotated: bool) -> Candidates:
    scores = outputs["scores"].astype(np.float32, copy=False)
    (high,) = np.nonzero(scores > above)
    boxes = _boxes(outputs["boxes"][high].astype(np.float32, copy=False), rotated)
    further = {rest: outputs[rest][high].astype(np.float32, copy=False)} if rest else {}
    return Candidates(boxes, scores[high], outputs["classes"][high].astype(np.int64), len(scores), further)


def _boxes(boxes_cxcywh: Floats, rotated: bool) -> Floats:
    return boxes_cxcywh if rotated else cxcywh_to_xyxy(boxes_cxcywh)


def suppress_overlaps(candidates: Candidates, iou: float, max_detections: int) -> NDArray[np.int64]:
    """Non-maximum suppression of upright boxes within each class, see `nms`."""
    return nms(
        candidates.boxes, candidates.scores, class_ids=candidates.class_ids, iou=iou, max_detections=max_detections
    )


def select(
    candidates: Candidates, model: Model, options: Selection, *, suppress: Suppress = suppress_overlaps
) -> tuple[Candidates, dict[str, int]]:
    """The objects among the candidates, as Ultralytics selects them (`utils.nms.non_max_suppression`).

    Args:
        candidates: above `options.confidence`.
        model: that responded.
        options: of the request.
        suppress: non-maximum suppression, for a head that needs it.

    Returns:
        The objects, best first, and the limits that left something out, see `ImagePrediction.limits_reached`.
    """
    reached: dict[str, int] = {}
    # Candidates that a graph leaves out have lower scores than all that it returns.
    if 0 < len(candidates.scores) == candidates.count and not _returns_all(model):
        reached["model_candidates"] = candidates.count
    if options.class_ids is not None:
        candidates = candidates.take(np.isin(candidates.class_ids, list(options.class_ids)))
    # One more than the limit shows whether there are more.
    most = options.max_detections + 1
    if model.end2end:
        kept = order_by_score(candidates.scores)[:most]
    else:
        if len(candidates.scores) > MAX_NMS_CANDIDATES:
            reached["nms_candidates"] = MAX_NMS_CANDIDATES
            candidates = candidates.take(order_by_score(candidates.scores)[:MAX_NMS_CANDIDATES])
        kept = suppress(candidates, options.iou, most)
    if len(kept) == most:
        reached["max_detections"] = options.max_detections
        kept = kept[:-1]
    return candidates.take(kept), reached


def _returns_all(model: Model) -> bool:
    """Whether a model's outputs hold all candidates of its head: a bare head does, one without NMS never."""
    return not model.end2end and (model.all_candidates or not is_fused(model))
