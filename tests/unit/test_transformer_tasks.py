"""Each task's preprocess and postprocess."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.described import CLASSIFIER, FUSED, TABLE
from transformer.errors import InvalidRequest, PredictorError
from transformer.imaging.letterbox import fit
from transformer.offload import INLINE_COST
from transformer.tasks import TASKS, finds_objects
from transformer.tasks.candidates import MAX_NMS_CANDIDATES
from transformer.tasks.classify import CLASSIFY, Choice, fill
from transformer.tasks.columns import Rows
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection
from transformer.tasks.objects import Detections
from transformer.tasks.tabular import TABULAR
from transformer.triton.model import Model, TensorMetadata

BARE = replace(FUSED, inputs=(TensorMetadata("images", "FP32", (-1, 3, -1, -1)),))
PLAN = fit((64, 64), (64, 64), stride=32)
# Two cats that overlap, a weak dog.
CXCYWH = np.array([[20, 20, 20, 20], [21, 20, 20, 20], [50, 50, 10, 10]], np.float32)
SCORES = np.array([0.9, 0.8, 0.3], np.float32)
CLASSES = np.array([0, 0, 1], np.int32)


def fused_outputs() -> dict[str, NDArray[Any]]:
    return {"boxes": CXCYWH, "scores": SCORES, "classes": CLASSES}


def bare_outputs() -> dict[str, NDArray[Any]]:
    head = np.zeros((6, 3), np.float32)
    head[:4] = CXCYWH.T
    head[4 + CLASSES, np.arange(3)] = SCORES
    return {"output0": head}


def test_detect_preprocess_takes_the_smallest_rectangle_where_dims_are_free() -> None:
    tensor, plan = DETECT.preprocess(np.zeros((40, 80, 3), np.uint8), FUSED)
    assert (tensor.shape, tensor.dtype, plan.input_wh) == ((32, 64, 3), np.dtype("uint8"), (64, 32))


def test_detect_preprocess_takes_the_square_where_dims_are_fixed() -> None:
    tensor, _ = DETECT.preprocess(
        np.zeros((40, 80, 3), np.uint8), replace(FUSED, inputs=(TensorMetadata("image", "UINT8", (-1, 64, 64, 3)),))
    )
    assert tensor.shape == (64, 64, 3)


def test_detect_preprocess_for_ultralytics_is_planes_from_zero_to_one() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 255
    tensor, _ = DETECT.preprocess(image, BARE)
    assert (tensor.shape, tensor.dtype) == ((3, 64, 64), np.dtype("float32"))
    assert tensor.flags.c_contiguous
    assert tensor[0].min() == 1
    assert tensor[1:].max() == 0


@pytest.mark.parametrize(("model", "outputs"), [(FUSED, fused_outputs()), (BARE, bare_outputs())])
@pytest.mark.parametrize(
    ("selection", "scores"),
    [
        (Selection(), [0.9, 0.3]),
        (Selection(iou=0.95), [0.9, 0.8, 0.3]),
        (Selection(confidence=0.5), [0.9]),
        (Selection(confidence=0.9), []),  # above, not at
        (Selection(max_detections=1), [0.9]),
        (Selection(class_ids=frozenset({1})), [0.3]),
        (Selection(class_ids=frozenset()), []),
    ],
)
def test_detect_postprocess_selects_alike_in_both_interfaces(
    model: Model, outputs: dict[str, NDArray[Any]], selection: Selection, scores: list[float]
) -> None:
    detections = DETECT.postprocess(outputs, model, plan=PLAN, options=selection)
    np.testing.assert_allclose(detections.scores, scores)
    assert detections.boxes_xyxy.shape == (len(scores), 4)


def test_detect_postprocess_gives_corners_in_the_image() -> None:
    plan = fit((128, 64), (64, 64), stride=None)  # half the size, 16 rows of padding above
    detections = DETECT.postprocess(fused_outputs(), FUSED, plan=plan, options=Selection())
    assert detections.boxes_xyxy[0].tolist() == [20, 0, 60, 28]  # (10..30, 10..30) up by 16, twice as large, clipped
    assert detections.class_ids.tolist() == [0, 1]


def test_detect_postprocess_without_nms_keeps_what_the_head_chose() -> None:
    head = np.array([[10, 10, 30, 30, 0.8, 1], [11, 10, 31, 30, 0.9, 1], [0, 0, 5, 5, 0.1, 0]], np.float32)
    detections = DETECT.postprocess(
        {"output0": head}, replace(BARE, end2end=True), plan=PLAN, options=Selection(iou=0.1)
    )
    np.testing.assert_allclose(detections.scores, [0.9, 0.8])
    assert detections.boxes_xyxy[0].tolist() == [11, 10, 31, 30]


CAPPED = FUSED  # nothing in its config says that its graph leaves out none
WHOLE = replace(FUSED, all_candidates=True)
FINISHED = replace(BARE, end2end=True)


def crowd(objects: int, around: int) -> dict[str, NDArray[Any]]:
    """Objects on a grid, each with some candidates that are nearly alike; all of class 0, but the weakest."""
    columns = int(np.ceil(np.sqrt(objects)))
    centres = np.stack(np.divmod(np.arange(objects), columns), axis=1) * 20.0 + 10
    boxes = np.concatenate([centres, np.full((objects, 2), 16.0)], axis=1)[:, None] + np.zeros((1, around, 1))
    boxes[..., 0] += np.linspace(-0.5, 0.5, around)
    classes = np.zeros(objects * around, np.int32)
    classes[-around:] = 1
    return {
        "boxes": boxes.reshape(-1, 4).astype(np.float32),
        "scores": np.linspace(0.9, 0.3, objects * around, dtype=np.float32),
        "classes": classes,
    }


def choose(outputs: dict[str, NDArray[Any]], model: Model, **selection: Any) -> Detections:
    plan = fit((400, 400), (400, 400), stride=None)
    return DETECT.postprocess(outputs, model, plan=plan, options=Selection(**selection))


def test_a_crowd_loses_no_object_however_many_candidates_each_has() -> None:
    found = choose(crowd(300, around=12), WHOLE)
    assert (len(found.scores), dict(found.limits_reached)) == (300, {})


def test_a_rare_class_is_found_in_a_crowd_whatever_the_limits() -> None:
    found = choose(crowd(300, around=12), WHOLE, class_ids=frozenset({1}), max_detections=1)
    assert (found.class_ids.tolist(), dict(found.limits_reached)) == ([1], {})


@pytest.mark.parametrize(("most", "reached"), [(299, {"max_detections": 299}), (300, {}), (301, {})])
def test_detections_beyond_the_limit_are_reported(most: int, reached: dict[str, int]) -> None:
    found = choose(crowd(300, around=12), WHOLE, max_detections=most)
    assert (len(found.scores), dict(found.limits_reached)) == (min(most, 300), reached)


def bare(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    head = np.zeros((6, len(outputs["scores"])), np.float32)
    head[:4] = outputs["boxes"].T
    head[4 + outputs["classes"], np.arange(len(outputs["scores"]))] = outputs["scores"]
    return {"output0": head}


def finished(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    centres, half = outputs["boxes"][:, :2], outputs["boxes"][:, 2:] / 2
    parts = [centres - half, centres + half, outputs["scores"][:, None], outputs["classes"][:, None]]
    return {"output0": np.concatenate(parts, axis=1).astype(np.float32)}


@pytest.mark.parametrize(
    ("model", "write", "reached"),
    [
        (CAPPED, dict, {"model_candidates": 30}),
        (WHOLE, dict, {}),
        (BARE, bare, {}),
        (FINISHED, finished, {"model_candidates": 30}),
    ],
)
def test_candidates_that_are_all_wanted_are_reported_where_the_graph_may_have_left_out_more(
    model: Model, write: Any, reached: dict[str, int]
) -> None:
    outputs = write(crowd(30, around=1))
    assert dict(choose(outputs, model).limits_reached) == reached
    assert dict(choose(outputs, model, class_ids=frozenset({1})).limits_reached) == reached
    assert dict(choose(outputs, model, confidence=0.3).limits_reached) == {}  # the last is not above it


def test_nms_takes_the_best_30000_and_says_so() -> None:
    count = MAX_NMS_CANDIDATES + 1
    outputs = {
        "boxes": np.tile(np.array([[50, 50, 10, 10]], np.float32), (count, 1)),
        "scores": np.linspace(0.3, 0.9, count, dtype=np.float32),
        "classes": np.zeros(count, np.int32),
    }
    outputs["boxes"][0] = 80, 80, 10, 10  # the weakest, apart from the others
    found = choose(outputs, WHOLE)
    assert (len(found.scores), dict(found.limits_reached)) == (1, {"nms_candidates": 30_000})
    outputs = {name: array[1:] for name, array in outputs.items()}
    assert dict(choose(outputs, WHOLE).limits_reached) == {}


def test_what_finds_objects_takes_a_second_step_and_what_classifies_is_one() -> None:
    parameters = {name: {parameter.name for parameter in task.parameters} for name, task in TASKS.items()}
    assert {name for name, task in TASKS.items() if finds_objects(task)} == {
        name for name, names in parameters.items() if "then" in names
    }
    detections = DETECT.postprocess(fused_outputs(), FUSED, plan=PLAN, options=Selection())
    assert detections.object_boxes is detections.boxes_xyxy
    assert detections.best_class is None
    np.testing.assert_array_equal(detections.crop(np.zeros((64, 64, 3), np.uint8), 0), np.zeros((20, 20, 3)))
    outputs = {"probabilities": np.array([0.2, 0.8], np.float32)}
    classification = CLASSIFY.postprocess(outputs, CLASSIFIER, plan=(0, 0, 1, 1), options=Choice())
    assert classification.best_class == (1, float(np.float32(0.8)))
    assert classification.object_boxes is None


def test_nothing_found_reaches_no_limit() -> None:
    empty = {name: array[:0] for name, array in crowd(1, around=1).items()}
    assert dict(choose(empty, CAPPED).limits_reached) == {}


def test_detect_postprocess_names_outputs_it_does_not_know() -> None:
    with pytest.raises(PredictorError, match=r"got outputs \{'logits': \(3,\)\}, expected boxes"):
        DETECT.postprocess({"logits": np.zeros(3)}, FUSED, plan=PLAN, options=Selection())


@pytest.mark.parametrize("size_hw", [(16, 16), (8, 8), (200, 100), (1, 1), (1, 5000), (20000, 2), (333, 1024)])
def test_classify_preprocess_brings_any_size_to_the_models(size_hw: tuple[int, int]) -> None:
    tensor = fill(np.full((*size_hw, 3), 77, np.uint8), CLASSIFIER)
    assert (tensor.shape, tensor.dtype) == ((16, 16, 1), np.dtype("uint8"))
    assert (tensor == 77).all()


def test_classify_preprocess_keeps_proportions_by_repeating_the_edge() -> None:
    image = np.zeros((16, 8, 3), np.uint8)
    image[:, 4:] = 255
    tensor = fill(image, CLASSIFIER)[..., 0]
    assert (tensor[:, :8] == 0).all()
    assert (tensor[:, 8:] == 255).all()


def test_classify_preprocess_keeps_colour_where_the_model_wants_it() -> None:
    model = replace(CLASSIFIER, channels=3)
    assert fill(np.full((5, 9, 3), (1, 2, 3), np.uint8), model)[3, 3].tolist() == [1, 2, 3]


def test_classify_postprocess_wants_a_probability_for_each_name() -> None:
    outputs = {"probabilities": np.array([0.25, 0.75], np.float32)}
    read = partial(CLASSIFY.postprocess, outputs, plan=(0, 0, 1, 1), options=Choice())
    assert read(CLASSIFIER).probabilities.tolist() == [0.25, 0.75]
    with pytest.raises(PredictorError, match=r"got probabilities \(2,\), expected \(3,\)"):
        read(replace(CLASSIFIER, names={0: "a", 1: "b", 2: "c"}))


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2.5], [3, 4]],
        [{"length": 1, "width": 2.5}, {"width": 4, "length": 3}],
        [[1, 2.5], {"length": 3, "width": 4}],
    ],
)
def test_tabular_preprocess_takes_lists_and_objects(rows: list[Any]) -> None:
    table = TABULAR.preprocess(rows, TABLE)["features"]
    assert table.dtype == np.float32
    assert table.tolist() == [[1, 2.5], [3, 4]]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "got none"),
        ([[1]], "row 0: got 1 values, expected 2: length, width"),
        ([[1, 2], [1, 2, 3]], "row 1: got 3 values"),
        ([[1, "2"]], "row 0, column 1: got '2', expected an FP32 number"),
        ([[1, None]], "got None"),
        ([[True, 1]], "got True"),
        ([[1e39, 1]], "got 1e\\+39, expected an FP32 number"),
        ([[10**400, 1]], "expected an FP32 number"),
        ([[[1], 2]], r"got \[1\]"),
        (["12"], "row 0: got str"),
        ([5], "row 0: got int"),
        ([{"length": 1}], r"missing \['width'\]"),
        ([{"length": 1, "width": 2, "depth": 3}], r"unknown \['depth'\]"),
    ],
)
def test_tabular_preprocess_names_what_is_wrong(rows: list[Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        TABULAR.preprocess(rows, TABLE)


def test_tabular_preprocess_of_a_model_without_names_takes_lists_only() -> None:
    model = replace(TABLE, features=())
    assert TABULAR.preprocess([[1, 2]], model)["features"].shape == (1, 2)
    with pytest.raises(InvalidRequest, match="does not name its columns"):
        TABULAR.preprocess([{"a": 1, "b": 2}], model)


def test_names_in_a_message_are_few_and_short() -> None:
    row = dict.fromkeys((f"{index}{'x' * 1000}" for index in range(9999)), 1)
    with pytest.raises(InvalidRequest, match=r"missing \['length', 'width'\], unknown .* and 9994 more, exp") as caught:
        TABULAR.preprocess([row], TABLE)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("rows", "is_inline"),
    [
        ([[1, 2]] * 100, True),
        ([{"length": 1, "width": 2}] * 100, True),
        (["x" * 9999, 5], True),
        ([[1] * 9999], False),
        ([dict.fromkeys(range(9999), 1)], False),
        ([[]] * 1024, False),
        (np.zeros((1024, 64)), True),
        (np.zeros((1024, 1024)), False),
    ],
)
def test_rows_cost_by_the_number_of_their_values(rows: Rows, is_inline: bool) -> None:
    assert (TABULAR.cost(rows) <= INLINE_COST) == is_inline


MIXED = replace(
    TABLE,
    inputs=(
        TensorMetadata("age", "FP64", (-1, 1)),
        TensorMetadata("city", "BYTES", (-1, 1)),
        TensorMetadata("floor", "FP64", (-1, 1)),
    ),
    features=("age", "city", "floor"),
    missing=frozenset({"age", "city"}),
    categories={"floor": frozenset({0.0, 1.0})},
)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.5, "Köln", 1], [None, None, 0]],
        [{"floor": 1, "city": "Köln", "age": 1.5}, {"age": None, "city": "", "floor": 0.0}],
        {
            "age": np.array([[1.5], [np.nan]]),
            "city": np.array([["Köln"], [""]], object),
            "floor": np.array([[1.0], [0.0]]),
        },
    ],
    ids=["lists", "objects", "columns"],
)
def test_each_column_of_a_table_with_strings_is_an_input(rows: Rows) -> None:
    assert TABULAR.count(rows) == 2
    arrays = TABULAR.preprocess(rows, MIXED)
    assert {name: array.dtype.kind for name, array in arrays.items()} == {"age": "f", "city": "O", "floor": "f"}
    assert {array.shape for array in arrays.values()} == {(2, 1)}
    np.testing.assert_array_equal(arrays["age"], [[1.5], [np.nan]])
    assert arrays["city"].tolist() == [["Köln"], [""]]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["1", "Köln", 1], "column 0: got '1', expected an FP32 number, or null"),
        (["", "Köln", 1], "column 0: got '', expected an FP32 number, or null"),
        ([1, 7, 1], r"column 1 \(city\): got 7, expected a string, or null"),
        ([1, "a\0b", 1], r"column 1 \(city\): got .*, expected a string"),
        ([1, ["a"], 1], r"column 1 \(city\): got \['a'\], expected a string"),
        ([1, "Köln", 2], r"column 2 \(floor\): got 2, expected one of \[0.0, 1.0\]$"),
        ([1, "Köln", None], r"column 2 \(floor\): got None, .*; this model takes no missing value there"),
        ([1, "Köln"], "row 0: got 2 values, expected 3: age, city, floor"),
    ],
)
def test_value_that_a_column_does_not_hold_is_named(row: list[Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        TABULAR.preprocess([row], MIXED)


def test_numbers_beside_each_other_are_not_the_columns_of_a_table_with_strings() -> None:
    with pytest.raises(InvalidRequest, match=r"got shape \[1, 3\]"):
        TABULAR.preprocess(np.zeros((1, 3)), MIXED)


HOLED = replace(
    TABLE,
    inputs=(TensorMetadata("features", "FP64", (-1, 2)),),
    missing=frozenset({"width"}),
    categories={"length": frozenset({1, 2})},
)


def test_missing_values_and_categories_of_an_array() -> None:
    table = TABULAR.preprocess(np.array([[1, np.nan], [2, 0.1]], np.float64), HOLED)["features"]
    assert table.dtype == np.float64
    assert np.isnan(table[0, 1])
    assert table[1].tolist() == [2, 0.1]
    with pytest.raises(InvalidRequest, match=r"row 1, column 0 \(length\): got 3.0, expected one of \[1, 2\]"):
        TABULAR.preprocess(np.array([[1, 1], [3.0, 1]]), HOLED)
    with pytest.raises(InvalidRequest, match=r"row 0, column 0 .*got nan, .* takes no missing value there"):
        TABULAR.preprocess(np.array([[np.nan, 1]]), HOLED)
    with pytest.raises(InvalidRequest, match="row 0, column 1: got inf, expected an FP32 number, or null"):
        TABULAR.preprocess(np.array([[1, np.inf]]), HOLED)
