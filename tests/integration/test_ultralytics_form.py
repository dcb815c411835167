"""`/predict` with `format=ultralytics` against Ultralytics' own `Results.summary()` of the same networks."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_of
from tests.support.stack import ROOT, Stack

EXPECTED: dict[str, dict[str, Any]] = json.loads((ROOT / "tests" / "reference" / "summaries.json").read_text())
IMAGES = ROOT / "loadtest" / "pictures"
PIXELS, SCORE = 0.5, 2e-3  # decoders of JPEG differ by a grey level


def summary(stack: Stack, model: str, image: str, query: str = "") -> Any:
    files = {"image": (IMAGES / image).read_bytes()}
    response = stack.http.post(f"/predict/{model}?format=ultralytics{query}", files=files)
    assert response.status_code == 200, response.text
    return response.json()


def fill(segments: dict[str, list[float]]) -> NDArray[np.uint8]:
    """The pixels of an outline."""
    mask = np.zeros((1000, 1000), np.uint8)
    points = np.array([segments["x"], segments["y"]]).T.round().astype(np.int32)
    return np.asarray(cv2.fillPoly(mask, [points], 1), np.uint8)


@pytest.mark.parametrize("model", EXPECTED)
def test_response_is_the_summary_of_ultralytics(stack: Stack, model: str) -> None:
    expected = EXPECTED[model]["summary"]
    found = summary(stack, model, EXPECTED[model]["image"])
    assert [(each["name"], each["class"]) for each in found] == [(each["name"], each["class"]) for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=SCORE)
        if "box" in theirs:
            assert ours["box"] == pytest.approx(theirs["box"], abs=PIXELS)
        if "segments" in theirs:
            mine, other = fill(ours["segments"]), fill(theirs["segments"])
            assert (mine & other).sum() / (mine | other).sum() > 0.95
        if "keypoints" in theirs:
            assert list(ours["keypoints"]) == list(theirs["keypoints"])
            for axis in "xy":
                assert ours["keypoints"][axis] == pytest.approx(theirs["keypoints"][axis], abs=PIXELS)
            assert ours["keypoints"]["visible"] == pytest.approx(theirs["keypoints"]["visible"], abs=0.02)


def test_masks_may_be_left_out(stack: Stack) -> None:
    assert {"segments"} & {name for each in summary(stack, "digit-outlines", "digits.jpg") for name in each}
    bare = summary(stack, "digit-outlines", "digits.jpg", "&mask=none")
    assert {tuple(each) for each in bare} == {("name", "class", "confidence", "box")}


def test_several_images_are_a_list_of_lists(stack: Stack) -> None:
    files = [("image", (IMAGES / "digits.jpg").read_bytes())] * 2
    both = stack.http.post("/predict/digit-finder?format=ultralytics", files=files).json()
    assert both == [summary(stack, "digit-finder", "digits.jpg")] * 2


def test_parameters_hold_and_a_limit_is_reported(stack: Stack) -> None:
    files = {"image": (IMAGES / "digits.jpg").read_bytes()}
    response = stack.http.post("/predict/digit-finder?format=ultralytics&max_detections=1&classes=7", files=files)
    assert [each["name"] for each in response.json()] == ["7"]
    assert response.headers["X-Limits-Reached"] == '[{"max_detections":1}]'


def test_form_may_be_a_field_as_other_parameters_may(stack: Stack) -> None:
    files = {"image": (IMAGES / "digits.jpg").read_bytes()}
    sent = stack.http.post("/predict/digit-finder", files=files, data={"format": "ultralytics"})
    assert sent.json() == summary(stack, "digit-finder", "digits.jpg")
    rejected = stack.http.post("/predict/digit-finder", files=files, data={"format": "coco"})
    assert code_of(rejected) is ErrorCode.INVALID_REQUEST


def test_annotated_image_has_no_form_of_json(stack: Stack) -> None:
    """And so takes what that form has no place for."""
    files = {"image": (IMAGES / "digits.jpg").read_bytes()}
    sent = stack.http.post(
        "/predict/digit-finder?format=ultralytics&then=digits", files=files, headers={"Accept": "image/png"}
    )
    assert (sent.status_code, sent.headers["Content-Type"]) == (200, "image/png")


def test_what_the_form_lacks_is_rejected_before_inference(stack: Stack) -> None:
    """An image that cannot be decoded would be the first error otherwise."""
    for query in ("digit-finder?format=ultralytics&then=digits", "digit-outlines?format=ultralytics&mask=rle"):
        rejected = stack.http.post(f"/predict/{query}", files={"image": b"no image"})
        assert code_of(rejected) is ErrorCode.INVALID_REQUEST, rejected.text


def test_form_of_this_server_is_the_default(stack: Stack) -> None:
    files = {"image": (IMAGES / "digits.jpg").read_bytes()}
    named = stack.http.post("/predict/digit-finder?format=nereid", files=files).json()
    assert list(named) == list(stack.http.post("/predict/digit-finder", files=files).json())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("digit-finder?format=coco", "expected one of nereid, ultralytics"),
        ("digit-finder?format=ultralytics&format=nereid", "twice"),
        ("digit-finder?format=ultralytics&then=digits", "then"),
        ("digit-outlines?format=ultralytics&mask=rle", "'mask'"),
    ],
)
def test_form_that_does_not_exist_is_rejected_in_words(stack: Stack, path: str, words: str) -> None:
    rejected = stack.http.post(f"/predict/{path}", files={"image": (IMAGES / "digits.jpg").read_bytes()})
    assert code_of(rejected) is ErrorCode.INVALID_REQUEST
    assert words in rejected.json()["error"]


def test_rows_have_no_such_form(stack: Stack) -> None:
    rejected = stack.http.post("/predict/iris?format=ultralytics", json=[6.3, 3.3, 6.0, 2.5])
    assert code_of(rejected) is ErrorCode.INVALID_REQUEST
