"""Mean average precision of rotated boxes, as Ultralytics' `val` measures it: overlap is that of Gaussians.

Written from the definitions (arXiv 2106.06072 for the overlap, COCO's 101 points for the area below the curve), and
compared with Ultralytics' own figure in tests/export.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_TINY = 1e-7


@dataclass(frozen=True)
class Rotated:
    """Rotated boxes of an image.

    Attributes:
        boxes: `(N, 5)`: centre, width, height, angle in radians.
        scores: `(N,)`.
        class_ids: `(N,)`.
    """

    boxes: Floats
    scores: NDArray[np.floating]
    class_ids: NDArray[np.int64]


def rotated_average_precision(found: Mapping[str, Rotated], truth: Mapping[str, Rotated]) -> float:
    """mAP50-95.

    Args:
        found: by image.
        truth: by image; classes without an object here do not count.
    """
    hits, scores, found_ids, true_ids = [], [], [], []
    for name, expected in truth.items():
        got = found[name]
        best_first = np.argsort(-got.scores, kind="stable")
        ordered = Rotated(got.boxes[best_first], got.scores[best_first], got.class_ids[best_first])
        hits.append(_match(ordered, expected))
        scores.append(ordered.scores)
        found_ids.append(ordered.class_ids)
        true_ids.append(expected.class_ids)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    all_hits, all_ids, wanted = np.concatenate(hits)[order], np.concatenate(found_ids)[order], np.concatenate(true_ids)
    classes, counts = np.unique(wanted, return_counts=True)
    precisions = [
        [_area_below(all_hits[all_ids == class_id, level], int(count)) for level in range(len(_THRESHOLDS))]
        for class_id, count in zip(classes, counts, strict=True)
    ]
    return float(np.mean(precisions)) if precisions else 0.0


def _match(found: Rotated, truth: Rotated) -> NDArray[np.bool_]:
    """`(N, thresholds)`: whether each of the found boxes, best first, is a true one that no better one has taken."""
    hits = np.zeros((len(found.scores), len(_THRESHOLDS)), np.bool_)
    if not hits.size or not len(truth.class_ids):
        return hits
    overlaps = probiou(truth.boxes, found.boxes) * (truth.class_ids[:, None] == found.class_ids)
    for level, threshold in enumerate(_THRESHOLDS):
        free = np.ones(len(truth.class_ids), np.bool_)
        for index in np.flatnonzero((overlaps >= threshold).any(axis=0)):
            left = np.where(free, overlaps[:, index], 0)
            nearest = int(left.argmax())
            if left[nearest] >= threshold:
                hits[index, level] = True
                free[nearest] = False
    return hits


def _area_below(hits: NDArray[np.bool_], count: int) -> float:
    """Area below precision over recall of one class, at 101 points of recall."""
    if not len(hits):
        return 0.0
    right = hits.cumsum()
    recall, precision = right / count, right / np.arange(1, len(hits) + 1)
    recall = np.concatenate([[0.0], recall, [recall[-1], 1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[1.0], precision, [0.0, 0.0]])[::-1])[::-1]
    heights = np.interp(_RECALLS, recall, envelope)
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(_RECALLS)).sum())


def probiou(ones: Floats, others: Floats) -> Floats:
    """Overlap of rotated boxes `(N, 5)` and `(M, 5)` as `(N, M)`: 1 minus the Hellinger distance of their Gaussians."""
    x1, y1, a1, b1, c1 = (part[:, None] for part in _to_gaussian(ones))
    x2, y2, a2, b2, c2 = _to_gaussian(others)
    determinant = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    apart = ((a1 + a2) * (y1 - y2) ** 2 + (b1 + b2) * (x1 - x2) ** 2) / (determinant + _TINY) / 4
    turned = (c1 + c2) * (x2 - x1) * (y1 - y2) / (determinant + _TINY) / 2
    areas = np.sqrt(np.maximum(a1 * b1 - c1**2, 0) * np.maximum(a2 * b2 - c2**2, 0))
    shape = np.log(determinant / (4 * areas + _TINY) + _TINY) / 2
    distance = np.clip(apart + turned + shape, _TINY, 100)
    overlap: Floats = 1 - np.sqrt(1 - np.exp(-distance) + _TINY)
    return overlap


def _to_gaussian(boxes: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Centre x and y, variances along x and y, covariance."""
    x, y, width, height, angle = boxes.astype(np.float64).T
    along, across = width**2 / 12, height**2 / 12
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        x,
        y,
        along * cos**2 + across * sin**2,
        along * sin**2 + across * cos**2,
        (along - across) * cos * sin,
    )
