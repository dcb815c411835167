"""Videos of digits that move, with the truth of every frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURE = Path(__file__).parents[2] / "loadtest" / "pictures" / "digits.jpg"
# Boxes of digits in that scene, with a margin: x1, y1, x2, y2.
DIGITS = {"2": (14, 10, 58, 82), "0": (22, 96, 80, 180), "7": (96, 126, 186, 274)}
SIZE_WH = (640, 480)


@dataclass(frozen=True)
class Mover:
    """A digit that moves on a line.

    Attributes:
        digit: which one.
        start_xy: of its middle in the first frame, pixels.
        step_xy: from frame to frame, pixels.
    """

    digit: str
    start_xy: tuple[float, float]
    step_xy: tuple[float, float]

    def middle(self, frame: int) -> tuple[float, float]:
        """Of its box, in a frame."""
        (x, y), (dx, dy) = self.start_xy, self.step_xy
        return x + dx * frame, y + dy * frame


# The 2 and the 7 pass each other: where they cross, one covers the other.
CROSSING = (Mover("7", (90, 150), (5, 1)), Mover("2", (550, 190), (-5, 0.5)), Mover("0", (320, 400), (1, 0)))


def draw(movers: Sequence[Mover], count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames, BGR."""
    scene = cv2.imread(str(PICTURE))
    assert scene is not None
    ground = np.full((SIZE_WH[1], SIZE_WH[0], 3), 60, np.uint8)
    for frame in range(count):
        image = ground.copy()
        for mover in movers:
            x1, y1, x2, y2 = DIGITS[mover.digit]
            patch = scene[y1:y2, x1:x2]
            bright = (patch.astype(np.float32).mean(axis=2, keepdims=True) - 90) / 60
            alpha = np.clip(bright, 0, 1)
            middle_x, middle_y = mover.middle(frame)
            left, top = round(middle_x - (x2 - x1) / 2), round(middle_y - (y2 - y1) / 2)
            place = image[top : top + y2 - y1, left : left + x2 - x1]
            place[:] = (alpha * patch + (1 - alpha) * place).astype(np.uint8)
        yield image


def write(path: Path, movers: Sequence[Mover], count: int, *, fps: float = 25) -> Path:
    """A video by OpenCV alone, MPEG-4 in an .mp4."""
    fourcc: Any = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), fourcc, fps, SIZE_WH)
    assert writer.isOpened()
    for image in draw(movers, count):
        writer.write(image)
    writer.release()
    return path
