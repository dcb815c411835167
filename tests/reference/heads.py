"""Raw outputs of Ultralytics' heads for pose and oriented boxes, and what its `predict` finds in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("heads.npz")
CLASSES, KEYPOINTS = 2, (5, 3)
IMGSZ = 320
# Task and whether the head needs no NMS, by the name of a head.
HEADS = {
    "yolov8n-pose": ("pose", False),
    "yolo26n-pose": ("pose", True),
    "yolo11n-obb": ("obb", False),
    "yolo26n-obb": ("obb", True),
}


class Case(NamedTuple):
    """One image.

    Attributes:
        head: its name in `HEADS`.
        image_wh: size of the image.
        output: `output0` without batch dimension; of candidates only those with a score above 0.2.
        found: what `predict` finds: `result.boxes.data` or `result.obb.data`.
        keypoints: `result.keypoints.data` of a pose, otherwise empty.
    """

    head: str
    image_wh: tuple[int, int]
    output: NDArray[np.float32]
    found: NDArray[np.float32]
    keypoints: NDArray[np.float32]


def read_heads() -> Iterator[Case]:
    """The cases of the file."""
    with np.load(FILE) as arrays:
        for key in arrays["keys"].tolist():
            width, height = arrays[f"{key}/wh"].tolist()
            parts: list[Any] = [arrays[f"{key}/{part}"] for part in ("output", "found", "keypoints")]
            yield Case(key.rpartition("/")[0], (width, height), *parts)
