"""Parameters of a request."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.described import DETECTOR
from transformer.errors import InvalidRequest
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection
from transformer.tasks.tabular import TABULAR
from transformer.tasks.task import NoOptions
from transformer.triton.model import Model, TensorMetadata

TABLE = Model(
    "iris",
    "1",
    "tabular",
    (TensorMetadata("features", "FP32", (-1, 4)),),
    (),
    8,
    {},
)


@pytest.mark.parametrize(
    ("parameters", "selection"),
    [
        ({}, Selection(0.25, 0.7, 300, None)),
        ({"confidence": "0.5", "iou": "0"}, Selection(0.5, 0.0)),
        ({"confidence": 1, "iou": 1.0, "max_detections": 5}, Selection(1.0, 1.0, 5)),
        ({"max_detections": "17"}, Selection(max_detections=17)),
        ({"classes": "cat, dog"}, Selection(class_ids=frozenset({0, 1}))),
        ({"classes": [1, "cat"]}, Selection(class_ids=frozenset({0, 1}))),
        ({"classes": 1}, Selection(class_ids=frozenset({1}))),
        ({"classes": "7"}, Selection(class_ids=frozenset({2}))),  # in text a name that looks like an index is a name
        ({"classes": []}, Selection(class_ids=frozenset())),
        ({"then": "digits"}, Selection(then="digits")),
    ],
)
def test_options_of_a_detector_accepts(parameters: dict[str, Any], selection: Selection) -> None:
    assert DETECT.read_options(parameters, DETECTOR) == selection


def ids(names: dict[int, str], classes: Any) -> list[int]:
    model = replace(DETECTOR, names=names)
    selection = DETECT.read_options({"classes": classes}, model)
    assert selection.class_ids is not None
    return sorted(selection.class_ids)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("names", "classes", "chosen"),
    [
        # Two classes of one name are both of that name.
        ({0: "helmet", 1: "helmet", 2: "vest"}, "helmet", [0, 1]),
        ({0: "helmet", 1: "helmet", 2: "vest"}, 1, [1]),
        # Names that are numbers: text is a name first, a number of JSON is an index.
        ({0: "1", 1: "0"}, "0", [1]),
        ({0: "1", 1: "0"}, 0, [0]),
        ({0: "1", 1: "0"}, ["1", 1], [0, 1]),
        ({0: "1", 1: "x"}, "0", [0]),  # no name: an index
        ({0: "01", 1: "x"}, "1", [1]),
        # Gaps: a class that has no name is one too.
        ({1: "a", 5: "b"}, "5", [5]),
        ({1: "a", 5: "b"}, "b", [5]),
        ({1: "a", 5: "b"}, "3", [3]),
        ({}, "3", [3]),
        # Commas, white space, nothing.
        ({0: "car, red", 1: "car", 2: "red"}, "car, red", [0]),
        ({0: "car, red", 1: "car", 2: "red"}, "red, car", [1, 2]),
        ({0: "car, red", 1: "car", 2: "red"}, ["car, red", "car"], [0, 1]),
        ({0: "hard hat", 1: "hard\nhat"}, "hard hat", [0]),
        ({0: "hard hat", 1: "hard\nhat"}, "hard\nhat", [1]),
        ({0: " vest ", 1: "hat"}, "vest,hat", [0, 1]),
        ({0: "", 1: "hat"}, "", [0]),
        ({0: "", 1: "hat"}, "hat,", [0, 1]),
        # One text, two encodings.
        ({0: COMPOSED, 1: "tea"}, DECOMPOSED, [0]),
        ({0: DECOMPOSED, 1: "tea"}, COMPOSED, [0]),
        ({0: DECOMPOSED, 1: COMPOSED}, COMPOSED, [0, 1]),
        ({0: "安全帽", 1: "Шлем"}, "Шлем,安全帽", [0, 1]),
        ({0: "٣", 1: "x"}, "٣", [0]),
    ],
)
def test_classes_are_found_by_any_name_and_index(names: dict[int, str], classes: Any, chosen: list[int]) -> None:
    assert ids(names, classes) == chosen


@pytest.mark.parametrize("classes", ["٣", "2", "-1", 2, -1, 10**30, True, 1.0, None, "hat,", ["hat", None]])
def test_value_that_is_neither_name_nor_index_is_rejected(classes: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"has no class .*; expected names or indices of {0: 'hat', 1: 'vest'}"):
        ids({0: "hat", 1: "vest"}, classes)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"conf": "0.5"}, "parameter 'conf' is unknown; expected one of confidence, iou"),
        ({"confidence": "1.5"}, "got '1.5', expected a number from 0 to 1"),
        ({"confidence": "-0.1"}, "expected a number from 0 to 1"),
        ({"confidence": "nan"}, "expected a number from 0 to 1"),
        ({"confidence": "abc"}, "got 'abc'"),
        ({"confidence": True}, "got True"),
        ({"confidence": None}, "got None"),
        ({"iou": [0.5]}, "parameter 'iou'"),
        ({"max_detections": "0"}, "whole number from 1 to 1000"),
        ({"max_detections": "1001"}, "whole number from 1 to 1000"),
        ({"max_detections": "2.5"}, "got '2.5'"),
        ({"max_detections": 10**30}, "whole number"),
        ({"classes": "bird"}, r"has no class 'bird'; expected names or indices of {0: 'cat', 1: 'dog', 2: '7'}"),
        ({"classes": "3"}, "has no class '3'"),
        ({"classes": "-1"}, "has no class '-1'"),
        ({"classes": ""}, "has no class ''"),
        ({"classes": {"a": 1}}, "has no class"),
    ],
)
def test_options_of_a_detector_rejects(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        DETECT.read_options(parameters, DETECTOR)


def test_table_has_no_parameters() -> None:
    assert TABULAR.read_options({}, TABLE) == NoOptions()
    with pytest.raises(InvalidRequest, match="expected none, iris is a model for tabular"):
        TABULAR.read_options({"confidence": "0.5"}, TABLE)


def test_options_of_a_detector_rejects_endless_classes() -> None:
    for classes in ([0] * 10_001, "0," * 10_000, ["0,0"] * 5001):
        with pytest.raises(InvalidRequest, match=r"got 100\d\d, expected at most 10000"):
            DETECT.read_options({"classes": classes}, DETECTOR)
    with pytest.raises(InvalidRequest, match="got 300000 characters, expected at most 262144"):
        DETECT.read_options({"classes": ["x" * 1000] * 300}, DETECTOR)
