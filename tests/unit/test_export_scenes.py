"""The scenes that the shipped YOLO models are trained on: their truth fits what is drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from export.examples.scenes import MAX_TILT, Scene, compose, compose_single
from export.examples.train import TRAININGS

NETWORKS = Path(__file__).parents[2] / "export" / "examples" / "networks"
EDGE = np.array([0.5, 0.5, -0.5, -0.5])  # from the edge of a pixel to its middle
HAS_UPPER_END = {1, 2, 3, 4, 5, 6, 7}
HAS_LOWER_END = {1, 2, 3, 4, 5, 7, 9}


@pytest.fixture(scope="module", params=[12.0, MAX_TILT])
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    """With digits that are turned a little, and much."""
    return list(compose("held-out", count=20, seed=7, max_turn=request.param))


def test_the_same_seed_gives_the_same_scenes(scenes: list[Scene]) -> None:
    again, other = (next(compose("held-out", count=1, seed=seed)) for seed in (7, 8))
    assert np.array_equal(next(compose("held-out", count=1, seed=7)).image_hwc, again.image_hwc)
    assert not np.array_equal(other.image_hwc, again.image_hwc)
    assert sum(len(scene.class_ids) for scene in scenes) > len(scenes)


def test_an_outline_fills_its_box(scenes: list[Scene]) -> None:
    for scene in scenes:
        for outline, box in zip(scene.outlines, scene.boxes_xyxy, strict=True):
            assert [*outline.min(axis=0), *outline.max(axis=0)] == pytest.approx(box + EDGE)


def test_turned_corners_are_a_rectangle_close_around_the_outline(scenes: list[Scene]) -> None:
    for scene in scenes:
        for outline, corners in zip(scene.outlines, scene.corners, strict=True):
            sides = np.roll(corners, -1, axis=0) - corners
            assert sides[0] + sides[2] == pytest.approx(np.zeros(2), abs=1e-3)
            assert sides[0] @ sides[1] == pytest.approx(0, abs=0.1)
            normals = sides / np.linalg.norm(sides, axis=1, keepdims=True)
            along = (outline[:, None] - corners) @ normals.T  # [point, corner, side]
            inside = along[:, range(4), range(4)].min(axis=0)
            # The outline goes through the middle of the pixels at the edge: within their half diagonal.
            assert inside.min() >= 0
            assert inside.max() <= np.sqrt(0.5)


def test_stroke_ends_are_where_a_digit_has_them_and_in_its_outline(scenes: list[Scene]) -> None:
    for scene in scenes:
        for digit, outline, ends, box in zip(
            scene.class_ids, scene.outlines, scene.ends, scene.boxes_xyxy, strict=True
        ):
            assert [bool(v) for v in ends[:, 2]] == [digit in HAS_UPPER_END, digit in HAS_LOWER_END]
            for x, y, visible in ends:
                distance = cv2.pointPolygonTest(outline, (float(x), float(y)), measureDist=True)
                assert not visible or distance > -0.05 * max(box[2:] - box[:2])


def test_single_digits_come_in_long_images_with_others_beside_the_square() -> None:
    images = list(compose_single("held-out", count=40, seed=1))
    again = list(compose_single("held-out", count=40, seed=1))
    assert all(np.array_equal(a, b) and m == n for (a, m), (b, n) in zip(images, again, strict=True))
    shapes = {image.shape for image, _ in images}
    assert len(shapes) > 20
    assert {height > width for height, width, _ in shapes} == {True, False}
    assert {digit for _, digit in images} == set(range(10))


def test_each_training_has_a_network() -> None:
    named = {training.network for training in TRAININGS.values()}
    assert {path.name for path in NETWORKS.iterdir()} == named - {"yolov8n.yaml"}
