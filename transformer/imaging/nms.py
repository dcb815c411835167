"""Boxes: pure functions on arrays."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLASS_DISTANCE = np.float32(7680)  # between classes, where boxes of different ones must not overlap


def cxcywh_to_xyxy(boxes_cxcywh: Floats) -> Floats:
    """`(N, 4)` centre and size to `(N, 4)` corners."""
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    with np.errstate(invalid="ignore"):  # infinite numbers of a broken model
        return np.concatenate([centre - half, centre + half], axis=1)


def order_by_score(scores: Floats) -> NDArray[np.int64]:
    """Indices `(N,)` of scores, best first; of equal ones the first."""
    return np.argsort(-scores, kind="stable")


def nms(
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
    order = order_by_score(scores)
    # Classes are kept apart by distance, in FP32 as Ultralytics does it (`utils.nms`, `max_wh`): far from the origin a
    # coordinate is rounded to 1/32 of a pixel, and on the verge of `iou` that decides. So does the order in which
    # torchvision's `nms` rounds, which is the one below.
    apart = boxes_xyxy[order] + class_ids[order, None].astype(np.float32) * CLASS_DISTANCE
    low, high = np.ascontiguousarray(apart[:, :2].T), np.ascontiguousarray(apart[:, 2:].T)
    areas = (high[0] - low[0]) * (high[1] - low[1])
    gone = np.zeros(len(order), np.bool_)
    kept: list[int] = []
    limit = np.float64(iou)  # a Python number would be rounded to FP32
    with np.errstate(all="ignore"):  # 0 / 0 of boxes without area is no overlap
        for index in range(len(order)):
            if gone[index]:
                continue
            kept.append(index)
            if len(kept) == max_detections:
                break
            weaker = slice(index + 1, None)
            sides = np.minimum(high[:, index, None], high[:, weaker]) - np.maximum(low[:, index, None], low[:, weaker])
            np.maximum(sides, 0, out=sides)
            shared = sides[0] * sides[1]
            gone[weaker] |= shared / (areas[index] + areas[weaker] - shared) > limit
    return order[kept]
