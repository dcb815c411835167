"""Results in Ultralytics' form, of what no shipped model has: parts of a mask, class maps, depth."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from tests.support.described import FUSED
from transformer.dataplane.results import ImageResult
from transformer.imaging.masks import Mask
from transformer.observability.stage_timer import StageTimer
from transformer.observability.trace_context import Trace
from transformer.protocol.ultralytics import summary
from transformer.tasks.segment import Segments
from transformer.tasks.semantic import Segmentation
from transformer.tasks.task import ImagePrediction

MODEL = replace(FUSED, names={0: "road", 1: "sky", 2: "car"})


def summarised(prediction: ImagePrediction) -> list[dict[str, Any]]:
    return summary(ImageResult(MODEL, prediction, (40, 40), None, StageTimer(Trace({})), 0))


def square(corner: int, size: int) -> Any:
    return np.array([(0, 0), (0, size), (size, size), (size, 0)], np.int32) + corner


def test_one_ring_fills_the_parts_of_a_mask() -> None:
    parts = (square(2, 10), square(20, 6), square(30, 4))
    mask = Mask((40, 40), np.array([1600]), parts)
    box, score = np.array([[2, 2, 34, 34]], np.float32), np.array([0.5], np.float32)
    (found,) = summarised(Segments(box, score, np.array([2]), masks=[mask]))
    ring = np.array([found["segments"]["x"], found["segments"]["y"]]).T.astype(np.int32)
    filled = cv2.fillPoly(np.zeros((40, 40), np.uint8), [ring], 1)
    expected = cv2.fillPoly(np.zeros((40, 40), np.uint8), list(parts), 1)
    # The way from part to part is a line of one pixel.
    assert (filled[expected == 1] == 1).all()
    assert filled.sum() - expected.sum() < 40
    assert (found["name"], found["class"]) == ("car", 2)
    assert found["box"] == {"x1": 2, "y1": 2, "x2": 34, "y2": 34}


def test_class_map_has_the_share_of_each_class() -> None:
    class_map = np.array([[0, 0], [1, 255]], np.uint8)
    assert summarised(Segmentation(class_map, (40, 40), values=3)) == [
        {"name": "road", "class": 0, "pixel_ratio": 0.5},
        {"name": "sky", "class": 1, "pixel_ratio": 0.25},
    ]
