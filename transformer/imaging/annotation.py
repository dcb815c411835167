"""Draw what was found on the picture it was found in."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal

import cv2
import numpy as np
import simplejpeg

from transformer.errors import PayloadTooLarge
from transformer.imaging import lettering
from transformer.imaging.letterbox import Image
from transformer.tasks.detect import Detections

# Twelve hues that stay apart on light and dark pictures (RGB).
_COLOURS = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (0, 128, 128),
    (240, 50, 230), (128, 128, 0), (170, 110, 40), (128, 0, 0), (0, 0, 128), (90, 90, 90),
)  # fmt: skip
_WHITE = np.array((255, 255, 255), np.uint16)
_SMALLEST_PX, _LARGEST_PX = 13, 120  # letters
_TEXTS_KEPT = 128  # of one picture, drawn: scores and names come again and again
_MARGIN_PX = 2

PictureType = Literal["image/jpeg", "image/png"]

# libjpeg's JPEG_MAX_DIMENSION, libpng's PNG_USER_WIDTH_MAX.
_LONGEST_SIDES: Mapping[PictureType, int] = {"image/jpeg": 65_500, "image/png": 1_000_000}


def check_size(image_hwc: Image, media_type: PictureType) -> None:
    """Refuse a picture that cannot be sent back in a format, before it is drawn on.

    Raises:
        PayloadTooLarge: a side is longer than the format can say.
    """
    height, width = image_hwc.shape[:2]
    longest = _LONGEST_SIDES[media_type]
    if max(height, width) > longest:
        others = [name for name, side in _LONGEST_SIDES.items() if max(height, width) <= side]
        name = media_type.removeprefix("image/").upper()
        raise PayloadTooLarge(
            f"Accept: {media_type}: {width}x{height} is over {name}'s {longest} a side;"
            f" ask for {' or '.join([*others, 'application/json'])}"
        )


def draw_detections(image_hwc: Image, detections: Detections, *, names: Sequence[str]) -> Image:
    """A copy of the picture with a box, a name and a score for each detection.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        detections: in pixels of `image_hwc`.
        names: one for each detection; where no font has all letters of it, its class's index is drawn.
    """
    drawn = image_hwc.copy()
    thickness = _thickness(drawn)
    draw = _lettering(drawn)
    # The weakest first, so that the strongest lies on top.
    for index in reversed(range(len(names))):
        x1, y1, x2, y2 = (int(value) for value in detections.boxes_xyxy[index].round())
        class_id = int(detections.class_ids[index])
        colour = _COLOURS[class_id % len(_COLOURS)]
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        texts = _texts(names[index], class_id, float(detections.scores[index]))
        _write(drawn, [draw(text) for text in texts], at_xy=(x1, y1), colour=colour)
    return drawn


def draw_class(image_hwc: Image, name: str, *, class_id: int, score: float) -> Image:
    """A copy of the picture with one class in its upper left corner, enlarged where it is too small to read."""
    height, width = image_hwc.shape[:2]
    factor = max(min(-(-200 // min(height, width)), 2000 // max(height, width)), 1)
    drawn = np.ascontiguousarray(image_hwc.repeat(factor, axis=0).repeat(factor, axis=1))
    draw = _lettering(drawn)
    _write(drawn, [draw(text) for text in _texts(name, class_id, score)], at_xy=(0, 0), colour=_COLOURS[2])
    return drawn


def encode(image_hwc: Image, media_type: PictureType) -> bytes:
    """RGB array, of a size that `check_size` lets pass, to an encoded picture."""
    if media_type == "image/jpeg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image_hwc), quality=90, colorspace="RGB"))
    _, data = cv2.imencode(".png", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _thickness(image_hwc: Image) -> int:
    """Of lines: in proportion to the picture, but no more than its shorter side; OpenCV draws none over 32767."""
    height, width = image_hwc.shape[:2]
    thickness: int = max(min(round((height + width) / 700), height, width), 1)
    return thickness


def _texts(name: str, class_id: int, score: float) -> tuple[str, str]:
    """What is written of a class: its name, or its index where the name cannot be drawn, and the score."""
    line = lettering.tidy(name)
    return line if lettering.is_drawable(line) else f"class {class_id}", f"{score:.2f}"


def _lettering(image_hwc: Image) -> Callable[[str], lettering.Mask]:
    """What draws a text in a size that fits a picture."""
    size_px = min(max(12 * _thickness(image_hwc), _SMALLEST_PX), _LARGEST_PX)
    return lru_cache(maxsize=_TEXTS_KEPT)(partial(lettering.draw, size_px=size_px))


def _write(drawn: Image, texts: Sequence[lettering.Mask], *, at_xy: tuple[int, int], colour: tuple[int, ...]) -> None:
    """Write texts on a filled tab above `at_xy`, or below where there is no room; `drawn` is changed."""
    height = texts[0].shape[0]
    space = np.zeros((height, height // 4), np.uint8)
    line = np.pad(np.hstack([texts[0], space, *texts[1:]]), _MARGIN_PX)[..., None].astype(np.uint16)
    tab = (line * _WHITE + (255 - line) * np.array(colour, np.uint16)) // 255
    x = max(min(at_xy[0], drawn.shape[1] - tab.shape[1]), 0)
    y = at_xy[1] - tab.shape[0] if at_xy[1] >= tab.shape[0] else at_xy[1]
    place = drawn[y : y + tab.shape[0], x : x + tab.shape[1]]
    place[:] = tab[: place.shape[0], : place.shape[1]]
