"""Crops of rotated boxes."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from transformer.imaging.crops import cut, cut_rotated
from transformer.tasks.obb import OrientedBoxes

WIDTH, HEIGHT = 60, 36


def pattern() -> NDArray[Any]:
    """Smooth, and different from each of its turns."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.dstack([x * 4, y * 7, (x + y) * 2 + 20]).astype(np.uint8)


def turned(angle: float) -> NDArray[np.uint8]:
    """The pattern in the middle of a grey image, turned clockwise."""
    centre = np.array([100.0, 80.0])
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([axes, centre - 0.5 - axes @ np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])])
    canvas = np.full((160, 200, 3), 90, np.uint8)
    cv2.warpAffine(pattern(), matrix, (200, 160), dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
    return canvas


@pytest.mark.parametrize("degrees", [0, 10, 44, -10, -44, 30])
@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2, 3])
def test_a_rotated_box_is_turned_upright_however_its_angle_is_written(degrees: float, turns: int) -> None:
    angle = np.deg2rad(degrees) + turns * np.pi / 2
    size = (HEIGHT, WIDTH) if turns % 2 else (WIDTH, HEIGHT)
    crop = cut_rotated(turned(np.deg2rad(degrees)), np.array([100, 80, *size, angle], np.float32))
    assert crop.shape == (HEIGHT, WIDTH, 3)
    inner = slice(2, -2), slice(2, -2)
    assert np.abs(crop[inner].astype(int) - pattern()[inner]).max() <= 6


def test_an_oriented_box_is_cropped_turned() -> None:
    box = np.array([[100, 80, WIDTH, HEIGHT, 0.3]], np.float32)
    detected = {"scores": np.ones(1, np.float32), "class_ids": np.zeros(1, np.int64)}
    boxes = OrientedBoxes.within((200, 160), box, **detected)
    assert boxes.crop(turned(0.3), 0).shape == (HEIGHT, WIDTH, 3)
    assert boxes.object_boxes is boxes.boxes_xyxy


def test_beyond_45_degrees_the_other_side_is_below() -> None:
    crop = cut_rotated(turned(np.deg2rad(60)), np.array([100, 80, WIDTH, HEIGHT, np.deg2rad(60)], np.float32))
    inner = slice(2, -2), slice(2, -2)
    assert np.abs(crop[inner].astype(int) - np.rot90(pattern(), -1)[inner]).max() <= 6


def test_a_box_that_is_upright_has_the_pixels_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    box = np.array([10, 20, 40, 44], np.float32)
    np.testing.assert_array_equal(cut_rotated(image, np.array([25, 32, 30, 24, 0], np.float32)), cut(image, box))


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([500, 500, 20, 20, 0.3], 0),  # outside
        ([30, 30, 0.3, 20, 0.3], 0),
        ([float("nan")] * 5, 0),
        ([30, 30, float("inf"), 20, 0.3], None),
        ([5, 5, 40, 10, 0.0], 40 * 10 * 3),  # in part outside
        ([35, 25, 1e9, 1e9, 0.3], 86 * 86 * 3),  # no larger than the image's diagonal
    ],
)
def test_any_box_is_cut(box: list[float], size: int | None) -> None:
    crop = cut_rotated(np.zeros((50, 70, 3), np.uint8), np.array(box, np.float32))
    assert crop.size <= 86 * 86 * 3
    assert size is None or crop.size == size


def test_an_image_that_is_too_long_to_be_rotated_is_cut_upright() -> None:
    image = np.zeros((40, 40_000, 3), np.uint8)
    assert cut_rotated(image, np.array([20_000, 20, 40_000, 10, 0.0005], np.float32)).shape[1] == 40_000
    assert cut_rotated(image, np.array([39_000, 20, 30, 10, 0.1], np.float32)).shape == (10, 30, 3)
