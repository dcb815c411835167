"""Masks: pixel for pixel those of Ultralytics, and their forms."""

import tracemalloc
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from transformer.imaging.letterbox import fit
from transformer.imaging.masks import Bits, Mask, MaskSampler, find_outlines, mask_iou

# What decodes RLE here, and only here, was written for NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE = np.ones(1, np.float32)


def sample(logits: Any, image_wh: tuple[int, int], box: Sequence[float], *, outlines: bool = True) -> Mask | None:
    """The mask of one prototype, whose input has the image's proportions."""
    prototypes = np.asarray(logits, np.float32)[None]
    height, width = prototypes.shape[1:]
    plan = fit(image_wh, (width * 4, height * 4), stride=None)
    return MaskSampler(prototypes, plan).mask(ONE, np.array(box, np.float32), outlines=outlines)


def decode(mask: Mask) -> NDArray[np.uint8]:
    return np.ascontiguousarray(coco.decode(mask.rle()), np.uint8)


def encode(bits: Bits) -> str:
    return str(coco.encode(np.asfortranarray(bits))["counts"].decode())


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.float32)


@pytest.mark.parametrize(("width", "height"), [(160, 160), (640, 640), (1280, 1280), (2001, 2001), (39, 39), (7, 7)])
def test_mask_is_what_opencv_enlarges(width: int, height: int) -> None:
    logits = smooth(40, 40)
    mask = sample(logits, (width, height), [0, 0, width, height])
    assert mask
    expected = np.asarray(cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0, np.uint8)
    apart = int((decode(mask) != expected).sum())
    assert apart <= width * height // 100_000  # logits of almost 0


@pytest.mark.parametrize("box", [[0, 0, 100, 80], [10.2, 20.7, 30.0, 41.5], [98.1, 0, 100, 80], [50, 50, 50.5, 50.5]])
def test_mask_has_the_pixels_from_the_first_corner_up_to_the_second(box: list[float]) -> None:
    mask = sample(np.ones((20, 25)), (100, 80), box)
    y, x = np.mgrid[:80, :100]
    expected = ((x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])).astype(np.uint8)
    assert mask
    assert np.array_equal(decode(mask), expected)
    assert mask.rle() == {"size": [80, 100], "counts": encode(expected)}


@pytest.mark.parametrize("box", [[50.2, 50.2, 50.8, 50.8], [30, 30, 30, 60], [30, 30, 20, 60], [np.nan, 0, 100, 80]])
def test_box_without_pixels_has_no_mask(box: list[float]) -> None:
    assert sample(np.ones((20, 25)), (100, 80), box) is None


def test_box_without_positive_logits_has_no_mask() -> None:
    logits = np.ones((20, 25))
    logits[:, 10:] = -1
    assert sample(logits, (100, 80), [60, 0, 100, 80]) is None
    assert sample(np.zeros((20, 25)), (100, 80), [0, 0, 100, 80]) is None  # above 0, not at


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.floats(-1, 1))
def test_forms_of_a_mask_are_those_of_its_pixels(seed: int, image_wh: tuple[int, int], offset: float) -> None:
    rng = np.random.default_rng(seed)
    width, height = image_wh
    corners = np.sort(rng.uniform(0, 1, (2, 2)) * [width, height], axis=0)
    box = corners.reshape(-1) if seed % 3 else np.array([0, 0, width, height])
    mask = sample(rng.normal(size=(5, 7)) + offset, image_wh, box.tolist())
    if mask is None:
        return
    bits = decode(mask)
    assert bits.shape == (height, width)
    assert mask.rle()["counts"] == encode(bits)
    crop, (x, y) = mask.crop()
    rows, columns = np.nonzero(bits)
    assert (x, y) == (columns.min(), rows.min())
    assert np.array_equal(crop, bits[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    filled = np.zeros_like(bits)
    cv2.drawContours(filled, mask.outlines, -1, 1, cv2.FILLED)
    assert filled[bits > 0].all()
    contours, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    assert len(contours) == len(mask.outlines)
    assert {tuple(map(tuple, part.reshape(-1, 2))) for part in contours if len(part) >= 3} == {
        tuple(map(tuple, part)) for part in mask.outlines if len(np.unique(part, axis=0)) >= 3
    }


def test_parts_are_apart_and_the_largest_is_first() -> None:
    bits = np.zeros((20, 40), np.uint8)
    bits[2:4, 1:3] = bits[5:15, 10:30] = bits[18, 35] = 1
    bits[8:10, 15:20] = 0  # a hole
    parts = find_outlines(bits, (100, 200))
    assert [np.unique(part, axis=0).tolist() for part in parts] == [
        [[110, 205], [110, 214], [129, 205], [129, 214]],
        [[101, 202], [101, 203], [102, 202], [102, 203]],
        [[135, 218]],
    ]
    assert all(len(part) >= 3 for part in parts)


@pytest.mark.parametrize("points", [[(3, 3)], [(3, 3), (4, 3)], [(3, 3), (4, 3), (5, 3)], [(3, 3), (4, 4)]])
def test_outline_of_a_few_pixels_fills_them(points: list[tuple[int, int]]) -> None:
    bits = np.zeros((8, 8), np.uint8)
    for x, y in points:
        bits[y, x] = 1
    (outline,) = find_outlines(bits, (0, 0))
    assert len(outline) >= 3
    filled = np.zeros_like(bits)
    cv2.fillPoly(filled, [outline], 1)
    assert np.array_equal(filled, bits)


def test_iou_of_masks() -> None:
    left, whole = sample(np.ones((5, 5)), (20, 20), [0, 0, 10, 20]), sample(np.ones((5, 5)), (20, 20), [0, 0, 20, 20])
    assert left
    assert whole
    np.testing.assert_allclose(mask_iou([left, left, whole], [left, whole, whole]), [1, 0.5, 1])
    assert mask_iou([], []).shape == (0,)


@pytest.mark.parametrize("image_wh", [(8660, 5773), (50_000, 1000), (1000, 50_000)])
def test_mask_of_a_large_image_takes_little_more_memory_than_its_pixels(image_wh: tuple[int, int]) -> None:
    width, height = image_wh
    logits = smooth(max(height * 160 // max(image_wh), 1), max(width * 160 // max(image_wh), 1))
    tracemalloc.start()
    try:
        mask = sample(logits, image_wh, [0, 0, width, height], outlines=False)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mask
    assert most < 2.5 * width * height
