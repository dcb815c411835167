"""Boxes: pure functions on arrays."""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_CLASS_DISTANCE = np.float32(7680)


def cxcywh_to_xyxy(boxes_cxcywh: Floats) -> Floats:
    """`(N, 4)` centre and size to `(N, 4)` corners."""
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def suppress(
    boxes_xyxy: Floats, scores: Floats, *, class_ids: NDArray[np.int64], iou: float, max_detections: int
) -> NDArray[np.int64]:
    """Non-maximum suppression within each class.

    Args:
        boxes_xyxy: `(N, 4)`; N may be 0.
        scores: `(N,)`.
        class_ids: `(N,)`; boxes of different classes never suppress each other.
        iou: a box goes when its overlap with a better one of its class is above this.
        max_detections: how many to keep at most.

    Returns:
        Indices of the boxes that stay, best first.
    """
    if not len(scores):
        return np.empty(0, np.int64)
    # Classes are kept apart by distance, in FP32 as Ultralytics does it (`utils.nms`, `max_wh`): far from the origin a
    # coordinate is rounded to 1/32 of a pixel, and on the verge of `iou` that decides.
    apart = boxes_xyxy + class_ids[:, None].astype(np.float32) * _CLASS_DISTANCE
    boxes_xywh = apart.astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    # Arrays are taken as they are, the stubs say lists.
    kept = cv2.dnn.NMSBoxes(boxes_xywh, scores, 0.0, iou)  # type: ignore[arg-type]
    return np.asarray(kept, np.int64).reshape(-1)[:max_detections]
