"""Rotated boxes: pure functions on arrays `(N, 5)` of centre, width, height, and angle.

The angle is that from the x axis to the width, in radians, clockwise on the screen since y is down. The arithmetic is
that of Ultralytics 8.4 (`utils.ops.xywhr2xyxyxyxy`, `regularize_rboxes`, `utils.nms.TorchNMS.fast_nms`,
`utils.metrics.batch_probiou`), in FP32 and in its order, because on the verge of a threshold the rounding decides.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from transformer.imaging.nms import CLASS_DISTANCE, Floats, order_by_score

_COLUMNS, _ROWS = 256, 1024  # pairs that are compared at once: 1 MB for each intermediate array
_TINY = np.float32(1e-7)  # keeps divisions and logarithms finite
_FARTHEST = np.float32(100)  # of two boxes' distance
# What the last term of a distance can take away from the others at most, where its determinant is no rounding error:
# half the logarithm of `_TINY`, rounded up.
_LAST_TERM = 9.0


def to_corners(boxes_cxcywhr: Floats) -> Floats:
    """Corners `(N, 4, 2)`, each by its place on the axes of width and height: (+, +), (+, -), (-, -), (-, +)."""
    with np.errstate(all="ignore"):  # infinite numbers of a broken model
        centre, half = boxes_cxcywhr[:, :2], boxes_cxcywhr[:, 2:4] / 2
        cos, sin = np.cos(boxes_cxcywhr[:, 4]), np.sin(boxes_cxcywhr[:, 4])
        along = np.stack([half[:, 0] * cos, half[:, 0] * sin], axis=1)
        across = np.stack([-half[:, 1] * sin, half[:, 1] * cos], axis=1)
        corners = [centre + along + across, centre + along - across, centre - along - across, centre - along + across]
    return np.stack(corners, axis=1)


def to_canonical(boxes_cxcywhr: Floats) -> Floats:
    """The same boxes with angles in [0, pi/2): width and height change places where that needs it."""
    quarter = np.float32(np.pi / 2)
    boxes = boxes_cxcywhr.copy()
    with np.errstate(invalid="ignore"):
        is_upright = np.mod(boxes[:, 4], np.float32(np.pi)) >= quarter
        boxes[is_upright, 2:4] = boxes[is_upright, 3:1:-1]
        boxes[:, 4] = np.mod(boxes[:, 4], quarter)
    return boxes


def enclose(corners: Floats, image_wh: tuple[int, int]) -> Floats:
    """Upright boxes `(N, 4)`, x1, y1, x2, y2, of what lies within an image of corners `(N, 4, 2)`."""
    visible = np.clip(corners, 0, np.array(image_wh, np.float32))
    return np.concatenate([visible.min(axis=1), visible.max(axis=1)], axis=1)


def rotated_nms(
    boxes_cxcywhr: Floats, scores: Floats, *, class_ids: NDArray[np.int64], iou: float, max_detections: int
) -> NDArray[np.int64]:
    """Non-maximum suppression of rotated boxes within each class.

    A box goes when any better one of its class overlaps it, even one that goes itself ("Fast NMS", arXiv 1904.02689).
    Overlap is `1 - Hellinger distance` of the boxes as Gaussians (arXiv 2106.06072), not a ratio of areas. Boxes are
    compared in blocks: beside the arrays of the boxes it takes some 20 MB, however many there are.

    Args:
        boxes_cxcywhr: `(N, 5)`; N may be 0.
        scores: `(N,)`.
        class_ids: `(N,)`; boxes of different classes are moved apart before they are compared.
        iou: a box goes when its overlap is above this.
        max_detections: how many to keep at most.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = order_by_score(scores)
    apart = boxes_cxcywhr[order]
    apart[:, :2] += class_ids[order, None].astype(np.float32) * CLASS_DISTANCE
    with np.errstate(all="ignore"):  # of infinite numbers, and of boxes without area
        gaussians = _to_gaussians(apart)
        kept: list[int] = []
        for start in range(0, len(order), _COLUMNS):
            left = np.arange(start, min(start + _COLUMNS, len(order)))
            for rows in _spans(start, len(order)):
                overlaps = _overlaps(gaussians[:, rows], gaussians[:, left], iou)
                overlaps &= np.arange(rows.start, rows.stop)[:, None] < left
                left = left[~overlaps.any(axis=0)]
                if not len(left):
                    break
            kept.extend(left)
            if len(kept) >= max_detections:
                break
    return order[kept[:max_detections]]


def _spans(start: int, count: int) -> Iterator[slice]:
    """Rows that a block of columns is compared with: first those that most likely leave few of them."""
    few = _ROWS // 16
    if start:
        yield slice(0, few)
    yield slice(start, min(start + _COLUMNS, count))
    for first in range(few, start, _ROWS):
        yield slice(first, min(first + _ROWS, start))


def _to_gaussians(boxes_cxcywhr: Floats) -> Floats:
    """`(6, N)`: centre x and y, variances along x and y, covariance, determinant."""
    x, y, width, height, angle = boxes_cxcywhr.T
    along, across = width * width / np.float32(12), height * height / np.float32(12)
    cos, sin = np.cos(angle), np.sin(angle)
    var_x = along * (cos * cos) + across * (sin * sin)
    var_y = along * (sin * sin) + across * (cos * cos)
    covariance = (along - across) * cos * sin
    determinant = np.maximum(var_x * var_y - covariance * covariance, 0)
    return np.stack([x, y, var_x, var_y, covariance, determinant])


def _overlaps(rows: Floats, columns: Floats, iou: float) -> NDArray[np.bool_]:
    """`(R, C)`: whether the overlap of a row `(6, R)` and a column `(6, C)` of Gaussians is above `iou`."""
    x, y, var_x, var_y, covariance, _ = rows[:, :, None]
    other_x, other_y, other_var_x, other_var_y, other_covariance, _ = columns
    down, right = y - other_y, x - other_x
    wide, high, tilt = var_x + other_var_x, var_y + other_var_y, covariance + other_covariance
    determinant = wide * high - tilt * tilt
    divisor = determinant + _TINY
    distance = (wide * (down * down) + high * (right * right)) / divisor * np.float32(0.25)
    distance += tilt * -right * down / divisor * np.float32(0.5)
    # The last term needs a logarithm. Of boxes that are far apart already it changes nothing.
    near, close = np.nonzero(~(distance > _limit(iou)) | (determinant < 0))
    geometric_mean = np.sqrt(rows[5, near] * columns[5, close])
    ratio = determinant[near, close] / (np.float32(4) * geometric_mean + _TINY) + _TINY
    bhattacharyya = np.clip(distance[near, close] + np.log(ratio) * np.float32(0.5), _TINY, _FARTHEST)
    hellinger = np.sqrt(1 - np.exp(-bhattacharyya) + _TINY)
    above = np.zeros(distance.shape, np.bool_)
    above[near, close] = 1 - hellinger > np.float32(iou)
    return above


def _limit(iou: float) -> float:
    """The sum of the first terms above which no overlap is above `iou`, whatever the last term."""
    hellinger = 1 - iou
    farthest = -np.log(max(1 - hellinger * hellinger, 1e-8))  # beyond it the overlap rounds to 0
    return float(farthest) + _LAST_TERM
