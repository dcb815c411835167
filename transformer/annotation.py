"""Draw what was found on the picture it was found in."""

from collections.abc import Mapping, Sequence
from typing import Literal

import cv2
import numpy as np
import simplejpeg

from transformer.errors import PayloadTooLarge
from transformer.letterbox import Image
from transformer.tasks.detect import Detections

# Twelve hues that stay apart on light and dark pictures (RGB).
_COLOURS = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (0, 128, 128),
    (240, 50, 230), (128, 128, 0), (170, 110, 40), (128, 0, 0), (0, 0, 128), (90, 90, 90),
)  # fmt: skip
_WHITE = (255, 255, 255)

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


def draw_detections(image_hwc: Image, detections: Detections, *, labels: Sequence[str]) -> Image:
    """A copy of the picture with a box and a label for each detection.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        detections: in pixels of `image_hwc`.
        labels: one for each detection.
    """
    drawn = image_hwc.copy()
    thickness = _thickness(drawn)
    # The weakest first, so that the strongest lies on top.
    for index in reversed(range(len(labels))):
        x1, y1, x2, y2 = (int(value) for value in detections.boxes_xyxy[index].round())
        colour = _COLOURS[int(detections.class_ids[index]) % len(_COLOURS)]
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        _write(drawn, labels[index], at_xy=(x1, y1), colour=colour, thickness=thickness)
    return drawn


def draw_label(image_hwc: Image, label: str) -> Image:
    """A copy of the picture with one label in its upper left corner, enlarged where it is too small to read."""
    height, width = image_hwc.shape[:2]
    factor = max(min(-(-200 // min(height, width)), 2000 // max(height, width)), 1)
    drawn = np.ascontiguousarray(image_hwc.repeat(factor, axis=0).repeat(factor, axis=1))
    _write(drawn, label, at_xy=(0, 0), colour=_COLOURS[2], thickness=_thickness(drawn))
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


def _write(drawn: Image, label: str, *, at_xy: tuple[int, int], colour: tuple[int, int, int], thickness: int) -> None:
    """Write a label on a filled tab above `at_xy`, or below where there is no room; `drawn` is changed."""
    # OpenCV's font holds ASCII only.
    text = label.encode("ascii", "replace").decode()
    scale = max(thickness * 0.35, 0.4)
    weight = max(thickness // 2, 1)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
    x = max(min(at_xy[0], drawn.shape[1] - width - 4), 0)
    y = at_xy[1] - below - 3 if at_xy[1] > height + below + 4 else at_xy[1] + height + 3
    cv2.rectangle(drawn, (x, y - height - 3), (x + width + 4, y + below), colour, cv2.FILLED)
    cv2.putText(drawn, text, (x + 2, y - 1), cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, weight, cv2.LINE_AA)
