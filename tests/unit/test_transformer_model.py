"""A model's description out of Triton's ModelConfig."""

from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from transformer.tasks import describe
from transformer.triton.model import ModelConfigError, TensorMetadata

DETECTOR = """
name: "finder"
backend: "onnxruntime"
max_batch_size: 8
input { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }
output { name: "boxes" data_type: TYPE_FP32 dims: [ -1, 4 ] }
output { name: "classes" data_type: TYPE_INT32 dims: [ -1 ] }
parameters { key: "metadata" value { string_value: "METADATA" } }
"""
METADATA = "{'task': 'detect', 'names': {0: 'cat'}, 'imgsz': [480, 640], 'stride': 32, 'end2end': True}"


def config(metadata: str = METADATA, text: str = DETECTOR) -> Any:
    return text_format.Parse(text.replace("METADATA", metadata), model_config_pb2.ModelConfig())


def test_describe_reads_everything_from_the_config() -> None:
    model = describe(config(), version="7")
    assert (model.name, model.version, model.task, model.platform) == ("finder", "7", "detect", "onnxruntime")
    assert model.input == TensorMetadata("image", "UINT8", (-1, -1, -1, 3))
    assert model.outputs == (
        TensorMetadata("boxes", "FP32", (-1, -1, 4)),
        TensorMetadata("classes", "INT32", (-1, -1)),
    )
    assert model.input_wh == (640, 480)
    assert (model.names, model.stride, model.end2end, model.max_batch_size) == ({0: "cat"}, 32, True, 8)


def test_describe_takes_names_as_a_list_and_one_number_as_size() -> None:
    model = describe(config("{'task': 'classify', 'names': ['a', 'b'], 'imgsz': 16, 'channels': 1}"), version="1")
    assert (model.names, model.input_wh, model.channels) == ({0: "a", 1: "b"}, (16, 16), 1)


@pytest.mark.parametrize(
    ("names", "read", "classes"),
    [
        ("{2: 'b', 0: 'a'}", {0: "a", 2: "b"}, 3),  # a gap, and in the order of the indices
        ("{'0': 'a', '10': 'b'}", {0: "a", 10: "b"}, 11),  # keys as JSON has them
        ("{0: 'a', 1: 'a'}", {0: "a", 1: "a"}, 2),
        ("{0: '', 1: 'a, b', 2: ' c'}", {0: "", 1: "a, b", 2: " c"}, 3),
        ("{}", {}, 0),
    ],
)
def test_describe_keeps_names_as_they_are(names: str, read: dict[int, str], classes: int) -> None:
    model = describe(config(f"{{'task': 'detect', 'imgsz': 640, 'names': {names}}}"), version="1")
    assert list(model.names.items()) == list(read.items())
    assert model.classes == classes


def test_describe_without_batching_takes_the_first_dimension_as_the_batch() -> None:
    text = DETECTOR.replace("max_batch_size: 8", "max_batch_size: 0").replace("[ -1, -1, 3 ]", "[ 1, 320, 320, 3 ]")
    model = describe(config(text=text), version="1")
    assert model.input.dims == (320, 320, 3)
    assert model.max_batch_size == 1


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("", "expected a Python dict"),
        ("{'task': detect}", "expected a Python dict"),
        ("['detect']", "expected a Python dict"),
        ("{'names': {}}", "got None, expected one of"),
        ("{'task': 'tracking'}", "got 'tracking', expected one of"),
        ("{'task': 'detect'}", "imgsz is missing"),
        (
            "{'task': 'detect', 'imgsz': 8193}",
            "imgsz in parameters.metadata: got 8193, expected a whole number from 1 to",
        ),
        ("{'task': 'detect', 'imgsz': [640, 0]}", "imgsz in parameters.metadata: got 0, expected"),
        ("{'task': 'detect', 'imgsz': '640'}", "imgsz in parameters.metadata: got '640', expected"),
        ("{'task': 'detect', 'imgsz': [640]}", "expected one or two"),
        ("{'task': 'detect', 'imgsz': 640, 'stride': 0}", "stride in parameters.metadata: got 0, expected"),
        ("{'task': 'detect', 'imgsz': 640, 'stride': 'x'}", "stride in parameters.metadata: got 'x', expected"),
        ("{'task': 'detect', 'imgsz': 640, 'channels': 65}", "channels in parameters.metadata: got 65, expected"),
        ("{'task': 'detect', 'imgsz': 640, 'names': 7}", "names in parameters.metadata: got 7, expected 100000"),
        ("{'task': 'detect', 'imgsz': 640, 'names': {-1: 'a'}}", "got -1: 'a', expected a text by number, each number"),
        ("{'task': 'detect', 'imgsz': 640, 'names': {True: 'a'}}", "got True: 'a', expected a text by number"),
        ("{'task': 'detect', 'imgsz': 640, 'names': {'x': 'a'}}", "got 'x': 'a', expected a text by number"),
        ("{'task': 'detect', 'imgsz': 640, 'names': {0: 'a', '0': 'b'}}", "got '0': 'b', expected a text by number"),
        ("{'task': 'detect', 'imgsz': 640, 'names': {0: 7}}", "got 0: 7, expected a text by number"),
        (r"{'task': 'detect', 'imgsz': 640, 'names': {0: '\\ud800'}}", r"got 0: '\\ud800', expected a text by number"),
    ],
)
def test_describe_rejects_a_config_that_does_not_describe(metadata: str, says: str) -> None:
    with pytest.raises(ModelConfigError, match=says):
        describe(config(metadata), version="1")


def test_describe_rejects_two_inputs() -> None:
    text = DETECTOR + 'input { name: "more" data_type: TYPE_FP32 dims: [ 1 ] }'
    with pytest.raises(ModelConfigError, match="got 2 inputs and 2 outputs"):
        describe(config(text=text), version="1")


MIXED = """
name: "people"
max_batch_size: 8
input { name: "age" data_type: TYPE_FP64 dims: [ 1 ] }
input { name: "city" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "values" data_type: TYPE_FP32 dims: [ 1 ] }
parameters { key: "metadata" value { string_value: "METADATA" } }
"""
COLUMNS = "'task': 'tabular', 'features': ['age', 'city']"


def test_table_with_strings_has_an_input_for_each_column() -> None:
    text = f"{{{COLUMNS}, 'missing': ['age'], 'categories': {{'city': ['Oslo', 'Roma']}}}}"
    model = describe(config(text, MIXED), version="1")
    assert [(tensor.name, tensor.datatype) for tensor in model.inputs] == [("age", "FP64"), ("city", "BYTES")]
    assert model.missing == {"age"}
    assert model.categories == {"city": frozenset({"Oslo", "Roma"})}


@pytest.mark.parametrize(
    ("metadata", "text", "says"),
    [
        ("{'task': 'tabular', 'features': ['city', 'age']}", MIXED, "one .1. for each feature, under its name"),
        ("{'task': 'detect', 'imgsz': 32}", MIXED, "got 2 inputs and 1 outputs"),
        (f"{{{COLUMNS}}}", MIXED.replace("TYPE_STRING dims: [ 1 ]", "TYPE_STRING dims: [ 2 ]"), "got 2 inputs"),
        (f"{{{COLUMNS}, 'missing': ['size']}}", MIXED, "missing in parameters.metadata: got .*, expected features"),
        (f"{{{COLUMNS}, 'missing': 7}}", MIXED, "missing in parameters.metadata"),
        (f"{{{COLUMNS}, 'categories': {{'city': 7}}}}", MIXED, "categories in parameters.metadata: got 7"),
        (f"{{{COLUMNS}, 'categories': {{'city': [None]}}}}", MIXED, "expected texts or numbers"),
        (f"{{{COLUMNS}, 'categories': {{'size': []}}}}", MIXED, "categories in parameters.metadata"),
        (f"{{{COLUMNS}, 'categories': ['city']}}", MIXED, "categories in parameters.metadata"),
    ],
)
def test_table_that_does_not_fit_its_columns_is_rejected(metadata: str, text: str, says: str) -> None:
    with pytest.raises(ModelConfigError, match=says):
        describe(config(metadata, text), version="1")
