"""Parameters of a request."""

from typing import Any

import pytest

from tests.support.described import DETECTOR
from transformer.errors import InvalidRequest
from transformer.model import Model, TensorMetadata
from transformer.parameters import read_selection
from transformer.tasks.detect import Selection

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
        ({"classes": "7"}, Selection(class_ids=frozenset({2}))),  # a name that looks like an index is a name
    ],
)
def test_read_selection_accepts(parameters: dict[str, Any], selection: Selection) -> None:
    assert read_selection(parameters, DETECTOR) == selection


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
        ({"classes": "bird"}, r"has no class 'bird'; expected names or indices of \['cat', 'dog', '7'\]"),
        ({"classes": "3"}, "has no class '3'"),
        ({"classes": "-1"}, "has no class '-1'"),
        ({"classes": ""}, "has no class ''"),
        ({"classes": {"a": 1}}, "has no class"),
    ],
)
def test_read_selection_refuses(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_selection(parameters, DETECTOR)


def test_read_selection_of_a_table_takes_none() -> None:
    assert read_selection({}, TABLE) == Selection()
    with pytest.raises(InvalidRequest, match="expected none, iris is a model for tabular"):
        read_selection({"confidence": "0.5"}, TABLE)


def test_read_selection_refuses_endless_classes() -> None:
    with pytest.raises(InvalidRequest, match="got 10001, expected at most 10000"):
        read_selection({"classes": [0] * 10_001}, DETECTOR)
