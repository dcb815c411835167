"""Composes images of handwritten digits, with the box of every digit.

The digits are scikit-learn's `load_digits`: 1797 real handwritten digits of 8x8 pixels, collected by E. Alpaydin and
C. Kaynak (UCI, "Optical Recognition of Handwritten Digits", CC BY 4.0). One fifth of them is held out; a held-out scene
shows nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "held-out"]
Image = NDArray[np.uint8]

SCENE_SIZE = 320
_SPLIT_SEED = 0
_INK_EDGE = 0.2  # a pixel with less ink than this is outside the digit's box
_MIN_CONTRAST = 60.0


@dataclass(frozen=True)
class Scene:
    """An image and its digits.

    Attributes:
        image_hwc: RGB, `(SCENE_SIZE, SCENE_SIZE, 3)`.
        boxes_xyxy: `(N, 4)`, pixels, tight around the ink.
        class_ids: `(N,)`, the digits 0 to 9.
    """

    image_hwc: Image
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]


def load_split(split: Split) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Real digits of one split, the same in every run.

    Returns:
        Ink `(N, 8, 8)` in 0 (paper) to 16 (full ink), and the digits `(N,)`.
    """
    # scikit-learn takes seconds to import, which an export with images of the user saves.
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    train, held_out, train_labels, held_out_labels = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=_SPLIT_SEED
    )
    return (train, train_labels) if split == "train" else (held_out, held_out_labels)


def compose(split: Split, *, count: int, seed: int) -> Iterator[Scene]:
    """Scenes with one to eight digits of `split`; the same `seed` gives the same scenes."""
    inks, labels = load_split(split)
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    for _ in range(count):
        yield _scene(inks, labels, rng)


def _scene(inks: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator) -> Scene:
    image = _background(rng)
    boxes: list[tuple[int, int, int, int]] = []
    class_ids: list[int] = []
    for index in rng.integers(len(inks), size=rng.integers(1, 9)):
        alpha = _render(inks[index], rng)
        place = _free_place(alpha.shape, boxes, rng)
        if place is None:
            continue
        x, y = place
        height, width = alpha.shape
        region = image[y : y + height, x : x + width]
        colour = _contrasting_colour(region.mean(axis=(0, 1)), rng)
        region += alpha[..., None] * (colour - region)
        boxes.append((x, y, x + width, y + height))
        class_ids.append(int(labels[index]))
    return Scene(_camera(image, rng), np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int64))


def _render(ink: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """One digit, enlarged, turned and slanted a little, cropped to its ink: opacity `(h, w)` in 0 to 1."""
    side = float(np.exp(rng.uniform(np.log(32), np.log(150))))
    scale = side / 8
    angle = np.deg2rad(rng.uniform(-12, 12))
    slant = rng.uniform(-0.2, 0.2)
    stretch = rng.uniform(0.8, 1.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[stretch, slant], [0, 1]])
    canvas = int(side * 1.8)
    offset = np.array([canvas / 2, canvas / 2]) - matrix @ np.array([3.5, 3.5])
    alpha = cv2.warpAffine(
        (ink / 16).astype(np.float32), np.column_stack([matrix, offset]), (canvas, canvas), flags=cv2.INTER_CUBIC
    )
    alpha = np.clip(alpha, 0, 1) ** rng.uniform(0.6, 1.2)
    rows, columns = np.where(alpha > _INK_EDGE)
    return np.asarray(alpha[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], np.float32)


def _free_place(
    size_hw: tuple[int, ...], boxes: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner where the digit touches no other one, or None when twenty tries found none."""
    height, width = size_hw
    if height >= SCENE_SIZE or width >= SCENE_SIZE:
        return None
    for _ in range(20):
        x, y = int(rng.integers(SCENE_SIZE - width)), int(rng.integers(SCENE_SIZE - height))
        if all(x + width < x1 or x2 < x or y + height < y1 or y2 < y for x1, y1, x2, y2 in boxes):
            return x, y
    return None


def _background(rng: np.random.Generator) -> NDArray[np.float32]:
    """Paper, wall or board: a colour gradient with coarse blotches, sometimes ruled lines and patches."""
    corners = np.clip(rng.uniform(0, 255) + rng.normal(0, 25, (2, 2, 3)), 0, 255).astype(np.float32)
    image = np.asarray(cv2.resize(corners, (SCENE_SIZE, SCENE_SIZE), interpolation=cv2.INTER_LINEAR), np.float32)
    cells = int(rng.integers(3, 24))
    blotches = rng.normal(0, rng.uniform(0, 14), (cells, cells, 1)).astype(np.float32)
    large = cv2.resize(blotches, (SCENE_SIZE, SCENE_SIZE), interpolation=cv2.INTER_CUBIC)
    image += np.asarray(large, np.float32)[..., None]
    mean = image.mean(axis=(0, 1))
    for _ in range(rng.integers(0, 4)):  # patches with straight edges: signs, cards, windows
        x, y, width, height = (int(v) for v in rng.integers(0, SCENE_SIZE, 4))
        shade = tuple(float(v) for v in mean + rng.normal(0, 30, 3))
        cv2.rectangle(image, (x, y), (x + width, y + height), shade, cv2.FILLED)
    if rng.random() < 0.3:
        step, shade = (
            int(rng.integers(14, 60)),
            tuple(float(v) for v in mean + rng.choice([-1, 1]) * rng.uniform(15, 50)),
        )
        for position in range(int(rng.integers(step)), SCENE_SIZE, step):
            cv2.line(image, (0, position), (SCENE_SIZE, position), shade, int(rng.integers(1, 3)))
            if step > 24:
                cv2.line(image, (position, 0), (position, SCENE_SIZE), shade, 1)
    return image


def _contrasting_colour(behind: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """An ink colour, darker or lighter than what is behind it by at least `_MIN_CONTRAST` of 255."""
    room_dark, room_light = float(behind.mean()), 255 - float(behind.mean())
    dark = room_dark > _MIN_CONTRAST and (room_light <= _MIN_CONTRAST or rng.random() < 0.5)
    room = room_dark if dark else room_light
    change = rng.uniform(_MIN_CONTRAST, max(room, _MIN_CONTRAST + 1)) * (-1 if dark else 1)
    return np.asarray(np.clip(behind.mean() + change + rng.normal(0, 20, 3), 0, 255), np.float32)


def _camera(image: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """What a camera adds: blur, noise and JPEG."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6)), np.float32)
    noise = rng.normal(0, rng.uniform(0, 10), image.shape)
    pixels: Image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return pixels
