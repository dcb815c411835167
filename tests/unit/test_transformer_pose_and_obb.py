"""Poses and oriented boxes: from the outputs of a model to JSON, tensors and drawings."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference.heads import CLASSES, HEADS, IMGSZ, KEYPOINTS, Case, read_heads
from tests.support.described import FUSED
from transformer.errors import PredictorError
from transformer.imaging.letterbox import fit
from transformer.imaging.skeletons import PERSON
from transformer.tasks import image_task
from transformer.tasks.detection_options import Selection
from transformer.tasks.obb import OBB, OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.pose import POSE, Poses, PoseSelection
from transformer.tasks.schemas import object_of
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

BARE_INPUT = (TensorMetadata("images", "FP32", (-1, 3, -1, -1)),)
NAMES = ("head", "tail")
PERSONS = replace(FUSED, task="pose", facts={"kpt_shape": [2, 3], "kpt_names": {0: list(NAMES), 1: ["left", "right"]}})
TURNED = replace(FUSED, task="obb")
PLAN = fit((128, 64), (64, 64), stride=None)  # half the size, 16 rows of padding above
CASES = list(read_heads())


def fused(**rest: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A cat, a weaker one at its place, a dog at the border."""
    return {
        "boxes": np.array([[20, 30, 20, 10], [21, 30, 20, 10], [60, 40, 12, 10]], np.float32),
        "scores": np.array([0.9, 0.8, 0.3], np.float32),
        "classes": np.array([0, 0, 1], np.int32),
        **rest,
    }


KEYPOINTS_OF = np.array(
    [[[15, 30, 0.9], [25, 30, 0.1]], [[0, 0, 0], [0, 0, 0]], [[60, 40, 1], [70, 5, 0.5]]], np.float32
)
ANGLES = np.array([2.0, 2.0, -0.5], np.float32)


def bare(rest: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The same as the head of a file."""
    outputs = fused()
    head = np.zeros((6, 3), np.float32)
    head[:4] = outputs["boxes"].T
    head[4 + outputs["classes"], np.arange(3)] = outputs["scores"]
    return {"output0": np.concatenate([head, rest.reshape(3, -1).T])}


def find_poses(outputs: dict[str, NDArray[Any]], model: Model = PERSONS, **options: Any) -> Poses:
    return POSE.postprocess(outputs, model, plan=PLAN, options=PoseSelection(**options))


def find_boxes(outputs: dict[str, NDArray[Any]], model: Model = TURNED, **options: Any) -> OrientedBoxes:
    return OBB.postprocess(outputs, model, plan=PLAN, options=Selection(**options))


def served(case: Case) -> Detections:
    task, is_nms_free = HEADS[case.head]
    facts = {"kpt_shape": list(KEYPOINTS)} if task == "pose" else {}
    names = {index: str(index) for index in range(CLASSES)}
    model = replace(FUSED, task=task, inputs=BARE_INPUT, names=names, end2end=is_nms_free, facts=facts)
    plan = fit(case.image_wh, (IMGSZ, IMGSZ), stride=32)
    found = image_task(model).postprocess({"output0": case.output}, model, plan=plan, options=PoseSelection())
    assert isinstance(found, Detections)
    return found


@pytest.mark.parametrize("case", CASES, ids=[f"{case.head}-{index}" for index, case in enumerate(CASES)])
def test_objects_are_those_of_predict(case: Case) -> None:
    found = served(case)
    np.testing.assert_array_equal(found.scores, case.found[:, -2])
    np.testing.assert_array_equal(found.class_ids, case.found[:, -1])
    if isinstance(found, Poses):
        np.testing.assert_allclose(found.boxes_xyxy, case.found[:, :4], atol=1e-3)
        np.testing.assert_allclose(found.keypoints[..., :2], case.keypoints[..., :2], atol=1e-3)
        np.testing.assert_allclose(found.keypoints[..., 2], case.keypoints[..., 2], atol=1e-6)
    else:
        assert isinstance(found, OrientedBoxes)
        np.testing.assert_allclose(found.rotated_boxes, case.found[:, :5], atol=1e-3)


def test_every_head_has_reference_images() -> None:
    assert {case.head for case in CASES} == set(HEADS)
    assert sum(len(case.found) for case in CASES) > 300


@pytest.mark.parametrize(
    ("model", "outputs"),
    [(PERSONS, fused(keypoints=KEYPOINTS_OF)), (replace(PERSONS, inputs=BARE_INPUT), bare(KEYPOINTS_OF))],
)
def test_keypoints_are_mapped_to_the_image_and_clipped(model: Model, outputs: dict[str, NDArray[Any]]) -> None:
    found = find_poses(outputs, model)
    expected = np.array([[[30, 28, 0.9], [50, 28, 0.1]], [[120, 48, 1], [128, 0, 0.5]]])
    np.testing.assert_allclose(found.keypoints, expected, atol=1e-5)


def test_keypoints_of_two_values_are_visible() -> None:
    model = replace(PERSONS, facts={"kpt_shape": (2, 2)})
    found = find_poses(fused(keypoints=KEYPOINTS_OF[..., :2]), model)
    assert (found.keypoints[..., 2] == 1).all()
    assert [point["class"] for point in found.to_json(model)["predictions"][0]["keypoints"]] == ["0", "1"]


def test_json_of_poses_names_every_keypoint() -> None:
    document = find_poses(fused(keypoints=KEYPOINTS_OF)).to_json(PERSONS)
    cat, dog = document["predictions"]
    assert cat["keypoints"] == [
        {"x": 30, "y": 28, "confidence": 0.9, "class_id": 0, "class": "head"},
        {"x": 50, "y": 28, "confidence": 0.1, "class_id": 1, "class": "tail"},
    ]
    assert [point["class"] for point in dog["keypoints"]] == ["left", "right"]
    jsonschema.validate(json.loads(json.dumps(document)), object_of(POSE.schema))
    few = find_poses(fused(keypoints=KEYPOINTS_OF), keypoint_confidence=0.5).to_json(PERSONS)["predictions"]
    assert [[point["class_id"] for point in each["keypoints"]] for each in few] == [[0], [0, 1]]


def test_tensors_of_poses_have_all_keypoints() -> None:
    found = [find_poses(fused(keypoints=KEYPOINTS_OF), keypoint_confidence=0.5, confidence=high) for high in (0.25, 1)]
    tensors = {name: write() for name, write in Poses.to_tensors(found, PERSONS).items()}
    described = {tensor.name: tensor for tensor in POSE.outputs(PERSONS)}
    assert list(tensors) == list(described)[1:]
    assert np.shape(tensors["keypoints"]) == (2, 2, 2, 3)
    assert described["keypoints"].shape == (-1, -1, 2, 3)
    assert np.all(np.asarray(tensors["keypoints"])[1] == 0)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "kpt_shape in parameters.metadata: got None"),
        ({"kpt_shape": [17]}, r"got \[17\], expected \[keypoints, 2 or 3\]"),
        ({"kpt_shape": [17, 4]}, "expected"),
        ({"kpt_shape": [0, 3]}, "expected"),
        ({"kpt_shape": [513, 3]}, "at most 512"),
        ({"kpt_shape": [True, 3]}, "expected"),
        ({"kpt_shape": [2, 3], "kpt_names": ["a"]}, r"kpt_names in parameters.metadata: got \['a'\], expected 2 texts"),
        ({"kpt_shape": [2, 3], "kpt_names": {0: ["a", 1]}}, "expected 2 texts"),
        ({"kpt_shape": [2, 3], "kpt_names": {0: "ab"}}, "expected 2 texts"),
        ({"kpt_shape": [2, 3], "kpt_names": 7}, "got 7"),
        ({"kpt_shape": [2, 3], "kpt_names": ["a", "\ud800"]}, "expected 2 texts"),
        ({"kpt_shape": [2, 3], "kpt_names": ["a", "b" * 101]}, "expected 2 texts of at most 100 characters"),
    ],
)
def test_description_of_a_pose_model_that_cannot_be_served_is_rejected(facts: dict[str, Any], says: str) -> None:
    model = replace(PERSONS, facts=facts, outputs=(TensorMetadata("output0", "FP32", (-1, -1, -1)),))
    with pytest.raises(ModelConfigError, match=says):
        POSE.check(model)


@pytest.mark.parametrize("task", [POSE, OBB])
def test_model_without_classes_is_rejected(task: Any) -> None:
    model = replace(PERSONS, names={}, outputs=(TensorMetadata("output0", "FP32", (-1, -1, -1)),))
    with pytest.raises(ModelConfigError, match="names is missing"):
        task.check(model)


def test_keypoints_of_all_classes_are_limited() -> None:
    outputs = (TensorMetadata("output0", "FP32", (-1, -1, -1)),)
    model = replace(PERSONS, outputs=outputs, names=dict.fromkeys(range(196), "a"), facts={"kpt_shape": [512, 3]})
    with pytest.raises(ModelConfigError, match="got 512 keypoints of 196 classes, expected at most 100000 in all"):
        POSE.check(model)


def test_metadata_of_a_pose_model_has_its_keypoints() -> None:
    assert POSE.metadata(PERSONS) == {"kpt_shape": [2, 3], "kpt_names": {"0": ["head", "tail"], "1": ["left", "right"]}}
    assert POSE.metadata(replace(PERSONS, facts={"kpt_shape": [1, 2]}))["kpt_names"] == {"0": ["0"], "1": ["0"]}


@pytest.mark.parametrize(
    ("task", "outputs", "says"),
    [
        (POSE, fused(), "expected boxes, scores, keypoints and classes, or output0"),
        (POSE, fused(keypoints=KEYPOINTS_OF[:, :1]), r"got keypoints \(1, 3\) of an object, expected \(2, 3\)"),
        (OBB, fused(), "expected boxes, scores, angles and classes, or output0"),
        (OBB, fused(angles=KEYPOINTS_OF), r"got angles \(2, 3\) of a box"),
    ],
)
def test_outputs_of_another_task_are_reported(task: Any, outputs: dict[str, NDArray[Any]], says: str) -> None:
    with pytest.raises(PredictorError, match=says):
        task.postprocess(outputs, PERSONS, plan=PLAN, options=PoseSelection())


@pytest.mark.parametrize(
    ("model", "outputs"), [(TURNED, fused(angles=ANGLES)), (replace(TURNED, inputs=BARE_INPUT), bare(ANGLES))]
)
def test_rotated_boxes_are_mapped_to_the_image_and_not_clipped(model: Model, outputs: dict[str, NDArray[Any]]) -> None:
    found = find_boxes(outputs, model)
    expected = np.array([[40, 28, 40, 20, 2], [120, 48, 24, 20, -0.5]])
    np.testing.assert_allclose(found.rotated_boxes, expected, atol=1e-5)
    assert (found.boxes_xyxy >= 0).all()
    assert found.boxes_xyxy[1, 2] == 128
    assert found.corners[1].max() > 128


def test_json_of_rotated_boxes_is_canonical_with_an_upright_box_beside_it() -> None:
    document = find_boxes(fused(angles=ANGLES)).to_json(TURNED)
    cat = document["predictions"][0]
    angle = round(2 - np.pi / 2, 6)  # width and height change places
    assert cat["rotated_box"] == {
        "x": 40,
        "y": 28,
        "width": 20,
        "height": 40,
        "rotation": pytest.approx(angle, abs=2e-6),
    }
    across, down = zip(*[(corner["x"], corner["y"]) for corner in cat["corners"]], strict=True)
    assert cat["box"] == {"x1": min(across), "y1": min(down), "x2": max(across), "y2": max(down)}
    assert cat["x"] == pytest.approx(40, abs=0.01)
    assert {"points", "rotation"}.isdisjoint(cat)  # points are a mask, a rotation beside an upright box another one
    jsonschema.validate(json.loads(json.dumps(document)), object_of(OBB.schema))


def test_tensors_of_rotated_boxes_are_canonical() -> None:
    found = [find_boxes(fused(angles=ANGLES)), find_boxes(fused(angles=ANGLES), confidence=1)]
    tensors = {name: write() for name, write in OrientedBoxes.to_tensors(found, TURNED).items()}
    assert list(tensors) == [tensor.name for tensor in OBB.outputs(TURNED)][1:]
    rotated = np.asarray(tensors["rotated_boxes"])
    assert rotated.shape == (2, 2, 5)
    np.testing.assert_allclose(rotated[0, 0], [40, 28, 20, 40, 2 - np.pi / 2], atol=1e-5)


def test_figures_of_a_comparison_are_differences() -> None:
    one = find_poses(fused(keypoints=KEYPOINTS_OF))
    assert set(one.compare(one).values()) == {0}
    moved = replace(one, keypoints=one.keypoints + np.array([3, -2, 0.25], np.float32))
    assert dict(one.compare(moved)) == pytest.approx(
        {"boxes_px": 0, "scores": 0, "keypoints_px": 3, "visibility": 0.25}
    )
    assert set(one.compare(find_poses(fused(keypoints=KEYPOINTS_OF), confidence=1)).values()) == {float("inf")}
    assert set(POSE.tolerances) == set(one.figures)


def test_box_that_is_turned_by_a_quarter_is_the_same_one() -> None:
    one = find_boxes(fused(angles=ANGLES))
    x, y, width, height, angle = one.rotated_boxes.T
    turned = np.stack([x, y, height, width, angle + np.float32(np.pi / 2)], axis=1)
    detected = {"scores": one.scores, "class_ids": one.class_ids}
    assert max(one.compare(OrientedBoxes.within((128, 64), turned, **detected)).values()) < 1e-4
    # The mirror image has the same upright box.
    mirrored = np.stack([x, y, width, height, -angle], axis=1)
    figures = one.compare(OrientedBoxes.within((128, 64), mirrored, **detected))
    assert figures["boxes_px"] < 1e-3
    assert figures["corners_px"] > 5
    assert figures["rotation"] > 0.5
    assert set(OBB.tolerances) == set(one.figures)


def test_two_boxes_crossed_are_each_compared_with_its_own() -> None:
    crossed = np.array([[50, 30, 40, 10, 0.5], [50, 30, 40, 10, -0.5]], np.float32)
    detected = {"scores": np.array([0.9, 0.9], np.float32), "class_ids": np.zeros(2, np.int64)}
    one, other = (OrientedBoxes.within((99, 99), boxes, **detected) for boxes in (crossed, crossed[::-1]))
    assert max(one.compare(other).values()) < 1e-3


def test_poses_and_rotated_boxes_are_drawn() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    for found, model in (
        (find_poses(fused(keypoints=KEYPOINTS_OF)), PERSONS),
        (find_boxes(fused(angles=ANGLES)), TURNED),
    ):
        drawn = found.draw(image, model)
        assert drawn.shape == image.shape
        assert drawn.any()
    assert not image.any()


def test_lines_are_drawn_between_the_keypoints_of_a_person_alone() -> None:
    points = np.concatenate([np.random.default_rng(0).uniform(10, 190, (1, 17, 2)), np.ones((1, 17, 1))], axis=2)
    box, score, class_id = np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    poses = Poses(box, score, class_id, keypoints=points.astype(np.float32))
    image = np.zeros((200, 200, 3), np.uint8)

    def drawn(names: Any, classes: dict[int, str]) -> int:
        model = replace(PERSONS, names=classes, facts={"kpt_shape": [17, 3], "kpt_names": names})
        return int(np.count_nonzero(poses.draw(image, model)))

    apart = drawn({}, {0: "robot"})
    assert drawn({0: list(PERSON)}, {0: "robot"}) > apart + 1000
    assert drawn({}, {0: "person"}) > apart + 1000
    assert drawn({0: [f"x{index}" for index in range(17)]}, {0: "robot"}) == apart
    hidden = replace(poses, keypoints=poses.keypoints * np.array([1, 1, 0.1], np.float32))
    model = replace(PERSONS, names={0: "person"}, facts={"kpt_shape": [17, 3]})
    assert np.count_nonzero(hidden.draw(image, model)) < apart


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_of_a_broken_model_raise_nothing(value: float) -> None:
    broken = {**fused(), "boxes": fused()["boxes"].copy()}
    broken["boxes"][0] = value
    image = np.zeros((64, 128, 3), np.uint8)
    keypoints = KEYPOINTS_OF.copy()
    keypoints[2] = value
    poses = find_poses({**broken, "keypoints": keypoints})
    poses.to_json(PERSONS)
    poses.draw(image, PERSONS)
    boxes = find_boxes({**broken, "angles": np.array([value, 1, 1], np.float32)})
    boxes.to_json(TURNED)
    boxes.draw(image, TURNED)
    next(iter(OrientedBoxes.to_tensors([boxes], TURNED).values()))()
