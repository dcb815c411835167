"""Class names of any kind and limits that were reached, through the real stack and by every protocol."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from export.__main__ import main as export
from tests.support.detectors import CLASSES, build_finder, draw_squares, save
from tests.support.stack import Stack, start_stack
from tests.support.versions import seal
from transformer.imaging.drawing import Label, draw_boxes

NAMES: dict[str, dict[int, str]] = {
    "twice": {0: "helmet", 1: "helmet", 2: "vest"},
    "numbers": {0: "2", 1: "0", 2: "1"},
    "scripts": {0: "Шлем, красный", 1: "安全帽", 2: "cafe\u0301"},
    "shaped": {0: "خوذة", 1: "हेलमेट", 2: "קסדה"},
    "odd": {0: "", 1: "hard\nhat", 2: "🚗"},
}
GAPS = {0: "red", 2: "blue"}
ALL_CANDIDATES = ", \\'all_candidates\\': True"


def find_image() -> tuple[Any, list[int]]:
    """Squares of every class."""
    for seed in range(100):
        image, _, class_ids = draw_squares(seed)
        if set(class_ids) == set(range(CLASSES)):
            return image, sorted(int(class_id) for class_id in class_ids)
    raise AssertionError("no such image")


IMAGE, PRESENT = find_image()


def encode() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG")
    return buffer.getvalue()


PNG = encode()


def change(repository: Path, name: str, before: str, after: str) -> None:
    """Another config.pbtxt for a version, as a user writes it by hand."""
    version = repository / name / "1"
    for path in (version / "config.pbtxt", version.parent / "config.pbtxt"):
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
    seal(version)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("detections")
    repository = folder / "repository"
    plain = {0: "red", 1: "green", 2: "blue"}
    for name, names in {**NAMES, "gaps": GAPS, "capped": plain}.items():
        weights = save(folder, build_finder(), names=repr(names), imgsz="64")
        assert export(["ultralytics", name, str(weights), "--repository", str(repository)]) == 0
    change(repository, "capped", ALL_CANDIDATES, "")  # as versions are that were exported when graphs had a cap
    with start_stack(repository, folder / "log") as running:
        yield running


def predict(stack: Stack, model: str, **query: Any) -> dict[str, Any]:
    response = stack.http.post(
        f"/predict/{model}", params=query, content=PNG, headers={"Content-Type": "image/png"}
    ).raise_for_status()
    document: dict[str, Any] = response.json()
    return document


def class_ids(document: dict[str, Any]) -> list[int]:
    return sorted(row["class_id"] for row in document["predictions"])


def of(*chosen: int) -> list[int]:
    return [class_id for class_id in PRESENT if class_id in chosen]


@pytest.mark.parametrize("model", NAMES)
def test_names_of_classes_are_returned_unchanged(stack: Stack, model: str) -> None:
    document = predict(stack, model)
    assert class_ids(document) == PRESENT
    assert all(row["class"] == NAMES[model][row["class_id"]] for row in document["predictions"])
    metadata = stack.http.get(f"/v2/models/{model}").json()["parameters"]
    assert dict(zip(metadata["class_ids"], metadata["names"], strict=True)) == NAMES[model]
    config = stack.http.get(f"/v2/models/{model}/config").json()
    assert repr(NAMES[model]) in config["parameters"]["metadata"]["string_value"]


def test_a_class_without_a_name_is_its_index(stack: Stack) -> None:
    names = {**GAPS, 1: "1"}
    assert {row["class_id"]: row["class"] for row in predict(stack, "gaps")["predictions"]} == names
    assert class_ids(predict(stack, "gaps", classes="1")) == of(1)
    assert class_ids(predict(stack, "gaps", classes="2,red")) == of(0, 2)
    metadata = stack.http.get("/v2/models/gaps").json()["parameters"]
    assert (metadata["names"], metadata["class_ids"]) == (["red", "blue"], [0, 2])


@pytest.mark.parametrize(
    ("model", "classes", "chosen"),
    [
        ("twice", "helmet", (0, 1)),
        ("twice", "1", (1,)),
        ("numbers", "0", (1,)),
        ("numbers", "2", (0,)),
        ("scripts", "Шлем, красный", (0,)),
        ("scripts", "安全帽,caf\u00e9", (1, 2)),
        ("scripts", ["Шлем, красный", "2"], (0, 2)),
        ("odd", "", (0,)),
        ("odd", "hard\nhat,🚗", (1, 2)),
    ],
)
def test_classes_in_the_query_are_names_first(stack: Stack, model: str, classes: Any, chosen: tuple[int, ...]) -> None:
    assert class_ids(predict(stack, model, classes=classes)) == of(*chosen)


@pytest.mark.parametrize(("classes", "chosen"), [([0], 0), (["0"], 1), (0, 0), ("0", 1), ([2], 2), (["2"], 0)])
def test_numbers_of_json_and_grpc_are_indices(stack: Stack, classes: Any, chosen: int) -> None:
    body = {"instances": [{"image": {"b64": base64.b64encode(PNG).decode()}}], "parameters": {"classes": classes}}
    v1 = stack.http.post("/v1/models/numbers:predict", json=body).raise_for_status().json()["predictions"][0]
    assert class_ids(v1) == of(chosen)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PNG).decode()]}
    v2 = {"inputs": [tensor], "parameters": {"classes": classes}, "outputs": [{"name": "class_ids"}]}
    (output,) = stack.http.post("/v2/models/numbers/infer", json=v2).raise_for_status().json()["outputs"]
    assert sorted(output["data"]) == of(chosen)
    if not isinstance(classes, list):  # gRPC's parameters are no lists
        result = infer_with_tritonclient(tritonclient.grpc, stack.grpc_port, "numbers", classes=classes)
        assert sorted(result.as_numpy("class_ids")[0].tolist()) == of(chosen)


def infer_with_tritonclient(library: Any, port: int, model: str, count: int = 1, **parameters: Any) -> Any:
    tensor = library.InferInput("image", [count], "BYTES")
    tensor.set_data_from_numpy(np.array([PNG] * count, np.object_))
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.infer(model, [tensor], parameters=parameters)


@pytest.mark.parametrize("model", ["scripts", "shaped", "odd"])
def test_names_are_drawn(stack: Stack, model: str) -> None:
    document = predict(stack, model)["predictions"]
    boxes = np.array([list(row["box"].values()) for row in document], np.float32)

    def draw(names: Sequence[str]) -> Any:
        labels = [
            Label(name, class_id=row["class_id"], score=row["confidence"])
            for name, row in zip(names, document, strict=True)
        ]
        return draw_boxes(IMAGE, boxes, labels)

    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = stack.http.post(f"/predict/{model}", content=PNG, headers=headers).raise_for_status()
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    # These names reach the drawing; that it writes them correctly is tested in tests/unit/test_transformer_drawing.py.
    expected = draw([row["class"] for row in document])
    np.testing.assert_array_equal(drawn, expected)
    marks = draw(["????"] * len(document))
    assert not np.array_equal(drawn, marks)
    assert "X-Limits-Reached" not in response.headers


def test_limits_are_reported_by_every_protocol(stack: Stack) -> None:
    reached = {"max_detections": 2}
    headers = {"Content-Type": "image/png"}
    assert predict(stack, "twice", max_detections=2)["limits_reached"] == reached
    assert predict(stack, "twice", max_detections=len(PRESENT))["limits_reached"] == {}
    drawn = stack.http.post(
        "/predict/twice", params={"max_detections": 2}, content=PNG, headers=headers | {"Accept": "image/jpeg"}
    ).raise_for_status()
    assert json.loads(drawn.headers["X-Limits-Reached"]) == [reached]
    text = base64.b64encode(PNG).decode()
    v1 = {"instances": [{"image": {"b64": text}}] * 2, "parameters": {"max_detections": 2}}
    responses = stack.http.post("/v1/models/twice:predict", json=v1).raise_for_status().json()["predictions"]
    assert [response["limits_reached"] for response in responses] == [reached, reached]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [text, text]}
    v2: dict[str, Any] = {"inputs": [tensor], "outputs": [{"name": "scores"}], "parameters": {"max_detections": 2}}
    document = stack.http.post("/v2/models/twice/infer", json=v2).raise_for_status().json()
    assert json.loads(document["parameters"]["limits_reached"]) == [reached, reached]
    binary = infer_with_tritonclient(tritonclient.http, stack.http_port, "twice", 2, max_detections=2).get_response()
    assert json.loads(binary["parameters"]["limits_reached"]) == [reached, reached]
    message = infer_with_tritonclient(tritonclient.grpc, stack.grpc_port, "twice", 2, max_detections=2).get_response()
    assert json.loads(message.parameters["limits_reached"].string_param) == [reached, reached]
    whole = infer_with_tritonclient(tritonclient.grpc, stack.grpc_port, "twice", 2)
    assert not whole.get_response().parameters
    assert [json.loads(text)["limits_reached"] for text in whole.as_numpy("detections")] == [{}, {}]


def test_a_graph_that_may_leave_candidates_out_is_reported(stack: Stack) -> None:
    every = {"confidence": 0, "max_detections": 1000}
    assert predict(stack, "capped", **every)["limits_reached"] == {"model_candidates": 16}
    assert predict(stack, "capped", classes="red", **every)["limits_reached"] == {"model_candidates": 16}
    assert predict(stack, "capped")["limits_reached"] == {}  # the weakest that it gives is not above the confidence
    assert predict(stack, "gaps", **every)["limits_reached"] == {}
