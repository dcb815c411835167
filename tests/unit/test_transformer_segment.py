"""Segmentation: the objects and masks of Ultralytics, and every form in which they are given."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
import supervision as sv
from numpy.typing import NDArray

from tests.reference.segments import SegmentedImage, SegmentReference, read_segment_reference
from tests.support.described import FUSED
from tests.support.segmenter import decode
from transformer.errors import InvalidRequest, PredictorError
from transformer.imaging.letterbox import fit
from transformer.tasks import segment
from transformer.tasks.schemas import object_of
from transformer.tasks.segment import SEGMENT, SegmentOptions, Segments
from transformer.triton.model import Model, ModelConfigError, TensorMetadata
from transformer.triton.tensors import from_array, to_elements

# supervision decodes RLE with what was written for NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REFERENCES = {name: read_segment_reference(name) for name in ("segment-nms", "segment-nms-free")}
CASES = [(name, index) for name, reference in REFERENCES.items() for index in range(len(reference.images))]


def outputs_of(*names: str) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(name, "FP32", (-1,)) for name in names)


MODEL = replace(
    FUSED, task="segment", outputs=outputs_of("boxes", "scores", "classes", "coefficients", "prototypes"),
)  # fmt: skip
BARE = replace(
    MODEL, inputs=(TensorMetadata("images", "FP32", (-1, 3, -1, -1)),), outputs=outputs_of("output0", "output1")
)


def fused(image: SegmentedImage, reference: SegmentReference) -> dict[str, NDArray[Any]]:
    """The same outputs as a `fused` graph has them."""
    head = image.output0.astype(np.float32)
    if reference.end2end:
        corners, scores, classes, rest = head[:, :4], head[:, 4], head[:, 5], head[:, 6:]
        boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    else:
        of_class = head[4 : 4 + reference.classes]
        boxes, scores, classes, rest = head[:4].T, of_class.max(axis=0), of_class.argmax(axis=0), head[-32:].T
    return {
        "boxes": boxes,
        "scores": scores,
        "classes": classes.astype(np.int32),
        "coefficients": np.ascontiguousarray(rest),
        "prototypes": image.output1,
    }


def predict(name: str, index: int, interface: str = "ultralytics", **options: Any) -> Segments:
    reference = REFERENCES[name]
    image = reference.images[index]
    names = {class_id: str(class_id) for class_id in range(reference.classes)}
    model = replace(BARE if interface == "ultralytics" else MODEL, names=names, end2end=reference.end2end)
    outputs = {"output0": image.output0, "output1": image.output1}
    return SEGMENT.postprocess(
        outputs if interface == "ultralytics" else fused(image, reference),
        model,
        plan=fit(image.image_wh, image.input_wh, stride=None),
        options=SegmentOptions(
            confidence=reference.confidence, max_detections=reference.max_detections, **options
        ),
    )  # fmt: skip


@pytest.mark.parametrize("interface", ["ultralytics", "fused"])
@pytest.mark.parametrize(("name", "index"), CASES)
def test_objects_and_masks_are_those_of_ultralytics(name: str, index: int, interface: str) -> None:
    found, expected = predict(name, index, interface), REFERENCES[name].images[index]
    rows = np.array(expected.rows)
    np.testing.assert_allclose(found.boxes_xyxy, rows[:, :4], atol=1e-3)
    np.testing.assert_allclose(found.scores, rows[:, 4], atol=1e-5)
    assert found.class_ids.tolist() == rows[:, 5].tolist()
    assert [mask.rle()["counts"] for mask in found.masks] == list(expected.rles)
    for mask, joined in zip(found.masks, expected.outlines, strict=True):
        if len(mask.outlines) == 1:
            assert mask.outlines[0].tolist() in (joined, [*joined, joined[-1]], [*joined, *joined[-1:] * 2])
        else:  # one ring, which goes from part to part along the same way twice
            assert {tuple(point) for part in mask.outlines for point in part} == set(map(tuple, joined))


def test_references_have_objects_without_mask_and_several_parts() -> None:
    free = REFERENCES["segment-nms-free"]
    assert any(len(image.rles) < free.max_detections for image in free.images)
    assert any(len(mask.outlines) > 1 for name, index in CASES for mask in predict(name, index).masks)


@pytest.mark.parametrize("form", ["polygon", "rle", "none"])
def test_json_is_as_described_and_as_long_as_estimated(form: Any) -> None:
    found = predict("segment-nms", 0, mask=form)
    text = orjson.dumps(found.to_json(MODEL))
    document = orjson.loads(text)
    jsonschema.Draft202012Validator(object_of(SEGMENT.schema)).validate(document)
    assert 0.6 < len(text) / found.json_bytes < 1.4
    keys = {key for prediction in document["predictions"] for key in prediction} & {"points", "rle", "mask_format"}
    assert keys == {"polygon": {"points", "mask_format"}, "rle": {"rle", "mask_format"}, "none": set()}[form]


def test_parts_are_there_where_there_are_several() -> None:
    found = predict("segment-nms-free", 0)
    several = 0
    predictions = orjson.loads(orjson.dumps(found.to_json(MODEL)))["predictions"]
    for prediction, mask in zip(predictions, found.masks, strict=True):
        parts = prediction.get("parts", [prediction["points"]])
        assert parts[0] == prediction["points"]
        assert [[[point["x"], point["y"]] for point in part] for part in parts] == [
            part.tolist() for part in mask.outlines
        ]
        several += len(parts) > 1
    assert several


def test_none_makes_no_masks_and_keeps_objects_whose_mask_is_empty() -> None:
    with_masks, without = predict("segment-nms-free", 0), predict("segment-nms-free", 0, mask="none")
    assert (len(without.masks), without.objects) == (0, 10)
    assert with_masks.objects == len(with_masks.masks) == 8


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_supervision_reads_the_masks(form: Any) -> None:
    image = REFERENCES["segment-nms"].images[0]
    found = predict("segment-nms", 0, mask=form)
    width, height = image.image_wh
    document = {"image": {"width": width, "height": height}, **orjson.loads(orjson.dumps(found.to_json(MODEL)))}
    detections = sv.Detections.from_inference(document)
    assert detections.mask is not None
    for read, mask in zip(detections.mask, found.masks, strict=True):
        expected = decode(mask)
        if form == "rle" or len(mask.outlines) == 1:
            # An outline fills holes.
            assert (read & ~expected).sum() <= (0 if form == "rle" else 0.01 * expected.sum())
            assert not (expected & ~read).any()


def test_tensor_of_masks_is_padded_with_empty_elements() -> None:
    some, more = predict("segment-nms", 2), predict("segment-nms", 0)
    tensors = Segments.to_tensors([some, more, predict("segment-nms", 0, mask="none")], MODEL)
    masks: Any = tensors["masks"]()
    assert masks.shape == (3, more.objects)
    assert orjson.loads(masks[0, 0]) == some.masks[0].rle()
    assert masks[0, some.objects :].tolist() == [b""] * (more.objects - some.objects)
    assert set(masks[2]) == {b""}
    tensor = from_array("masks", masks)
    assert (tensor.datatype, tensor.shape) == ("BYTES", masks.shape)
    assert to_elements(tensor) == masks.reshape(-1).tolist()
    assert [output.name for output in SEGMENT.outputs(MODEL)] == ["detections", *tensors]


def test_no_objects_have_no_masks() -> None:
    found = predict("segment-nms", 0, class_ids=frozenset())
    assert orjson.loads(orjson.dumps(found.to_json(MODEL)))["predictions"] == []
    assert Segments.to_tensors([found], MODEL)["masks"]().shape == (1, 0)  # type: ignore[union-attr]
    assert found.compare(found) == {"boxes_px": 0, "scores": 0, "mask_iou": 0}


def test_weaker_objects_go_where_masks_have_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    every = predict("segment-nms", 0)
    for limit, following in pairwise((1, 60_000, 120_000, 400_000_000)):
        monkeypatch.setattr(segment, "MAX_MASK_PIXELS", limit)
        few = predict("segment-nms", 0)
        assert 1 <= few.objects < every.objects
        assert few.limits_reached == {"mask_pixels": limit}
        assert few.scores.tolist() == every.scores[: few.objects].tolist()
        monkeypatch.setattr(segment, "MAX_MASK_PIXELS", following)
        assert predict("segment-nms", 0).objects > few.objects
    assert predict("segment-nms", 0).limits_reached == {}


def test_compare_finds_masks_that_differ() -> None:
    found = predict("segment-nms", 0)
    assert found.compare(found) == {"boxes_px": 0, "scores": 0, "mask_iou": 0}
    swapped = replace(found, masks=[found.masks[0], found.masks[0], *found.masks[2:]])
    assert 0.5 < found.compare(swapped)["mask_iou"] <= 1
    without = predict("segment-nms", 0, mask="none")
    assert found.compare(without)["mask_iou"] == float("inf")
    assert without.compare(without)["mask_iou"] == 0
    assert set(SEGMENT.tolerances) == set(Segments.figures)


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_masks_are_drawn_within_their_outlines(form: Any) -> None:
    width, height = REFERENCES["segment-nms"].images[2].image_wh
    image = np.full((height, width, 3), 255, np.uint8)
    found = predict("segment-nms", 2, mask=form)
    drawn = found.draw(image, MODEL)
    assert (image == 255).all()
    crop, (x, y) = found.masks[0].crop()
    inside = drawn[y : y + len(crop), x : x + crop.shape[1]][crop > 0]
    assert (inside != 255).any(axis=1).all()
    assert (drawn == 255).all(axis=2).mean() > 0.3
    boxes = predict("segment-nms", 2, mask="none").draw(image, MODEL)
    assert (boxes != drawn).any()


@pytest.mark.parametrize("value", ["outline", "", "RLE", 1, None, ["rle"]])
def test_unknown_form_of_masks_is_rejected(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"parameter 'mask': got .*, expected one of polygon, rle, none"):
        SEGMENT.read_options({"mask": value}, MODEL)


def test_form_of_masks_is_read() -> None:
    assert SEGMENT.read_options({"mask": "rle", "confidence": "0.5"}, MODEL) == SegmentOptions(0.5, mask="rle")


@pytest.mark.parametrize(("model", "missing"), [(MODEL, "prototypes"), (BARE, "output1")])
def test_model_without_prototypes_is_no_segmenter(model: Model, missing: str) -> None:
    SEGMENT.check(model)
    outputs = tuple(output for output in model.outputs if output.name != missing)
    with pytest.raises(ModelConfigError, match=f"expected .*{missing}"):
        SEGMENT.check(replace(model, outputs=outputs))


def test_input_that_is_too_small_for_prototypes_is_an_error() -> None:
    image = REFERENCES["segment-nms"].images[0]
    with pytest.raises(PredictorError, match=r"got prototypes .*, expected \(32, 0, 0\)"):
        SEGMENT.postprocess(
            {"output0": image.output0, "output1": np.zeros((32, 0, 0), np.float32)},
            replace(BARE, names={class_id: str(class_id) for class_id in range(80)}),
            plan=fit((3, 3), (3, 3), stride=None),
            options=SegmentOptions(),
        )


@pytest.mark.parametrize("shape", [(32, 40, 48), (31, 48, 40), (32, 48)])
def test_prototypes_that_do_not_fit_are_an_error(shape: tuple[int, ...]) -> None:
    image = REFERENCES["segment-nms"].images[0]
    assert image.output1.shape == (32, 48, 40)
    names = {class_id: str(class_id) for class_id in range(80)}
    with pytest.raises(PredictorError, match=r"got prototypes .*, expected \(32, 48, 40\)"):
        SEGMENT.postprocess(
            {"output0": image.output0, "output1": np.zeros(shape, np.float32)},
            replace(BARE, names=names),
            plan=fit(image.image_wh, image.input_wh, stride=None),
            options=SegmentOptions(),
        )
