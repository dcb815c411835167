"""Resize an image and keep a window of it, pixel for pixel as Pillow does, in bounded memory.

Pillow keeps four bytes for a pixel of three channels; one channel by itself has the same values, and Pillow reads it
where NumPy has it. So a large image takes a third of its own memory again, and not more than all of it.
"""

import math

import cv2
import numpy as np
from PIL import Image as Pillow

from transformer.imaging.letterbox import Image

Resampling = Pillow.Resampling
FILTERS = {each.name.lower(): each for each in Resampling}  # nearest, lanczos, bilinear, bicubic, box, hamming

Window = tuple[int, int, int, int]

_BAND_ROWS_PX = 2**20
MOST_PX = 2**26  # between Pillow's two passes and after them: a side of 262,144 pixels where the shorter gets 256
_SUPPORT = 3  # pixels to each side that the widest filter reads, at least


def resize_window(
    image_hwc: Image,
    resized_wh: tuple[int, int],
    *,
    window_xywh: Window,
    interpolation: Resampling,
    is_grey: bool = False,
) -> Image:
    """A window of the resized image, without resizing all of one that becomes very long.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        resized_wh: size of the whole image when it is resized.
        window_xywh: the part of it that is kept: left, top, width, height.
        interpolation: Pillow's; all but `nearest` average over the pixels that become one.
        is_grey: whether the image becomes grey first, by Pillow's weights (ITU-R 601-2).

    Returns:
        `(window height, window width, 3)`, or 1 where it is grey. Equal to Pillow's, except where a pass would have
        more than `MOST_PX` pixels: there the passes may be in another order, with `bilinear` one grey level.
    """
    height, width = image_hwc.shape[:2]
    most = max(resized_wh[0] * max(height, resized_wh[1]), width * resized_wh[1])
    resize = _resize_plane if most <= MOST_PX else _resize_long_plane
    planes = [_grey(image_hwc)] if is_grey else (_channel(image_hwc, index) for index in range(3))
    return np.stack([resize(plane, resized_wh, window_xywh, interpolation) for plane in planes], axis=-1)


def resize_without_antialias(image_hwc: Image, resized_wh: tuple[int, int], *, is_grey: bool = False) -> Image:
    """Resize by the four nearest pixels alone, as TensorFlow does by default, which does not round to whole levels.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        resized_wh: size to resize it to.
        is_grey: as above.

    Returns:
        `(height, width, 3)`, or 1 where it is grey.
    """
    source = _grey(image_hwc) if is_grey else image_hwc
    resized = np.asarray(cv2.resize(source, resized_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
    return resized.reshape(resized_wh[1], resized_wh[0], 1 if is_grey else 3)


def _channel(image_hwc: Image, index: int) -> Image:
    return np.asarray(cv2.extractChannel(image_hwc, index), np.uint8)


def _grey(image_hwc: Image) -> Image:
    """`(height, width)`, in bands of rows."""
    step = max(_BAND_ROWS_PX // image_hwc.shape[1], 1)
    bands = (image_hwc[start : start + step] for start in range(0, len(image_hwc), step))
    return np.concatenate([np.asarray(Pillow.fromarray(band).convert("L")) for band in bands])


def _resize_plane(plane: Image, resized_wh: tuple[int, int], window_xywh: Window, interpolation: Resampling) -> Image:
    x, y, width, height = window_xywh
    resized = Pillow.fromarray(plane)
    if resized.size != resized_wh:
        resized = resized.resize(resized_wh, interpolation)
    return np.asarray(resized)[y : y + height, x : x + width]


def _resize_long_plane(
    plane: Image, resized_wh: tuple[int, int], window_xywh: Window, interpolation: Resampling
) -> Image:
    """The window by the pixels that it is made of; the longer side of the image first, as Pillow does."""
    (left, right, x1, x2), (top, bottom, y1, y2) = (
        _find_span(length, resized, start, count)
        for length, resized, start, count in zip(
            plane.shape[::-1], resized_wh, window_xywh[:2], window_xywh[2:], strict=True
        )
    )
    part = Pillow.fromarray(np.ascontiguousarray(plane[top:bottom, left:right]))
    width, height = window_xywh[2:]
    if plane.shape[0] > plane.shape[1]:
        rows = part.resize((part.width, height), interpolation, box=(0, y1, part.width, y2))
        return np.asarray(rows.resize((width, height), interpolation, box=(x1, 0, x2, height)))
    columns = part.resize((width, part.height), interpolation, box=(x1, 0, x2, part.height))
    return np.asarray(columns.resize((width, height), interpolation, box=(0, y1, width, y2)))


def _find_span(length: int, resized: int, start: int, count: int) -> tuple[int, int, float, float]:
    """Of one axis: which pixels a window of the resized image is made of, and where it begins and ends among them.

    Pillow reads the latter in single precision: counted from the first of these pixels they are small.
    """
    scale = length / resized
    margin = math.ceil(_SUPPORT * max(scale, 1)) + 1
    first = max(math.floor(start * scale) - margin, 0)
    last = min(math.ceil((start + count) * scale) + margin, length)
    return first, last, max(start * scale - first, 0.0), min((start + count) * scale - first, last - first)
