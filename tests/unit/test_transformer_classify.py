"""Classification: the resize that training fixed, the choice among classes, and what the response says was seen."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.described import CLASSIFIER
from transformer.errors import InvalidRequest, PredictorError
from transformer.imaging import resampling
from transformer.tasks import parameters
from transformer.tasks.classify import CLASSIFY, MAX_TOP_K, Choice, Classification, find_best
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

PHOTO = replace(CLASSIFIER, channels=3, input_wh=(24, 24))
RNG = np.random.default_rng(0)


def described(model: Model = PHOTO, **resize: Any) -> Model:
    return replace(model, facts={"resize": resize})


def floats(numbers: list[float]) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def enlarge(image_hwc: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image_hwc, size_wh, interpolation=cv2.INTER_CUBIC), np.uint8)


def by_pillow(image_hwc: NDArray[np.uint8], size: Any, crop_wh: tuple[int, int], filter_: str, mode: str) -> Any:
    """Resize and CenterCrop of torchvision, in Pillow's own calls."""
    image = Image.fromarray(image_hwc).convert(mode)
    width, height = image.size
    if isinstance(size, list):
        resized_wh = size[1], size[0]
    elif width <= height:
        resized_wh = size, int(size * height / width)
    else:
        resized_wh = int(size * width / height), size
    resized = image.resize(resized_wh, Image.Resampling[filter_.upper()])
    left, top = (round((have - want) / 2.0) for have, want in zip(resized_wh, crop_wh, strict=True))
    cropped = resized.crop((left, top, left + crop_wh[0], top + crop_wh[1]))
    return np.asarray(cropped).reshape(crop_wh[1], crop_wh[0], -1)


SIZES_WH = [
    (1, 1), (1, 300), (300, 1), (3, 5), (24, 24), (25, 24), (23, 24), (24, 25), (97, 133), (133, 97), (640, 427),
    (427, 640), (256, 999), (999, 256), (2000, 11), (11, 2000), (1200, 1000),
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_preprocess_equals_pillow_for_every_filter_and_size(filter_: str, channels: int) -> None:
    model = replace(PHOTO, channels=channels)
    for width, height in SIZES_WH:
        image = noise(width, height)
        for crop_wh, size in (((24, 24), 24), ((24, 24), 33), ((17, 31), 31), ((20, 24), [40, 30])):
            fit = "stretch" if isinstance(size, list) else "shortest"
            chosen = described(replace(model, input_wh=crop_wh), fit=fit, size=size, interpolation=filter_)
            tensor, _ = CLASSIFY.preprocess(image, chosen, size_wh=(width, height))
            expected = by_pillow(image, size, crop_wh, filter_, "L" if channels == 1 else "RGB")
            assert np.array_equal(tensor, expected), (width, height, crop_wh, size)


def test_preprocess_of_a_large_image_equals_pillow() -> None:
    image = noise(4001, 3003)
    tensor, _ = CLASSIFY.preprocess(image, described(fit="shortest", size=30), size_wh=(4001, 3003))
    assert np.array_equal(tensor, by_pillow(image, 30, (24, 24), "bilinear", "RGB"))


@pytest.mark.parametrize("size_wh", [(60_000, 30), (30, 60_000)])
@pytest.mark.parametrize("fit", ["shortest", "stretch"])
def test_a_very_long_image_is_resized_only_where_it_is_seen(
    size_wh: tuple[int, int], fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = enlarge(noise(size_wh[0] // 10, size_wh[1] // 10), size_wh)
    model = described(fit=fit, size=24)
    whole, _ = CLASSIFY.preprocess(image, model, size_wh=size_wh)
    monkeypatch.setattr(resampling, "MOST_PX", 1)
    part, _ = CLASSIFY.preprocess(image, model, size_wh=size_wh)
    assert np.abs(whole.astype(int) - part).max() <= 1


def test_extreme_proportions_take_no_memory_for_what_is_cut_off() -> None:
    # 300,000 x 1 pixels of which the shorter side becomes 256 would have 20 thousand million.
    model = described(replace(PHOTO, input_wh=(224, 224)), fit="shortest", size=256)
    for size_wh in ((300_000, 1), (1, 300_000)):
        tensor, crop = CLASSIFY.preprocess(noise(*size_wh), model, size_wh=size_wh)
        assert tensor.shape == (224, 224, 3)
        assert max(crop[2] - crop[0], crop[3] - crop[1]) < 1


def test_resize_without_antialias_takes_the_nearest_pixels_alone() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[::2] = 200
    model = described(fit="stretch", size=24, antialias=False)
    tensor, _ = CLASSIFY.preprocess(image, model, size_wh=(48, 48))
    assert (tensor == 100).all()  # between two rows; of four, as they are averaged, the next ones count too
    grey, _ = CLASSIFY.preprocess(image, replace(model, channels=1), size_wh=(48, 48))
    assert grey.shape == (24, 24, 1)


def test_ultralytics_input_is_planes_from_zero_to_one() -> None:
    model = replace(described(fit="shortest", size=24), inputs=(TensorMetadata("images", "FP32", (-1, 3, 24, 24)),))
    image = np.full((40, 30, 3), (255, 0, 51), np.uint8)
    tensor, _ = CLASSIFY.preprocess(image, model, size_wh=(30, 40))
    assert (tensor.shape, str(tensor.dtype), tensor.flags.c_contiguous) == ((3, 24, 24), "float32", True)
    np.testing.assert_array_equal(tensor[:, 0, 0], floats([1, 0, 0.2]))


@pytest.mark.parametrize(
    ("model", "size_wh", "crop"),
    [
        (described(fit="shortest", size=24), (48, 96), (0, 24, 48, 72)),
        (described(fit="shortest", size=32), (64, 64), (8, 8, 56, 56)),
        (described(fit="stretch"), (48, 96), (0, 0, 48, 96)),
        (described(fit="stretch", size=[32, 32]), (64, 96), (8, 12, 56, 84)),
        (PHOTO, (48, 96), (0, 0, 48, 96)),  # without a description all of it is seen
    ],
)
def test_response_says_which_part_of_the_image_was_seen(
    model: Model, size_wh: tuple[int, int], crop: tuple[float, ...]
) -> None:
    _, plan = CLASSIFY.preprocess(noise(*size_wh), model, size_wh=size_wh)
    result = CLASSIFY.postprocess({"probabilities": floats([0.3, 0.7])}, model, plan=plan, options=Choice())
    assert tuple(result.to_json(model)["crop"].values()) == crop
    drawn = result.draw(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), model)
    assert drawn.any()


def test_image_that_was_reduced_while_it_was_decoded_lies_where_the_whole_one_does() -> None:
    model = replace(described(fit="shortest", size=24), reduces_images=True)
    assert CLASSIFY.smallest_wh((400, 200), model) == (48, 24)
    assert CLASSIFY.smallest_wh((400, 200), replace(model, reduces_images=False)) is None
    assert CLASSIFY.smallest_wh((400, 200), replace(PHOTO, reduces_images=True)) is None
    whole = enlarge(noise(40, 20), (400, 200))
    reduced = np.asarray(cv2.resize(whole, (100, 50), interpolation=cv2.INTER_AREA), np.uint8)
    one, plan = CLASSIFY.preprocess(whole, model, size_wh=(400, 200))
    other, same = CLASSIFY.preprocess(reduced, model, size_wh=(400, 200))
    assert plan == same
    assert np.abs(one.astype(int) - other).mean() < 5


@pytest.mark.parametrize(
    ("resize", "message"),
    [
        ("stretch", "got 'stretch', expected a dict with keys of fit, size, interpolation, antialias"),
        ({"fit": "stretch", "crop": 224}, "expected a dict with keys"),
        ({}, "resize.fit in parameters.metadata: got None, expected 'shortest' or 'stretch'"),
        ({"fit": "letterbox"}, "expected 'shortest' or 'stretch'"),
        ({"fit": "shortest", "interpolation": ["bilinear"]}, "expected one of nearest"),
        ({"fit": "shortest", "interpolation": "cubic"}, "got 'cubic', expected one of nearest"),
        ({"fit": "shortest", "size": 23}, r"got 23, expected a whole number, no smaller than imgsz \[24, 24\]"),
        ({"fit": "shortest", "size": [24, 24]}, "expected a whole number, no smaller"),
        ({"fit": "shortest", "size": 24.0}, "expected a whole number"),
        ({"fit": "shortest", "size": True}, "expected a whole number"),
        ({"fit": "stretch", "size": [24, 8193]}, "at most 8192"),
        ({"fit": "stretch", "size": [24]}, "expected a whole number or"),
        ({"fit": "shortest", "antialias": False}, "resize.antialias .* expected True, or False with fit 'stretch'"),
        ({"fit": "stretch", "antialias": 0}, "resize.antialias"),
    ],
)
def test_description_of_a_resize_is_checked_when_the_model_is_described(resize: Any, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        CLASSIFY.check(replace(PHOTO, facts={"resize": resize}))


def test_description_of_a_resize_takes_grey_or_colour_alone() -> None:
    with pytest.raises(ModelConfigError, match="channels: got 4, expected 1 or 3"):
        CLASSIFY.check(replace(described(fit="stretch"), channels=4))


def test_metadata_shows_the_description() -> None:
    assert CLASSIFY.metadata(described(fit="stretch")) == {"resize": {"fit": "stretch"}}
    assert CLASSIFY.metadata(PHOTO) == {}


NAMES = {0: "cat", 1: "dog", 2: "cow", 3: "ant"}
FOUR = replace(PHOTO, names=NAMES)
PROBABILITIES = floats([0.1, 0.4, 0.4, 0.1])


def read(parameters_: dict[str, Any]) -> dict[str, Any]:
    options = CLASSIFY.read_options(parameters_, FOUR)
    result = CLASSIFY.postprocess({"probabilities": PROBABILITIES}, FOUR, plan=(0, 0, 1, 1), options=options)
    return result.to_json(FOUR)


@pytest.mark.parametrize(
    ("chosen", "classes", "top"),
    [
        ({}, ["dog", "cow", "cat", "ant"], "dog"),
        ({"top_k": "2"}, ["dog", "cow"], "dog"),
        ({"top_k": 1}, ["dog"], "dog"),
        ({"confidence": 0.4}, ["dog", "cow"], "dog"),
        ({"confidence": "0.5"}, [], "dog"),  # the best class, however sure
        ({"classes": "ant,cow"}, ["cow", "ant"], "cow"),
        ({"classes": [3, 0], "top_k": 1}, ["cat"], "cat"),
        ({"classes": []}, [], ""),
    ],
)
def test_request_chooses_among_the_classes(chosen: dict[str, Any], classes: list[str], top: str) -> None:
    result = read(chosen)
    assert ([each["class"] for each in result["predictions"]], result["top"]) == (classes, top)


@pytest.mark.parametrize(
    "wrong", [{"top_k": 0}, {"top_k": MAX_TOP_K + 1}, {"confidence": 2}, {"classes": "bird"}, {"iou": 0.5}]
)
def test_request_with_a_wrong_parameter_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        CLASSIFY.read_options(wrong, FOUR)


def test_best_of_many_classes_are_found_without_sorting_them() -> None:
    for size in (1, 4, 5, 6, 1000, 100_000):
        for values in (RNG.random(size), RNG.integers(0, 3, size), np.zeros(size)):
            probabilities = values.astype(np.float32)
            expected = np.argsort(-probabilities, kind="stable")[:5].tolist()
            assert find_best(probabilities, 5) == expected
    assert find_best(floats([0.5, 0.9]), 5, among=frozenset({0, 7})) == [0]


def test_outputs_that_are_no_numbers_are_an_error_of_the_model() -> None:
    with pytest.raises(PredictorError, match="NaN or infinite"):
        CLASSIFY.postprocess({"probabilities": floats([0.1, np.nan, 0, 0])}, FOUR, plan=(0, 0, 1, 1), options=Choice())


def test_json_of_a_classification_is_estimated_by_what_is_written_and_searched() -> None:
    wide = Classification(np.zeros(100_000, np.float32))
    assert wide.json_bytes > Classification(np.zeros(10, np.float32)).json_bytes
    assert Classification(np.zeros(10, np.float32), Choice(top_k=1000)).json_bytes > 10_000


def test_parameters_of_tasks_include_those_of_classification() -> None:
    assert {"top_k", "confidence", "classes"} <= parameters().keys()
