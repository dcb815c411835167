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
MAX_TILT = 60.0  # degrees by which the digits of `tilted-digits` are turned at most
ENDS = ("upper end", "lower end")  # of a digit's stroke
_SPLIT_SEED = 0
_INK_EDGE = 0.2  # a pixel with less ink than this is outside the digit's box
_MIN_CONTRAST = 60.0
_STROKE = 0.5  # a pixel with less ink than this is outside the stroke
# Where a digit's stroke ends, as the direction (x, y; down is positive) from its middle. Closed: 0, 8, one end of 6, 9.
_UPPER_ENDS = {1: (0, -1), 2: (-1, 0), 3: (-1, 0), 4: (0, -1), 5: (1, 0), 6: (0.5, -1), 7: (-1, 0)}
_LOWER_ENDS = {1: (0, 1), 2: (1, 0), 3: (-1, 0), 4: (0, 1), 5: (-1, 0), 7: (0, 1), 9: (-0.5, 1)}


@dataclass(frozen=True)
class Scene:
    """An image and its digits.

    Attributes:
        image_hwc: RGB, `(SCENE_SIZE, SCENE_SIZE, 3)`.
        boxes_xyxy: `(N, 4)`, pixels, tight around the ink.
        class_ids: `(N,)`, the digits 0 to 9.
        outlines: N times `(points, 2)`, pixels: the outer edge of the ink, several parts joined by a line.
        corners: `(N, 4, 2)`, pixels: of the smallest box that is turned as the digit is.
        ends: `(N, 2, 3)`: x and y in pixels of the stroke's upper and lower end, and 2, or zeros where there is none.
    """

    image_hwc: Image
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    outlines: list[NDArray[np.float32]]
    corners: NDArray[np.float32]
    ends: NDArray[np.float32]


@dataclass(frozen=True)
class _Digit:
    """One drawn digit: opacity `(h, w)` in 0 to 1, and the truth of `Scene`, from the opacity's left upper corner."""

    alpha: NDArray[np.float32]
    outline: NDArray[np.float32]
    corners: NDArray[np.float32]
    ends: NDArray[np.float32]


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


def compose(split: Split, *, count: int, seed: int, max_turn: float = 12) -> Iterator[Scene]:
    """Scenes with one to eight digits of `split`; the same `seed` gives the same scenes.

    Args:
        split: whose digits.
        count: of scenes.
        seed: of all that is drawn by chance.
        max_turn: degrees by which a digit is turned at most, to either side. Below 90, so that a 6 is not a 9.
    """
    inks, labels = load_split(split)
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    for _ in range(count):
        yield _scene(inks, labels, rng, max_turn)


def compose_single(split: Split, *, count: int, seed: int) -> Iterator[tuple[Image, int]]:
    """Images `(H, W, 3)`, RGB, of sides from 64 to 256 pixels, for a classifier, and the digit of each.

    The digit is in the square in the middle. Where an image is long, other digits are beside the square, so that a
    classifier that sees the whole image is wrong.
    """
    inks, labels = load_split(split)
    rng = np.random.default_rng([seed, 2 if split == "train" else 3])
    for _ in range(count):
        yield _single(inks, labels, rng)


def _scene(inks: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator, max_turn: float) -> Scene:
    image = _background((SCENE_SIZE, SCENE_SIZE), rng)
    boxes: list[tuple[int, int, int, int]] = []
    class_ids: list[int] = []
    digits: list[_Digit] = []
    for index in rng.integers(len(inks), size=rng.integers(1, 9)):
        side = float(np.exp(rng.uniform(np.log(32), np.log(150))))
        digit = _render(inks[index], int(labels[index]), side, max_turn, rng)
        place = _free_place(digit.alpha.shape, boxes, rng)
        if place is None:
            continue
        boxes.append(_paint(image, digit.alpha, place, rng))
        class_ids.append(int(labels[index]))
        digits.append(digit)
    offsets = [np.array([x, y], np.float32) for x, y, _, _ in boxes]
    ends = [d.ends + np.append(o, 0) * (d.ends[:, 2:] > 0) for d, o in zip(digits, offsets, strict=True)]
    return Scene(
        _camera(image, rng),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_ids, np.int64),
        [digit.outline + offset for digit, offset in zip(digits, offsets, strict=True)],
        np.array([d.corners + o for d, o in zip(digits, offsets, strict=True)], np.float32).reshape(-1, 4, 2),
        np.array(ends, np.float32).reshape(-1, 2, 3),
    )


def _single(inks: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator) -> tuple[Image, int]:
    short = int(rng.integers(64, 161))
    long = int(short * rng.uniform(1, 1.6)) if rng.random() < 0.8 else short
    is_wide = bool(rng.random() < 0.5)
    size_wh = np.array([long, short] if is_wide else [short, long])
    image = _background((int(size_wh[1]), int(size_wh[0])), rng)
    index = int(rng.integers(len(inks)))
    alpha = _render(inks[index], int(labels[index]), short * rng.uniform(0.55, 0.9), 12, rng).alpha
    alpha = alpha[:short, :short]
    room = short - np.array(alpha.shape[::-1])
    corner = (size_wh - short) // 2 + room * rng.uniform(0.25, 0.75, 2)
    _paint(image, alpha, (int(corner[0]), int(corner[1])), rng)
    beside = (long - short) // 2  # pixels at either end that the square in the middle leaves out
    for start in (0, long - beside) if beside > 12 else ():
        other = int(rng.integers(len(inks)))
        drawn = _render(inks[other], int(labels[other]), beside * rng.uniform(0.7, 1.0), 12, rng).alpha
        # A tall image is a wide one, seen with its axes swapped.
        _paint_at_end(image if is_wide else image.swapaxes(0, 1), drawn if is_wide else drawn.T, (start, beside), rng)
    return _camera(image, rng), int(labels[index])


def _paint_at_end(
    image: NDArray[np.float32], alpha: NDArray[np.float32], columns: tuple[int, int], rng: np.random.Generator
) -> None:
    """Draw a digit, as far as it fits, within columns of a wide image, given by the first and their number."""
    start, count = columns
    alpha = alpha[:, :count]
    height, width = alpha.shape
    x = start + int(rng.integers(count - width + 1))
    _paint(image, alpha, (x, int(rng.integers(len(image) - height + 1))), rng)


def _paint(
    image: NDArray[np.float32], alpha: NDArray[np.float32], place: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a digit with its left upper corner at `place`, and return its box xyxy."""
    x, y = place
    height, width = alpha.shape
    region = image[y : y + height, x : x + width]
    colour = _contrasting_colour(region.mean(axis=(0, 1)), rng)
    region += alpha[..., None] * (colour - region)
    return x, y, x + width, y + height


def _render(ink: NDArray[np.float64], label: int, side: float, max_turn: float, rng: np.random.Generator) -> _Digit:
    """One digit, enlarged to about `side` pixels, turned and slanted, cropped to its ink."""
    scale = side / 8
    angle = np.deg2rad(rng.uniform(-max_turn, max_turn))
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
    corner = np.array([columns.min(), rows.min()])
    cut = np.asarray(alpha[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], np.float32)
    ends = _stroke_ends(ink, label)
    has = ends[:, 2:] > 0
    ends[:, :2] = np.where(has, ends[:, :2] @ matrix.T + offset - corner + 0.5, 0)
    return _Digit(cut, _outline(cut), _turned_box(np.column_stack([columns, rows]) - corner, turn), ends)


def _outline(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outer edge of the ink, `(points, 2)`; several parts are joined by a line there and back."""
    mask = (alpha > _INK_EDGE).astype(np.uint8)
    parts, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rings = [part[:, 0] for part in parts if len(part) > 2]
    # A pixel is a square: its middle is half a pixel from the corner that its index names.
    return np.concatenate([np.vstack([ring, ring[:1]]) for ring in rings]).astype(np.float32) + 0.5


def _turned_box(ink_xy: NDArray[np.int64], turn: NDArray[np.float64]) -> NDArray[np.float32]:
    """Corners `(4, 2)` of the smallest box around the pixels of ink that is turned by the rotation `turn`."""
    corners = ink_xy[:, None] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    upright = corners.reshape(-1, 2) @ turn  # the inverse of `turn`, which is its transpose, on column vectors
    (x1, y1), (x2, y2) = upright.min(axis=0), upright.max(axis=0)
    return np.asarray(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) @ turn.T, np.float32)


def _stroke_ends(ink: NDArray[np.float64], label: int) -> NDArray[np.float32]:
    """Upper and lower end of a digit's stroke, `(2, 3)`: x, y in the 8x8 pixels of `ink`, and 2; zeros for no end.

    An end is where the ink of the upper (lower) half goes furthest in the direction in which that digit's stroke ends.
    """
    zoom = 8
    fine = cv2.resize((ink / ink.max()).astype(np.float32), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    points = (np.argwhere(fine > _STROKE)[:, ::-1] + 0.5) / zoom - 0.5
    middle = (points[:, 1].min() + points[:, 1].max()) / 2
    ends = np.zeros((2, 3), np.float32)
    for end, (directions, side) in enumerate(((_UPPER_ENDS, -1), (_LOWER_ENDS, 1))):
        if label in directions:
            half = points[(points[:, 1] - middle) * side >= 0]
            ends[end] = (*half[np.argmax(half @ np.array(directions[label]))], 2)
    return ends


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


def _background(size_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Paper, wall or board: a colour gradient with coarse blotches, sometimes ruled lines and patches."""
    height, width = size_hw
    size = max(size_hw)
    corners = np.clip(rng.uniform(0, 255) + rng.normal(0, 25, (2, 2, 3)), 0, 255).astype(np.float32)
    image = np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    cells = int(rng.integers(3, 24))
    blotches = rng.normal(0, rng.uniform(0, 14), (cells, cells, 1)).astype(np.float32)
    large = cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    image += np.asarray(large, np.float32)[..., None]
    mean = image.mean(axis=(0, 1))
    for _ in range(rng.integers(0, 4)):  # patches with straight edges: signs, cards, windows
        x, y, w, h = (int(v) for v in rng.integers(0, size, 4))
        shade = tuple(float(v) for v in mean + rng.normal(0, 30, 3))
        cv2.rectangle(image, (x, y), (x + w, y + h), shade, cv2.FILLED)
    if rng.random() < 0.3:
        step, shade = (
            int(rng.integers(14, 60)),
            tuple(float(v) for v in mean + rng.choice([-1, 1]) * rng.uniform(15, 50)),
        )
        for position in range(int(rng.integers(step)), size, step):
            cv2.line(image, (0, position), (size, position), shade, int(rng.integers(1, 3)))
            if step > 24:
                cv2.line(image, (position, 0), (position, size), shade, 1)
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
