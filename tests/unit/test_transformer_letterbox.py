"""Letterboxing: sizes, padding and the way back."""

import numpy as np
import pytest

from transformer.imaging.letterbox import PADDING_GREY, fit, letterbox, unletterbox


@pytest.mark.parametrize(
    ("image_wh", "target_wh", "stride", "resized_wh", "pad_xy", "input_wh"),
    [
        ((810, 1080), (640, 640), 32, (480, 640), (0, 0), (480, 640)),
        ((810, 1080), (640, 640), None, (480, 640), (80, 0), (640, 640)),
        ((1280, 720), (640, 640), 32, (640, 360), (0, 12), (640, 384)),
        ((1280, 720), (640, 640), None, (640, 360), (0, 140), (640, 640)),
        ((640, 640), (640, 640), 32, (640, 640), (0, 0), (640, 640)),
        ((100, 50), (640, 640), 32, (640, 320), (0, 0), (640, 320)),  # small images are enlarged
        ((1, 8000), (640, 640), 32, (1, 640), (15, 0), (32, 640)),  # never thinner than a pixel
        ((1, 1), (320, 320), 32, (320, 320), (0, 0), (320, 320)),
        ((333, 500), (640, 640), 32, (426, 640), (11, 0), (448, 640)),
        ((500, 333), (640, 640), None, (640, 426), (0, 107), (640, 640)),
    ],
)
def test_fit_places_an_image(
    image_wh: tuple[int, int],
    target_wh: tuple[int, int],
    stride: int | None,
    resized_wh: tuple[int, int],
    pad_xy: tuple[int, int],
    input_wh: tuple[int, int],
) -> None:
    plan = fit(image_wh, target_wh, stride=stride)
    assert (plan.resized_wh, plan.pad_xy, plan.input_wh) == (resized_wh, pad_xy, input_wh)


def test_letterbox_pads_with_grey_around_the_image() -> None:
    image = np.full((30, 64, 3), 255, np.uint8)
    boxed = letterbox(image, fit((64, 30), (64, 64), stride=None))
    assert boxed.shape == (64, 64, 3)
    assert (boxed[17:47] == 255).all()
    assert (boxed[:17] == PADDING_GREY).all()
    assert (boxed[47:] == PADDING_GREY).all()


def test_letterbox_of_a_fitting_image_is_the_image() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert letterbox(image, fit((64, 64), (64, 64), stride=32)) is image


@pytest.mark.parametrize("image_wh", [(810, 1080), (1280, 720), (333, 500), (17, 23)])
@pytest.mark.parametrize("stride", [32, None])
def test_unletterbox_undoes_the_placement(image_wh: tuple[int, int], stride: int | None) -> None:
    plan = fit(image_wh, (640, 640), stride=stride)
    original = np.array([[0, 0, *image_wh], [1, 2, 9, 11]], np.float32)
    scale = np.array(plan.resized_wh, np.float32) / image_wh
    inside = (original.reshape(-1, 2, 2) * scale + plan.pad_xy).reshape(-1, 4).astype(np.float32)
    np.testing.assert_allclose(unletterbox(inside, plan), original, atol=1e-3)


def test_unletterbox_clips_to_the_image() -> None:
    plan = fit((100, 50), (640, 640), stride=None)
    boxes = unletterbox(np.array([[-50, -50, 9999, 9999]], np.float32), plan)
    assert boxes.tolist() == [[0, 0, 100, 50]]


def test_unletterbox_of_no_boxes_is_no_boxes() -> None:
    assert unletterbox(np.empty((0, 4), np.float32), fit((10, 10), (32, 32), stride=32)).shape == (0, 4)
