"""Fit an image into a model's input and map boxes back: pure functions on arrays.

The arithmetic is that of Ultralytics 8.4 (`data.augment.LetterBox`, `utils.ops.scale_boxes`), to the rounding, because
a shift by one pixel moves every score.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

PADDING_GREY = 114


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the model's input; all sizes are `(width, height)` in pixels.

    Attributes:
        image_wh: size of the original image.
        resized_wh: size of the scaled image inside the input.
        pad_xy: left and top padding.
        input_wh: size of the model's input.
    """

    image_wh: tuple[int, int]
    resized_wh: tuple[int, int]
    pad_xy: tuple[int, int]
    input_wh: tuple[int, int]


def fit(image_wh: tuple[int, int], target_wh: tuple[int, int], *, stride: int | None) -> Letterbox:
    """Plan the largest placement of an image inside `target_wh` that keeps its proportions, centred.

    Args:
        image_wh: size of the image.
        target_wh: size the model was trained for.
        stride: pad only to the next multiple of this (smallest rectangle), or None to pad to `target_wh`.
    """
    width, height = image_wh
    ratio = min(target_wh[0] / width, target_wh[1] / height)
    resized_wh = max(round(width * ratio), 1), max(round(height * ratio), 1)
    space_x, space_y = target_wh[0] - resized_wh[0], target_wh[1] - resized_wh[1]
    if stride is not None:
        space_x, space_y = space_x % stride, space_y % stride
    return Letterbox(
        image_wh=image_wh,
        resized_wh=resized_wh,
        # The 0.1 decides where the odd pixel of padding goes: right and below.
        pad_xy=(round(space_x / 2 - 0.1), round(space_y / 2 - 0.1)),
        input_wh=(resized_wh[0] + space_x, resized_wh[1] + space_y),
    )


def stretch(image_wh: tuple[int, int], target_wh: tuple[int, int]) -> Letterbox:
    """Plan to stretch an image to `target_wh`, each side by itself (Ultralytics' `LetterBox(scale_fill=True)`)."""
    return Letterbox(image_wh=image_wh, resized_wh=target_wh, pad_xy=(0, 0), input_wh=target_wh)


def letterbox(image_hwc: Image, plan: Letterbox) -> Image:
    """Scale and pad an image as planned.

    Args:
        image_hwc: the image, or what it was reduced to while it was decoded.
        plan: made for the size of the image itself.

    Returns:
        `(input height, input width, channels)`, grey where the image is not; the image itself where the plan
        changes nothing.
    """
    resized = image_hwc
    if plan.resized_wh != image_hwc.shape[1::-1]:
        resized = np.asarray(cv2.resize(image_hwc, plan.resized_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
    if plan.input_wh == plan.resized_wh:
        return resized
    left, top = plan.pad_xy
    right = plan.input_wh[0] - plan.resized_wh[0] - left
    bottom = plan.input_wh[1] - plan.resized_wh[1] - top
    grey = (PADDING_GREY,) * 3
    padded = cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
    return np.asarray(padded, np.uint8)


def unletterbox(boxes_xyxy: NDArray[np.float32], plan: Letterbox) -> NDArray[np.float32]:
    """Map boxes from model pixels back to pixels of the original image.

    Args:
        boxes_xyxy: `(N, 4)`, model pixels; N may be 0.
        plan: what `fit` returned for this image.

    Returns:
        `(N, 4)`, original pixels, clipped to the image.
    """
    return unletterbox_points(boxes_xyxy.reshape(-1, 2, 2), plan).reshape(-1, 4)


def unletterbox_points(points_xy: NDArray[np.float32], plan: Letterbox) -> NDArray[np.float32]:
    """Map points `(..., 2)` as `unletterbox` maps corners."""
    limits = np.array(plan.image_wh, np.float32)
    return np.clip(_to_image(points_xy, plan), 0, limits).astype(np.float32, copy=False)


def unletterbox_rotated(boxes_cxcywhr: NDArray[np.float32], plan: Letterbox) -> NDArray[np.float32]:
    """Map rotated boxes `(N, 5)`, centre, width, height and angle, to original pixels; they are not clipped.

    Where the letterbox has rounded one side of the image more than the other, width and height are scaled each by the
    factor of its axis, whatever the angle, as Ultralytics does it.
    """
    sizes = boxes_cxcywhr[:, 2:4] / _scale(plan)
    parts = [_to_image(boxes_cxcywhr[:, :2], plan), sizes, boxes_cxcywhr[:, 4:]]
    return np.concatenate(parts, axis=1)


def _to_image(points_xy: NDArray[np.float32], plan: Letterbox) -> NDArray[np.float32]:
    return (points_xy - np.array(plan.pad_xy, np.float32)) / _scale(plan)


def _scale(plan: Letterbox) -> NDArray[np.float32]:
    """Model pixels for each pixel of the original image, along x and y."""
    return np.divide(plan.resized_wh, plan.image_wh, dtype=np.float32)
