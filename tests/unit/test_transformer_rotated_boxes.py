"""Rotated boxes, compared with what Ultralytics' own functions make of them."""

import tracemalloc

import numpy as np
import pytest

from tests.reference.crowds import CROWDS, draw_crowd, read_kept
from transformer.imaging.rotated_boxes import enclose, rotated_nms, to_canonical, to_corners

KEPT = read_kept()


@pytest.mark.parametrize("seed", range(CROWDS))
def test_rotated_nms_keeps_the_boxes_that_ultralytics_keeps(seed: int) -> None:
    crowd = draw_crowd(seed)
    for most in (5, len(crowd.boxes)):
        kept = rotated_nms(crowd.boxes, crowd.scores, class_ids=crowd.class_ids, iou=crowd.iou, max_detections=most)
        np.testing.assert_array_equal(kept, KEPT[seed][:most])


def test_suppressed_box_still_suppresses() -> None:
    boxes = np.array([[50, 50, 60, 20, 0.5], [53, 50, 60, 20, 0.5], [56, 50, 60, 20, 0.5]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    one_class, two = np.zeros(3, np.int64), np.array([0, 1, 0])
    for class_ids, kept in ((one_class, [0]), (two, [0, 1, 2])):
        found = rotated_nms(boxes, scores, class_ids=class_ids, iou=0.8, max_detections=9)
        assert found.tolist() == kept
    # Without the one between them the first and the last are far enough apart.
    ends = rotated_nms(boxes[[0, 2]], scores[[0, 2]], class_ids=one_class[:2], iou=0.8, max_detections=9)
    assert ends.tolist() == [0, 1]


def test_equal_scores_are_in_the_order_of_the_candidates() -> None:
    boxes = np.array([[100 * index, 50, 60, 20, 0.5] for index in range(600)], np.float32)
    kept = rotated_nms(boxes, np.ones(600, np.float32), class_ids=np.zeros(600, np.int64), iou=0.5, max_detections=600)
    assert kept.tolist() == list(range(600))


def test_nms_of_many_boxes_takes_little_memory() -> None:
    count = 30_000  # a matrix of all pairs would have 3.6 GB
    boxes = np.tile(np.array([[100, 100, 50, 30, 0.5]], np.float32), (count, 1))
    tracemalloc.start()
    scores = np.linspace(1, 0.3, count, dtype=np.float32)
    kept = rotated_nms(boxes, scores, class_ids=np.zeros(count, np.int64), iou=0.7, max_detections=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.tolist() == [0]
    assert peak < 50e6


@pytest.mark.parametrize("angle", [-9.0, -0.7, -1e-9, 0.0, 0.3, 1.5707964, 2.3, 3.2, 100.0])
def test_canonical_box_has_the_same_corners(angle: float) -> None:
    box = np.array([[40, 50, 30, 10, angle]], np.float32)
    canonical = to_canonical(box)
    assert 0 <= canonical[0, 4] < np.float32(np.pi / 2) + 1e-6
    corners, same = to_corners(box)[0], to_corners(canonical)[0]
    distances = np.abs(corners[:, None] - same).max(axis=2)
    assert distances.min(axis=1).max() < 1e-3


def test_corners_are_in_the_order_of_ultralytics() -> None:
    box = np.array([[40, 50, 30, 10, 0]], np.float32)
    assert to_corners(box).tolist() == [[[55, 55], [55, 45], [25, 45], [25, 55]]]
    assert enclose(to_corners(box), (50, 48)).tolist() == [[25, 45, 50, 48]]


def test_numbers_of_a_broken_model_raise_nothing() -> None:
    boxes = np.array([[np.nan] * 5, [np.inf] * 5, [10, 10, np.inf, 5, -np.inf]], np.float32)
    assert (
        len(rotated_nms(boxes, np.ones(3, np.float32), class_ids=np.zeros(3, np.int64), iou=0, max_detections=3)) == 3
    )
    assert enclose(to_corners(to_canonical(boxes)), (20, 20)).shape == (3, 4)
