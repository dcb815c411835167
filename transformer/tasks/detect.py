"""Detection: a picture in, boxes out.

Two interfaces, distinguished by the model's input: `fused` takes `image` UINT8 height x width x channel and returns
candidates with their best class; `ultralytics` takes `images` FP32 channel x height x width in 0 to 1 and returns the
bare head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.letterbox import Image, Letterbox, fit, letterbox, unletterbox
from transformer.imaging.nms import Floats, cxcywh_to_xyxy, suppress
from transformer.triton.model import Model

Ids = NDArray[np.int64]

MAX_NMS_CANDIDATES = 30_000  # Ultralytics' `max_nms`: bounds the time of NMS


@dataclass(frozen=True)
class Selection:
    """Which detections a client wants.

    Attributes:
        confidence: scores must be above this.
        iou: overlap of two boxes of one class above which the weaker goes.
        max_detections: the best so many.
        class_ids: only these, or None for all.
    """

    confidence: float = 0.25
    iou: float = 0.7
    max_detections: int = 300
    class_ids: frozenset[int] | None = None


@dataclass(frozen=True)
class Detections:
    """What was found, best first.

    Attributes:
        boxes_xyxy: `(N, 4)`, pixels of the original picture, clipped to it.
        scores: `(N,)`, in 0 to 1.
        class_ids: `(N,)`.
        limits_reached: where something may be missing, which limit cut it off and how many that lets pass:
            `max_detections` of the request, `nms_candidates` of this server, `model_candidates` of the model's graph.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ids
    limits_reached: Mapping[str, int] = field(default_factory=dict)


def place(image_wh: tuple[int, int], model: Model) -> Letterbox:
    """How a picture lies in the model's input.

    A model with free height and width gets the smallest rectangle that is a multiple of its stride, any other its
    fixed size.

    Args:
        image_wh: size of the picture.
        model: says size, stride and interface.
    """
    height, width = model.input.dims[:2] if _is_fused(model) else model.input.dims[1:]
    if height > 0 and width > 0:
        return fit(image_wh, (width, height), stride=None)
    assert model.input_wh is not None, "describe() refuses a detector without imgsz"  # noqa: S101
    return fit(image_wh, model.input_wh, stride=model.stride)


def preprocess(
    image_hwc: Image, model: Model, *, size_wh: tuple[int, int] | None = None
) -> tuple[NDArray[Any], Letterbox]:
    """Letterbox a picture into the model's input.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        model: says size, stride and interface.
        size_wh: of the picture itself, where `image_hwc` was reduced while it was decoded.

    Returns:
        The input without batch dimension, and the plan that `postprocess` needs.
    """
    plan = place(size_wh or (image_hwc.shape[1], image_hwc.shape[0]), model)
    boxed = letterbox(image_hwc, plan)
    if _is_fused(model):
        return boxed, plan
    return np.ascontiguousarray(boxed.transpose(2, 0, 1)).astype(np.float32) / np.float32(255), plan


def _is_fused(model: Model) -> bool:
    return model.input.datatype == "UINT8"


def postprocess(
    outputs: Mapping[str, NDArray[Any]], model: Model, *, plan: Letterbox, selection: Selection
) -> Detections:
    """Choose among the model's candidates and map them to the picture.

    The choice is Ultralytics' own (`utils.nms.non_max_suppression`, best class for each box).

    Args:
        outputs: by name, without batch dimension.
        model: says interface and whether the head needs NMS.
        plan: what `preprocess` returned.
        selection: thresholds.

    Raises:
        PredictorError: the outputs are not those of a detector.
    """
    boxes_xyxy, scores, class_ids, count = _candidates(outputs, model, above=selection.confidence)
    reached: dict[str, int] = {}
    # Candidates that a graph leaves out have lower scores than all that it gives.
    if 0 < len(scores) == count and not _gives_all(model):
        reached["model_candidates"] = count
    if selection.class_ids is not None:
        wanted = np.isin(class_ids, list(selection.class_ids))
        boxes_xyxy, scores, class_ids = boxes_xyxy[wanted], scores[wanted], class_ids[wanted]
    # One more than the limit shows whether there are more.
    most = selection.max_detections + 1
    if model.end2end:
        kept = np.argsort(-scores, kind="stable")[:most]
    else:
        if len(scores) > MAX_NMS_CANDIDATES:
            reached["nms_candidates"] = MAX_NMS_CANDIDATES
            best = np.argsort(-scores, kind="stable")[:MAX_NMS_CANDIDATES]
            boxes_xyxy, scores, class_ids = boxes_xyxy[best], scores[best], class_ids[best]
        kept = suppress(boxes_xyxy, scores, class_ids=class_ids, iou=selection.iou, max_detections=most)
    if len(kept) == most:
        reached["max_detections"] = selection.max_detections
        kept = kept[:-1]
    return Detections(unletterbox(boxes_xyxy[kept], plan), scores[kept], class_ids[kept], reached)


def _gives_all(model: Model) -> bool:
    """Whether a model's outputs hold all candidates of its head: a bare head does, one without NMS never."""
    return not model.end2end and (model.all_candidates or not _is_fused(model))


def _candidates(outputs: Mapping[str, NDArray[Any]], model: Model, *, above: float) -> tuple[Floats, Floats, Ids, int]:
    """Boxes `(N, 4)` xyxy in model pixels, scores `(N,)`, class ids `(N,)` of what has a higher score; of how many."""
    if {"boxes", "scores", "classes"} <= outputs.keys():
        scores = outputs["scores"].astype(np.float32, copy=False)
        (high,) = np.nonzero(scores > above)
        boxes_xyxy = cxcywh_to_xyxy(outputs["boxes"][high].astype(np.float32, copy=False))
        return boxes_xyxy, scores[high], outputs["classes"][high].astype(np.int64), len(scores)
    head = outputs.get("output0")
    if head is None or head.ndim != 2:
        shapes = {name: output.shape for name, output in outputs.items()}
        raise PredictorError(f"{model.name}: got outputs {shapes}, expected boxes, scores and classes, or output0")
    head = head.astype(np.float32, copy=False)
    if model.end2end:  # (300, 6): xyxy, score, class
        rows = head[head[:, 4] > above]
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), len(head)
    scores = head[4:].max(axis=0)  # of (classes, N)
    (high,) = np.nonzero(scores > above)
    columns = head[:, high]
    return cxcywh_to_xyxy(columns[:4].T), scores[high], columns[4:].argmax(axis=0), head.shape[1]
