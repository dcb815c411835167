"""Box arithmetic and non-maximum suppression."""

import numpy as np
import pytest
from numpy.typing import NDArray

from transformer.imaging.nms import cxcywh_to_xyxy, nms

BOX = [0.0, 0.0, 10.0, 10.0]
SHIFTED = [1.0, 0.0, 11.0, 10.0]  # IoU with BOX: 90 / 110
POINT = [5.0, 5.0, 5.0, 5.0]
APART = [50.0, 50.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("boxes", "scores", "class_ids", "iou", "limit", "kept"),
    [
        ([], [], [], 0.7, 300, []),
        ([BOX], [0.5], [0], 0.7, 300, [0]),
        ([BOX, SHIFTED], [0.5, 0.9], [0, 0], 0.7, 300, [1]),
        ([BOX, SHIFTED], [0.5, 0.9], [0, 1], 0.7, 300, [1, 0]),  # other classes never suppress
        ([BOX, SHIFTED], [0.5, 0.9], [0, 0], 0.82, 300, [1, 0]),  # 0.818 is not above 0.82
        ([BOX, SHIFTED, APART], [0.5, 0.9, 0.7], [0, 0, 0], 0.7, 300, [1, 2]),
        ([BOX, APART], [0.5, 0.9], [0, 0], 0.7, 1, [1]),
        ([BOX, BOX], [0.5, 0.5], [3, 3], 1.0, 300, [0, 1]),
        ([BOX, APART, BOX], [0.5, 0.5, 0.5], [0, 0, 0], 0.7, 300, [0, 1]),  # of equals the first
        ([POINT, POINT], [0.5, 0.9], [0, 0], 0.7, 300, [1, 0]),  # no area, no overlap
    ],
)
def test_suppress_keeps_the_best_of_each_class(
    boxes: list[list[float]],
    scores: list[float],
    class_ids: list[int],
    iou: float,
    limit: int,
    kept: list[int],
) -> None:
    result = nms(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        class_ids=np.array(class_ids, np.int64),
        iou=iou,
        max_detections=limit,
    )
    assert result.tolist() == kept


def test_nms_agrees_with_its_definition_on_random_boxes() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (200, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 60, (200, 2))]).astype(np.float32)
    scores = (rng.permutation(200) / 200).astype(np.float32)
    class_ids = rng.integers(0, 3, 200)
    kept: list[int] = []
    for index in np.argsort(-scores):
        rivals = [k for k in kept if class_ids[k] == class_ids[index] and _iou(boxes[k], boxes[index]) > 0.5]
        if not rivals:
            kept.append(int(index))
    assert nms(boxes, scores, class_ids=class_ids, iou=0.5, max_detections=300).tolist() == kept


def test_cxcywh_to_xyxy_turns_centre_and_size_to_corners() -> None:
    assert cxcywh_to_xyxy(np.array([[10, 20, 4, 6]], np.float32)).tolist() == [[8, 17, 12, 23]]
    assert cxcywh_to_xyxy(np.empty((0, 4), np.float32)).shape == (0, 4)


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    inter = size.prod()
    return float(inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter))
