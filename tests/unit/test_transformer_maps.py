"""Semantic segmentation and depth: what the image gives the model, and what the model's map becomes."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import supervision as sv
from numpy.typing import NDArray

from tests.reference.maps import CLASSES, SIDE, UNIT_M, MapCase, read_cases
from transformer.admission import Admission, hold
from transformer.errors import InvalidRequest, MemoryFull, PayloadTooLarge, PredictorError
from transformer.imaging.maps import Bilinear, Nearest, stack
from transformer.tasks.depth import DEPTH, DepthForm, DepthMap
from transformer.tasks.semantic import SEMANTIC, Regions, Segmentation
from transformer.tasks.task import Write
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

MODEL = Model(
    name="street",
    version="1",
    task="semantic",
    inputs=(TensorMetadata("image", "UINT8", (-1, -1, -1, 3)),),
    outputs=(TensorMetadata("class_map", "UINT8", (-1, -1, -1)),),
    max_batch_size=8,
    names={index: f"class {index}" for index in range(CLASSES)},
    input_wh=(SIDE, SIDE),
)
SQUARE = replace(MODEL, inputs=(TensorMetadata("image", "UINT8", (-1, SIDE, SIDE, 3)),))
FAR = replace(
    SQUARE, name="far", task="depth", names={0: "depth"}, outputs=(TensorMetadata("depth", "FP32", (-1, SIDE, SIDE)),)
)
BARE = replace(FAR, inputs=(TensorMetadata("images", "FP32", (-1, 3, SIDE, SIDE)),))


def whole(prediction: Segmentation | DepthMap) -> NDArray[Any]:
    return np.concatenate([strip for _, strip in prediction.whole.strips()])


def decode(text: str) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def segment(case: MapCase, options: Regions | None = None) -> Segmentation:
    """The prediction for a case, by the model that has its form."""
    model = SQUARE if case.output.shape == (SIDE, SIDE) else MODEL
    tensor, plan = SEMANTIC.preprocess(case.image_hwc, model, size_wh=case.image_hwc.shape[1::-1])
    np.testing.assert_array_equal(tensor, case.input_hwc)
    return SEMANTIC.postprocess({"class_map": case.output}, model, plan=plan, options=options or Regions())


@pytest.mark.parametrize("case", read_cases("semantic"), ids=lambda case: f"{case.expected.shape}{case.output.shape}")
def test_class_map_is_that_of_ultralytics(case: MapCase) -> None:
    found = segment(case)
    np.testing.assert_array_equal(whole(found), case.expected)
    counts = np.bincount(case.expected.reshape(-1), minlength=CLASSES)
    np.testing.assert_allclose(found.ratios, counts / case.expected.size, rtol=1e-6)
    chosen = segment(case, Regions(class_ids=frozenset(case.chosen)))
    np.testing.assert_array_equal(whole(chosen), case.expected_of_chosen)
    response = chosen.to_json(MODEL)
    assert {each["class_id"] for each in response["predictions"]} == set(case.chosen) & set(np.unique(case.expected))


@pytest.mark.parametrize("case", read_cases("depth"), ids=lambda case: str(case.expected.shape))
def test_depth_is_that_of_ultralytics(case: MapCase) -> None:
    tensor, plan = DEPTH.preprocess(case.image_hwc, FAR, size_wh=case.image_hwc.shape[1::-1])
    np.testing.assert_array_equal(tensor, case.input_hwc)
    found = DEPTH.postprocess({"depth": case.output}, FAR, plan=plan, options=DepthForm())
    np.testing.assert_allclose(whole(found), case.expected, atol=0.51 * UNIT_M)
    bare, _ = DEPTH.preprocess(case.image_hwc, BARE, size_wh=case.image_hwc.shape[1::-1])
    np.testing.assert_allclose(bare * 255, case.input_hwc.transpose(2, 0, 1), atol=1e-4)
    same = DEPTH.postprocess({"output0": case.output[None]}, BARE, plan=plan, options=DepthForm())
    assert same.compare(found) == {"relative": 0}


def made(tensors: Mapping[str, Write]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(write()) for name, write in tensors.items()}


def a_segmentation(**changes: Any) -> Segmentation:
    return replace(Segmentation(np.array([[0, 1], [1, 2]], np.uint8), (4, 4), values=3), **changes)


THREE = replace(MODEL, names={0: "road", 1: "sky", 2: "car"})


def test_segmentation_in_json_has_a_png_and_what_its_values_mean() -> None:
    response = a_segmentation().to_json(THREE)
    assert response["predictions"] == [
        {"class": "road", "class_id": 0, "pixel_ratio": 0.25},
        {"class": "sky", "class_id": 1, "pixel_ratio": 0.5},
        {"class": "car", "class_id": 2, "pixel_ratio": 0.25},
    ]
    assert response["class_map"] == {"0": "road", "1": "sky", "2": "car"}
    assert (response["present_class_ids"], response["ignored_value"]) == ([0, 1, 2], 255)
    np.testing.assert_array_equal(
        decode(response["segmentation_mask"]), np.array([[0, 0, 1, 1]] * 2 + [[1, 1, 2, 2]] * 2)
    )
    assert a_segmentation(has_mask=False).to_json(THREE)["segmentation_mask"] is None


def test_supervision_takes_the_masks_of_the_png() -> None:
    response = a_segmentation().to_json(THREE)
    values = decode(response["segmentation_mask"])
    ids = np.array(response["present_class_ids"])
    masks = values == ids[:, None, None]
    found = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=ids)
    assert found.area.tolist() == [4, 8, 4]


def test_model_of_one_class_has_background() -> None:
    model = replace(SQUARE, names={0: "road"})
    output = np.zeros((SIDE, SIDE), np.uint8)
    output[:16] = 1
    plan = SEMANTIC.preprocess(np.zeros((64, 64, 3), np.uint8), model, size_wh=(64, 64))[1]
    # As Ultralytics, which ignores `classes` here.
    found = SEMANTIC.postprocess({"class_map": output}, model, plan=plan, options=Regions(class_ids=frozenset()))
    response = found.to_json(model)
    assert response["predictions"] == [{"class": "road", "class_id": 0, "pixel_ratio": 0.25}]
    assert (response["class_map"], response["present_class_ids"]) == ({"0": "background", "1": "road"}, [0, 1])
    assert made(found.to_tensors([found], model))["pixel_ratios"] == np.array([[0.25]])


def test_model_of_many_classes_has_a_map_of_16_bits() -> None:
    model = replace(SQUARE, names={index: str(index) for index in range(300)})
    output = np.full((SIDE, SIDE), 299, np.int32)
    output[:32] = 255  # a class here
    plan = SEMANTIC.preprocess(np.zeros((64, 64, 3), np.uint8), model, size_wh=(64, 64))[1]
    found = SEMANTIC.postprocess({"class_map": output}, model, plan=plan, options=Regions(class_ids=frozenset({299})))
    response = found.to_json(model)
    values = decode(response["segmentation_mask"])
    assert (str(values.dtype), response["ignored_value"], np.unique(values).tolist()) == ("uint16", 65535, [299, 65535])
    assert [tensor.datatype for tensor in SEMANTIC.outputs(model)] == ["BYTES", "UINT16", "FP32"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.zeros((32, 64), np.uint8), r"expected class_map of \(64, 64\)"),
        (np.zeros((64, 64), np.float32), "expected class_map"),
        (np.full((64, 64), CLASSES, np.uint8), "got classes 19 to 19, expected 0 to 18"),
        (np.full((64, 64), -1, np.int32), "got classes -1 to -1"),
    ],
)
def test_output_that_is_no_class_map_is_an_error(output: NDArray[Any], message: str) -> None:
    plan = SEMANTIC.preprocess(np.zeros((64, 64, 3), np.uint8), SQUARE, size_wh=(64, 64))[1]
    with pytest.raises(PredictorError, match=message):
        SEMANTIC.postprocess({"class_map": output}, SQUARE, plan=plan, options=Regions())


def test_model_of_more_classes_than_16_bits_hold_is_rejected() -> None:
    with pytest.raises(ModelConfigError, match="got 65536 classes, expected 1 to 65535"):
        SEMANTIC.check(replace(MODEL, names={65535: "last"}))
    with pytest.raises(ModelConfigError, match="got 0 classes"):
        SEMANTIC.check(replace(MODEL, names={}))


def measure(depth_m: NDArray[np.float32], form: DepthForm | None = None) -> DepthMap:
    plan = DEPTH.preprocess(np.zeros((SIDE, SIDE, 3), np.uint8), FAR, size_wh=(SIDE, SIDE))[1]
    return DEPTH.postprocess({"depth": depth_m}, FAR, plan=plan, options=form or DepthForm())


def ramp(low: float, high: float) -> NDArray[np.float32]:
    return np.linspace(low, high, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


def test_depth_in_json_is_millimetres_and_its_range() -> None:
    depth_m = ramp(0.5, 20)
    response = measure(depth_m).to_json(FAR)
    assert {key: response[key] for key in ("scale", "unit", "min", "max", "limits_reached", "normalized_depth")} == {
        "scale": 0.001, "unit": "m", "min": 0.5, "max": 20.0, "limits_reached": {}, "normalized_depth": None,
    }  # fmt: skip
    values = decode(response["depth_map"])
    assert values.dtype == np.uint16
    np.testing.assert_allclose(values * response["scale"], depth_m, atol=0.0005001)


def test_distances_beyond_16_bits_are_clipped_and_reported() -> None:
    found = measure(ramp(1, 100))
    assert found.limits_reached == {"depth_map": 65535}
    assert decode(found.to_json(FAR)["depth_map"]).max() == 65535
    coarse = measure(ramp(1, 100), DepthForm(scale_m=0.01))
    assert (coarse.limits_reached, decode(coarse.to_json(FAR)["depth_map"]).max()) == ({}, 10_000)
    assert measure(ramp(1, 100), DepthForm(depth_map="none")).limits_reached == {}


def test_pixels_without_depth_are_0_and_others_are_not() -> None:
    depth_m = np.full((SIDE, SIDE), 0.0001, np.float32)
    depth_m[0, :3] = np.nan, np.inf, 0
    values = decode(measure(depth_m).to_json(FAR)["depth_map"])
    assert (values[0, :4].tolist(), values[1:].min()) == ([0, 0, 0, 1], 1)


def test_supervision_reads_normalised_depth() -> None:
    depth_m = ramp(2, 4)
    response = measure(depth_m, DepthForm(depth_map="both")).to_json(FAR)
    found = sv.DepthMap.from_inference(response)
    np.testing.assert_allclose(found.values, (4 - depth_m) / 2, atol=1e-4)  # 1 is the nearest
    assert measure(depth_m, DepthForm(depth_map="normalized")).to_json(FAR)["depth_map"] is None
    flat = measure(np.full((SIDE, SIDE), 3, np.float32), DepthForm(depth_map="normalized")).to_json(FAR)
    assert np.isfinite(sv.DepthMap.from_inference(flat).values).all()


def test_output_of_another_size_is_no_depth() -> None:
    with pytest.raises(PredictorError, match=r"expected depth of \(64, 64\)"):
        measure(np.ones((16, 16), np.float32))


@pytest.mark.parametrize(
    ("task", "model", "parameters"),
    [
        (SEMANTIC, MODEL, {"segmentation_mask": "jpeg"}),
        (SEMANTIC, MODEL, {"segmentation_mask": 1}),
        (SEMANTIC, MODEL, {"classes": "nothing"}),
        (SEMANTIC, MODEL, {"confidence": 0.5}),
        (DEPTH, FAR, {"depth_map": "all"}),
        (DEPTH, FAR, {"depth_scale": 0}),
        (DEPTH, FAR, {"depth_scale": "nan"}),
        (DEPTH, FAR, {"depth_scale": True}),
        (DEPTH, FAR, {"depth_scale": 2}),
    ],
)
def test_wrong_parameters_are_rejected(task: Any, model: Model, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        task.read_options(parameters, model)


def test_parameters_are_read() -> None:
    assert SEMANTIC.read_options({"classes": "class 3", "segmentation_mask": "none"}, MODEL) == Regions(
        frozenset({3}), "none"
    )
    assert DEPTH.read_options({"depth_map": "both", "depth_scale": "0.01"}, FAR) == DepthForm("both", 0.01)


def test_tensors_are_padded_to_the_largest_image() -> None:
    small, large = a_segmentation(image_wh=(2, 2)), a_segmentation(image_wh=(3, 4))
    tensors = made(Segmentation.to_tensors([small, large], THREE))
    stacked = tensors["class_map"]
    assert (stacked.shape, str(stacked.dtype)) == ((2, 4, 3), "uint8")
    np.testing.assert_array_equal(stacked[0], [[0, 1, 255], [1, 2, 255], [255] * 3, [255] * 3])
    assert tensors["pixel_ratios"].shape == (2, 3)
    depth = measure(ramp(1, 2))
    tensors = made(DepthMap.to_tensors([replace(depth, image_wh=(10, 20)), depth], FAR))
    stacked = tensors["depth"]
    assert (stacked.shape, str(stacked.dtype), stacked[0, 20:].max(), stacked[0, 19, 9]) == (
        (2, 64, 64),
        "float32",
        0,
        2,
    )
    np.testing.assert_allclose(tensors["depth_range"], [[1, 2]] * 2)


def test_tensor_beyond_the_limit_is_rejected_before_it_is_made() -> None:
    many = [a_segmentation(image_wh=(100_000, 500)) for _ in range(6)]
    with pytest.raises(PayloadTooLarge, match="a tensor of 6 maps of 100000x500 has 300000000 bytes"):
        Segmentation.to_tensors(many, THREE)["class_map"]()


@pytest.mark.parametrize("size_wh", [(1, 1), (5000, 1), (1, 5000), (1500, 1100)])
def test_strips_are_the_whole_map(size_wh: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    classes = random.integers(0, 9, (7, 5), np.uint8)
    for enlarged in (Nearest(classes, size_wh), Bilinear(random.random((7, 5), np.float32), size_wh)):
        strips = list(enlarged.strips())
        assert max(strip.size for _, strip in strips) <= max(2**20, size_wh[0])
        np.testing.assert_array_equal(
            np.concatenate([strip for _, strip in strips]), enlarged.strip(slice(0, size_wh[1]))
        )
        assert stack([enlarged], dtype=np.float32, fill=0).shape == (1, *size_wh[::-1])


def test_drawn_maps_have_the_size_of_the_image_and_a_legend() -> None:
    image = np.full((300, 400, 3), 100, np.uint8)
    found = a_segmentation(image_wh=(400, 300))
    drawn = found.draw(image, THREE)
    assert drawn.shape == image.shape
    assert (image == 100).all()
    assert len({tuple(drawn[y, x]) for y, x in ((140, 150), (140, 390), (290, 390))}) == 3
    ignored = a_segmentation(image_wh=(400, 300), class_map=np.full((2, 2), 255, np.uint8)).draw(image, THREE)
    np.testing.assert_array_equal(ignored, image)  # nothing of what is wanted
    depth = replace(measure(ramp(1, 9)), image_wh=(400, 300)).draw(image, FAR)
    top, bottom = depth[0, 399].astype(int), depth[-1, 399].astype(int)
    assert top[0] > top[2]  # near: red
    assert bottom[2] > bottom[0]  # far: blue
    white = (depth == 255).all(axis=2)
    assert white[-30:].any()
    assert not white[:200].any()


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 40), (40, 1), (9, 7)])
def test_tiny_images_are_drawn(size_wh: tuple[int, int]) -> None:
    image = np.zeros((*size_wh[::-1], 3), np.uint8)
    assert a_segmentation(image_wh=size_wh).draw(image, THREE).shape == image.shape
    assert replace(measure(ramp(1, 2)), image_wh=size_wh).draw(image, FAR).shape == image.shape


def test_figures_of_a_comparison() -> None:
    one = a_segmentation()
    assert one.compare(one) == {"pixels_apart": 0}
    assert one.compare(a_segmentation(class_map=np.zeros((2, 2), np.uint8))) == {"pixels_apart": 0.75}
    assert one.compare(a_segmentation(image_wh=(5, 4))) == {"pixels_apart": float("inf")}
    depth = measure(ramp(1, 2))
    assert depth.compare(replace(depth, depth_m=depth.depth_m * np.float32(1.1)))["relative"] == pytest.approx(
        0.0909, abs=1e-3
    )
    assert depth.compare(replace(depth, image_wh=(1, 1))) == {"relative": float("inf")}


def test_results_count_as_the_body_of_their_request() -> None:
    asyncio.run(count_results())


async def count_results() -> None:
    admission = Admission(max_in_flight=1, max_waiting=1, max_bodies_bytes=100, max_timeout_s=1)
    hold(1000)  # outside of any request
    with admission.body() as body:
        body.grow(10)
        hold(50)
        assert body.size_bytes == 60
        with pytest.raises(PayloadTooLarge, match="the request and its results are over the limit of 100 bytes"):
            hold(41)
        with admission.body() as other, pytest.raises(MemoryFull):
            other.hold(41)
        hold(40)
    with admission.body() as body:
        body.grow(100)
