import json

import jsonschema
import pytest

from export.errors import ExportError
from export.writer.manifest import check_known_name, check_model_name
from registry.layout import SCHEMA_FILE as SCHEMA

SCHEMA_CONTENT = json.loads(SCHEMA.read_bytes())


@pytest.mark.parametrize("name", ["a", "yolov8n", "digit-finder", "x" * 63, "a-1--b"])
def test_legal_model_name_is_taken(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Yolo",
        "yolo_v8",
        "8n",
        "-a",
        "a-",
        "x" * 64,
        "yolov8n.onnx",
        "a/b",
        "..",
        "a b",
        "a\n",
        "ä",
        "%2e",
    ],
)
def test_illegal_model_name_is_rejected(name: str) -> None:
    with pytest.raises(ExportError, match="model name: got"):
        check_model_name(name)


@pytest.mark.parametrize(
    ("kind", "text", "legal"),
    [
        ("version", "1", True),
        ("version", "10", True),
        ("version", "0", False),
        ("version", "01", False),
        ("version", "1a", False),
        ("file_name", "model.onnx", True),
        ("file_name", ".hidden", False),
        ("file_name", "Model.onnx", False),
        ("file_name", "model_1.onnx", False),
        ("file_name", "a/b", False),
    ],
)
def test_schema_decides_versions_and_file_names(kind: str, text: str, legal: bool) -> None:
    rule = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA_CONTENT["$defs"]}
    assert jsonschema.Draft202012Validator(rule).is_valid(text) == legal


@pytest.mark.parametrize("name", ["yolov8n", "densenet_onnx", "YOLOv8n.2"])
def test_name_that_a_repository_may_have_is_known(name: str) -> None:
    assert check_known_name(name) == name


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\n", "%2e%2e/x"])
def test_name_that_no_repository_has_is_rejected(name: str) -> None:
    with pytest.raises(ExportError, match=r"model name: .*expected letters"):
        check_known_name(name)


def test_schema_is_sound() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA_CONTENT)
