"""The shipped networks as `/predict` serves them, against Ultralytics' own `predict` with the file of each."""

import io
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from ultralytics import YOLO

from export.examples.scenes import MAX_TILT, compose, compose_single
from tests.support.found import Found, differences, read_response, read_result
from tests.support.stack import ROOT, Stack

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    # supervision decodes RLE with what was written for NumPy 1.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

Pixels = NDArray[np.uint8]
BOXES = {"boxes": 0.01, "scores": 1e-4}
# Each network's task, parameters of its requests, and the figures, of which a response has three decimals.
MODELS: dict[str, tuple[str, dict[str, str], dict[str, float]]] = {
    "digit-finder": ("detect", {}, BOXES),
    "digit-outlines": ("segment", {"mask": "rle"}, {**BOXES, "masks": 0.01}),
    "digit-strokes": ("pose", {}, {**BOXES, "keypoints": 0.01, "visibility": 1e-4}),
    "tilted-digits": ("obb", {}, {**BOXES, "corners": 0.01, "angles": 1e-4}),
}
BATCH = 8
# How images are sent, and Ultralytics' settings with the same of a request.
WAYS: dict[str, tuple[bool, dict[str, float], dict[str, float]]] = {
    "single": (False, {}, {}),
    "batched": (True, {}, {}),
    "weak ones": (False, {"conf": 0.02, "iou": 0.45}, {"confidence": 0.02, "iou": 0.45}),
}


@cache
def draw_scenes(max_turn: float) -> list[Pixels]:
    """30 scenes of digits that no network was trained on, RGB: ten as they are, ten enlarged, ten of their middle."""
    scenes = [scene.image_hwc for scene in compose("held-out", count=30, seed=52, max_turn=max_turn)]
    enlarged = [np.asarray(cv2.resize(scene, (630, 470), interpolation=cv2.INTER_CUBIC), np.uint8) for scene in scenes]
    return [*scenes[:10], *enlarged[10:20], *(np.ascontiguousarray(scene[:, 50:250]) for scene in scenes[20:])]


def scenes_for(model: str) -> list[Pixels]:
    return draw_scenes(MAX_TILT if model == "tilted-digits" else 12)


def batches(images: Sequence[Pixels]) -> list[list[Pixels]]:
    """Images of one size: of several sizes Ultralytics makes squares, this server rectangles."""
    by_size = [list(group) for _, group in itertools.groupby(images, key=np.shape)]
    return [group[start : start + BATCH] for group in by_size for start in range(0, len(group), BATCH)]


def png(image: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def post(stack: Stack, model: str, images: Sequence[Pixels], **parameters: Any) -> list[Any]:
    files = [("image", png(image)) for image in images]
    response = stack.http.post(f"/predict/{model}", params=parameters, files=files).raise_for_status().json()
    return response if len(images) > 1 else [response]


def predict(model: str, task: str, images: Sequence[Sequence[Pixels]], **settings: Any) -> list[Any]:
    """Ultralytics' results for images that are given to it together."""
    yolo = YOLO(ROOT / "export" / "weights" / f"{model}.onnx", task=task)
    bgr = [[np.ascontiguousarray(image[..., ::-1]) for image in group] for group in images]
    return [found for group in bgr for found in yolo.predict(group, batch=len(group), verbose=False, **settings)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_served_is_what_predict_finds(stack: Stack, model: str, way: str) -> None:
    task, parameters, limits = MODELS[model]
    is_batched, settings, same = WAYS[way]
    images = scenes_for(model)
    groups = batches(images) if is_batched else [[image] for image in images]
    results = predict(model, task, groups, imgsz=320, retina_masks=True, **settings)
    expected: list[Found] = list(map(read_result, results))
    found = [read_response(each) for group in groups for each in post(stack, model, group, **parameters, **same)]
    assert sum(len(each["classes"]) for each in expected) > 60
    figures = differences(found, expected)
    print(f"{model}, {way}: {sum(len(each['classes']) for each in found)} objects, {figures}")
    assert figures.keys() == limits.keys()
    # A pixel whose logit is about 0 may go either way: of the smallest weak object it is 0.6 %.
    room = 2 if way == "weak ones" else 1
    assert all(figures[name] < room * limit for name, limit in limits.items()), figures


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batched"])
def test_probabilities_that_are_served_are_those_of_predict(stack: Stack, batched: bool) -> None:
    images = [image for image, _ in compose_single("held-out", count=30, seed=52)]
    groups = [images[start : start + BATCH] for start in range(0, 30, BATCH)] if batched else [[i] for i in images]
    results = predict("digit-classes", "classify", groups, imgsz=64)
    expected = np.stack([result.probs.data.numpy() for result in results])
    responses = [each for group in groups for each in post(stack, "digit-classes", group, top_k=10)]
    found = [sorted(each["predictions"], key=lambda one: int(one["class_id"])) for each in responses]
    served = np.array([[one["confidence"] for one in each] for each in found])
    print(f"digit-classes, {'batched' if batched else 'single'}: {np.abs(served - expected).max()}")
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-4)
    assert [each["top"] for each in responses] == [str(row.argmax()) for row in expected]
