"""Boxes: pure functions on arrays."""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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
    boxes_xywh = boxes_xyxy.astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        boxes_xywh,  # type: ignore[arg-type]  # arrays are taken as they are, the stubs say lists
        scores,  # type: ignore[arg-type]
        class_ids.astype(np.int32),  # type: ignore[arg-type]
        0.0,
        iou,
    )
    return np.asarray(kept, np.int64).reshape(-1)[:max_detections]
