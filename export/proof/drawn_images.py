"""Draws the images on which a detector is verified.

Scenes composed of handwritten digits, and drawings of a stop sign and a clock: two classes of COCO that a few strokes
show well enough (YOLOv8n's best score on each is above 0.85).
"""

from dataclasses import dataclass
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from export.examples.scenes import compose

Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class NamedImage:
    """An image with a name for reports; RGB, `(height, width, 3)`."""

    name: str
    image_hwc: Image


def draw_images() -> list[NamedImage]:
    """Six images of different sizes: square, wide, high, larger and smaller than a model's input."""
    scenes = [scene.image_hwc for scene in compose("held-out", count=5, seed=7)]
    collage = np.concatenate([np.concatenate(scenes[1:3], axis=0), np.concatenate(scenes[3:5], axis=0)], axis=1)
    return [
        NamedImage("stop-sign", draw_stop_sign((480, 640))),
        NamedImage("clock", _draw_clock((810, 540))),
        NamedImage("scene", scenes[0]),
        NamedImage("collage-high", _resize(collage, (1080, 810))),
        NamedImage("collage-wide", _resize(collage[:360], (387, 689))),
        NamedImage("noise-small", np.random.default_rng(7).integers(0, 256, (97, 133, 3), np.uint8)),
    ]


def draw_stop_sign(size_hw: tuple[int, int]) -> Image:
    """A red octagon with STOP on a grey post, against the sky."""
    height, width = size_hw
    fade = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([120, 170, 230]) * (1 - fade) + np.array([200, 215, 235]) * fade
    image = np.ascontiguousarray(np.broadcast_to(sky, (height, width, 3))).astype(np.uint8)
    x, y, radius = width // 2, round(height * 0.42), round(height * 0.21)
    image[round(height * 0.8) :] = 90, 110, 80
    cv2.rectangle(image, (x - radius // 12, y), (x + radius // 12, height), (130, 130, 130), cv2.FILLED)
    for scale, colour in ((1.0, (240, 240, 240)), (0.93, (190, 20, 30))):
        angles = [pi / 8 + corner * pi / 4 for corner in range(8)]
        corners = [(x + radius * scale * cos(angle), y + radius * scale * sin(angle)) for angle in angles]
        cv2.fillPoly(image, [np.array(corners, np.int32)], colour, cv2.LINE_AA)
    _write(image, "STOP", centre=(x, y), scale=radius / 42, thickness=max(2, radius // 10), colour=(240, 240, 240))
    return image


def _draw_clock(size_hw: tuple[int, int]) -> Image:
    """A wall clock that shows ten to twelve."""
    image = np.full((*size_hw, 3), (200, 190, 170), np.uint8)
    x, y, radius = size_hw[1] // 2, size_hw[0] // 2, round(min(size_hw) * 0.25)
    cv2.circle(image, (x, y), radius, (30, 30, 30), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(image, (x, y), round(radius * 0.9), (250, 250, 250), cv2.FILLED, cv2.LINE_AA)
    for hour in range(1, 13):
        centre = round(x + radius * 0.75 * sin(hour * pi / 6)), round(y - radius * 0.75 * cos(hour * pi / 6))
        _write(image, str(hour), centre=centre, scale=radius / 130, thickness=2, colour=(0, 0, 0))
    for length, angle, thickness in ((0.4, 11.8 * pi / 6, 6), (0.65, 10 * pi / 6, 4)):
        tip = round(x + radius * length * sin(angle)), round(y - radius * length * cos(angle))
        cv2.line(image, (x, y), tip, (0, 0, 0), thickness, cv2.LINE_AA)
    return image


def _write(  # noqa: PLR0913 - what OpenCV needs
    image: Image, text: str, *, centre: tuple[int, int], scale: float, thickness: int, colour: tuple[int, int, int]
) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    place = centre[0] - width // 2, centre[1] + height // 2
    cv2.putText(image, text, place, _FONT, scale, colour, thickness, cv2.LINE_AA)


def _resize(image_hwc: Image, size_hw: tuple[int, int]) -> Image:
    resized = cv2.resize(np.ascontiguousarray(image_hwc), size_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)
