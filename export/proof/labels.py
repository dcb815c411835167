"""Labels in YOLO's form as the objects that a model should find, for every task that finds objects.

A line of a label file is a class and fractions of the image's width and height:

    detect   class cx cy w h, or a polygon, whose box it is
    segment  class x y x y ..., a polygon of three points or more
    pose     class cx cy w h x y [v] x y [v] ..., v 0 where a keypoint is not labelled
    obb      class x y x y x y x y, the corners
"""

from collections.abc import Mapping, Sequence
from math import radians
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from export.proof.average_precision import Rows
from transformer.imaging.masks import Mask
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.pose import Poses
from transformer.tasks.segment import Segments
from transformer.triton.model import Model

_FEWEST_POINTS = 3


def to_pixels(
    row: Sequence[float], size_wh: tuple[int, int], *, task: str, kpt_shape: tuple[int, int] = (0, 0)
) -> list[float]:
    """A line of a label file in pixels, as `to_objects` takes it: the numbers of its task, the class last.

    Args:
        row: class and fractions.
        size_wh: of the image.
        task: decides what the fractions are.
        kpt_shape: keypoints, and numbers of each, of the task pose.

    Raises:
        ValueError: it is not a line of this task.
    """
    class_id, *numbers = row
    if task == "pose":
        corners = _to_corners(numbers[:4], size_wh)
        points = np.array(numbers[4:]).reshape(kpt_shape)  # raises ValueError
        points[:, :2] *= size_wh
        return [*corners, *points.ravel(), class_id]
    if task == "detect" and len(numbers) == 4:
        return [*_to_corners(numbers, size_wh), class_id]
    points = np.array(numbers).reshape(-1, 2) * size_wh
    if len(points) < _FEWEST_POINTS:
        raise ValueError(f"{len(row)} numbers, of a box")
    if task == "detect":
        return [*points.min(axis=0), *points.max(axis=0), class_id]
    return [*points.ravel(), class_id]


def _to_corners(numbers: Sequence[float], size_wh: tuple[int, int]) -> list[float]:
    cx, cy, w, h = numbers
    width, height = size_wh
    return [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]


def to_objects(rows: Rows, model: Model, size_wh: tuple[int, int]) -> Detections:
    """Labels as the task's own prediction, with scores of 1.

    Args:
        rows: in pixels, see `to_pixels`.
        model: its task.
        size_wh: of the image.
    """
    known: dict[str, Any] = {
        "scores": np.ones(len(rows), np.float32),
        "class_ids": np.array([int(row[-1]) for row in rows], np.int64),
    }
    if model.task == "segment":
        polygons = [np.array(row[:-1]).reshape(-1, 2) for row in rows]
        outlines = _boxes([[*points.min(axis=0), *points.max(axis=0)] for points in polygons])
        masks = [_fill(points, size_wh) for points in polygons]
        return Segments(outlines, **known, masks=masks, mask_form="rle")
    if model.task == "obb":
        return OrientedBoxes.within(size_wh, np.array([_enclose(row[:-1]) for row in rows]).reshape(-1, 5), **known)
    boxes = _boxes([row[:4] for row in rows])
    if model.task == "pose":
        count, values = model.facts["kpt_shape"]
        points = np.array([row[4:-1] for row in rows], np.float32).reshape(-1, count, values)
        return Poses(boxes, **known, keypoints=_complete(points))
    return Detections(boxes, **known)


def _boxes(rows: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def _fill(points: NDArray[Any], size_wh: tuple[int, int]) -> Mask:
    """The mask of a polygon, by COCO's own rule."""
    width, height = size_wh
    (encoded,) = coco.frPyObjects([points.ravel().tolist()], height, width)
    flat = np.asarray(coco.decode(encoded), np.uint8).T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=np.uint8(0)))
    return Mask(size_wh, np.diff(starts, prepend=0, append=flat.size))


def _enclose(corners: Sequence[float]) -> list[float]:
    """The smallest rotated box around points: centre, size and angle, as Ultralytics reads labels."""
    (x, y), (width, height), degrees = cv2.minAreaRect(np.array(corners, np.float32).reshape(-1, 2))
    return [x, y, width, height, radians(degrees)]


def _complete(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keypoints with 1 where they are labelled, else 0."""
    if points.shape[2] == 2:
        return np.concatenate([points, np.ones_like(points[..., :1])], axis=2)
    return np.concatenate([points[..., :2], (points[..., 2:] > 0).astype(np.float32)], axis=2)


def take(found: Detections, kept: NDArray[np.bool_]) -> Detections:
    """Some of the objects of an image."""
    rest: Mapping[str, Any] = {}
    if isinstance(found, Segments):
        rest = {"masks": [mask for mask, is_kept in zip(found.masks, kept, strict=True) if is_kept], "mask_form": "rle"}
    elif isinstance(found, Poses):
        rest = {"keypoints": found.keypoints[kept]}
    elif isinstance(found, OrientedBoxes):
        rest = {"rotated_boxes": found.rotated_boxes[kept]}
    return type(found)(found.boxes_xyxy[kept], found.scores[kept], found.class_ids[kept], **rest)
