"""Crowded rotated boxes, the same for the same seed, and which of them Ultralytics keeps."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CROWDS = 40
FILE = Path(__file__).with_name("rotated-crowds.npz")


class Crowd(NamedTuple):
    """What NMS of rotated boxes is given.

    Attributes:
        boxes: `(N, 5)`: centre, width, height, angle.
        scores: `(N,)`, all different: of equal ones Ultralytics' order is not defined.
        class_ids: `(N,)`.
        iou: as of `rotated_nms`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    iou: float


def draw_crowd(seed: int) -> Crowd:
    """Boxes that overlap, many of them alike; of every third crowd thin, of every fifth with numbers that are none."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 1500))
    centres = rng.uniform(0, 640, (max(count // 12, 1), 5)) * [1, 1, 0.15, 0.15, 0.01]
    boxes = centres[rng.integers(0, len(centres), count)] + rng.normal(0, 1, (count, 5)) * [2, 2, 3, 3, 0.1]
    if seed % 4 == 1:  # few sizes at few places: many overlaps are equal, and many boxes
        boxes = np.round(boxes / 8) * [8, 8, 8, 8, 0] + rng.choice([0, 0.5, np.pi / 2, -7], (count, 1)) * [
            0,
            0,
            0,
            0,
            1,
        ]
    if seed % 3 == 2:
        boxes[:, 3] = rng.choice([0, 0.01, 1], count)
    if seed % 5 == 3:
        boxes[rng.random((count, 5)) < 0.02] = rng.choice([np.nan, np.inf, -5])
    scores = rng.permutation(np.linspace(0.25, 1, count))
    class_ids = rng.integers(0, rng.choice([1, 4, 80]), count)
    return Crowd(
        boxes.astype(np.float32), scores.astype(np.float32), class_ids, float(rng.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
    )


def read_kept() -> list[NDArray[np.int64]]:
    """Indices of the boxes of each crowd that Ultralytics keeps, best first."""
    with np.load(FILE) as kept:
        return [kept[str(seed)].astype(np.int64) for seed in range(CROWDS)]
