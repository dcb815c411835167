"""What was found in an image, as arrays: read from Ultralytics' results and from responses, and how they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

# `classes`, `scores`, `boxes` (x1, y1, x2, y2), and what a task has beside them: `masks`, `keypoints`, or `corners` and
# `angles`.
Found = Mapping[str, NDArray[Any]]

_SIDES = ("x1", "y1", "x2", "y2")


def read_result(result: Any) -> Found:
    """A result of Ultralytics; boxes within the image, as they are served."""
    height, width = result.orig_shape
    found = result.boxes if result.obb is None else result.obb
    rest: dict[str, NDArray[Any]] = {}
    if result.obb is not None:
        rest = {"corners": found.xyxyxyxy.numpy(), "angles": found.xywhr.numpy()[:, 4]}
    elif result.keypoints is not None:
        rest = {"keypoints": result.keypoints.data.numpy()}
    elif result.masks is not None:
        rest = {"masks": result.masks.data.numpy().astype(bool)}
    return {
        "classes": found.cls.numpy().astype(int),
        "scores": found.conf.numpy(),
        "boxes": found.xyxy.numpy().clip(0, np.array([width, height, width, height], np.float32)),
        **rest,
    }


def read_response(response: Any) -> Found:
    """A response of `/predict`; masks as `mask=rle` has them."""
    objects = response["predictions"]
    rest: dict[str, NDArray[Any]] = {}
    if objects and "corners" in objects[0]:
        rest["corners"] = np.array([[[point["x"], point["y"]] for point in each["corners"]] for each in objects])
        rest["angles"] = np.array([each["rotated_box"]["rotation"] for each in objects])
    elif objects and "keypoints" in objects[0]:
        rest["keypoints"] = np.array(
            [[[point["x"], point["y"], point["confidence"]] for point in each["keypoints"]] for each in objects]
        )
    elif objects and "rle" in objects[0]:
        rest["masks"] = np.asarray(sv.Detections.from_inference(response).mask)
    return {
        "classes": np.array([each["class_id"] for each in objects], int),
        "scores": np.array([each["confidence"] for each in objects]),
        "boxes": np.array([[each["box"][side] for side in _SIDES] for each in objects]).reshape(-1, 4),
        **rest,
    }


def differences(ones: Sequence[Found], others: Sequence[Found]) -> dict[str, float]:
    """The largest differences of the objects of some images, each of which must have the same number of each class.

    Returns:
        Pixels of `boxes`, `keypoints` and `corners`; `scores` and `visibility`; `masks`, 1 - IoU; radians of `angles`.
    """
    figures: dict[str, float] = {}
    for one, other in zip(ones, others, strict=True):
        for name, figure in _differences(one, other).items():
            figures[name] = max(figures.get(name, 0), float(figure))
    return figures


def _differences(one: Found, other: Found) -> dict[str, Any]:
    assert sorted(one["classes"]) == sorted(other["classes"])
    if not len(one["classes"]):
        return {}
    assert one.keys() == other.keys()
    order = _match(one, other)
    mine, theirs = one, {name: values[order] for name, values in other.items()}
    apart = {name: np.abs(mine[name] - theirs[name]) for name in mine.keys() - {"classes", "masks"}}
    figures = {name: values.max() for name, values in apart.items()}
    if "keypoints" in apart:
        figures |= {"keypoints": apart["keypoints"][..., :2].max(), "visibility": apart["keypoints"][..., 2].max()}
    if "angles" in apart:  # a square's width is any of its sides
        figures["angles"] = np.minimum(apart["angles"], np.pi / 2 - apart["angles"]).max()
    if "masks" in mine:
        shared, either = mine["masks"] & theirs["masks"], mine["masks"] | theirs["masks"]
        figures["masks"] = 1 - (shared.sum(axis=(1, 2)) / either.sum(axis=(1, 2))).min()
    return figures


def _match(one: Found, other: Found) -> list[int]:
    """For each object of `one` the nearest of its class in `other` that is not taken yet."""
    left = list(range(len(other["classes"])))
    order = []
    for box, class_id in zip(one["boxes"], one["classes"], strict=True):
        rivals = [index for index in left if other["classes"][index] == class_id]
        order.append(min(rivals, key=lambda index: float(np.abs(other["boxes"][index] - box).max())))
        left.remove(order[-1])
    return order
