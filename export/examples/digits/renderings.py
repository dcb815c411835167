"""Images of one digit each, of any size, as users take and crop them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from export.examples.scenes import Split, load_split

Image = NDArray[np.uint8]
Digits = tuple[list[Image], NDArray[np.int64]]

_INK_EDGE = 0.2  # a pixel with less ink is outside the digit


def load_plain(split: Split) -> Digits:
    """The digits as they are, 8x8 pixels, light on dark: RGB images and labels `(N,)`."""
    inks, labels = load_split(split)
    return [np.repeat(np.round(ink * (255 / 16)).astype(np.uint8)[..., None], 3, axis=2) for ink in inks], labels


def render_split(split: Split, *, sides: tuple[int, int], seed: int) -> Digits:
    """Each digit of a split once: RGB images and labels `(N,)`.

    Args:
        split: which digits.
        sides: the digits are this many pixels high, from and to.
        seed: the same seed gives the same images.
    """
    inks, labels = load_split(split)
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    return [render(ink, rng, sides=sides) for ink in inks], labels


def render(ink: NDArray[np.float64], rng: np.random.Generator, *, sides: tuple[int, int]) -> Image:
    """One digit turned and slanted a little, cut out with margins of 0 to 30 %, dark on light or light on dark.

    Returns:
        RGB, `(height, width, 3)`; seldom square.
    """
    opacity = _margins(_cut_out(ink, rng, sides=sides), rng)
    contrast = rng.uniform(60, 255)
    dark = rng.uniform(0, 255 - contrast)
    grey = dark + contrast * (opacity if rng.random() < 0.5 else 1 - opacity)
    grey = grey + rng.normal(0, rng.uniform(0, 0.04 * contrast), grey.shape)
    return np.clip(grey[..., None] * rng.uniform(0.85, 1, 3), 0, 255).astype(np.uint8)


def _cut_out(ink: NDArray[np.float64], rng: np.random.Generator, *, sides: tuple[int, int]) -> NDArray[np.float32]:
    """Opacity in 0 to 1, cropped to the ink."""
    side = float(np.exp(rng.uniform(*np.log(sides))))
    angle, slant, stretch = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-0.12, 0.12), rng.uniform(0.85, 1.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = side / 8 * turn @ np.array([[stretch, slant], [0, 1]])
    canvas = int(side * 1.8)
    offset = np.array([canvas / 2, canvas / 2]) - matrix @ np.array([3.5, 3.5])
    smooth = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    warped = cv2.warpAffine(
        (ink / 16).astype(np.float32), np.column_stack([matrix, offset]), (canvas, canvas), flags=smooth
    )
    opacity = np.clip(warped, 0, 1) ** rng.uniform(0.7, 1.2)
    rows, columns = np.where(opacity > _INK_EDGE)
    return np.asarray(opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], np.float32)


def _margins(opacity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    widest = max(opacity.shape)
    left, top, right, bottom = (int(share * widest) for share in rng.uniform(0, 0.3, 4))
    return np.pad(opacity, ((top, bottom), (left, right)))
