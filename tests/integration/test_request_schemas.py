"""Requests that the OpenAPI document rejects the server rejects too, and those that it accepts have the right form.

What no schema says, and the server rejects: `BEYOND`.
"""

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stack import ROOT, Stack

SAMPLES = ROOT / "loadtest" / "pictures"
DIGITS = base64.b64encode((SAMPLES / "digits.jpg").read_bytes()).decode()
ROW = [6.3, 3.3, 6.0, 2.5]
TENSOR = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW}
IMAGES = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [DIGITS]}
PREDICT, V1, V2 = "/predict/{model}", "/v1/models/{model}:predict", "/v2/models/{model}/infer"
INFER = "/v2/models/{model}/versions/{version}/infer"


class Sent(NamedTuple):
    """A JSON request.

    Attributes:
        path: of the document.
        model: name.
        body: JSON.
    """

    path: str
    model: str
    body: Any


def v2(*inputs: Any, **members: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **members}


GOOD = [
    Sent(PREDICT, "iris", ROW),
    Sent(PREDICT, "iris", [ROW, ROW]),
    Sent(PREDICT, "digit-finder", DIGITS),
    Sent(PREDICT, "digit-finder", {"image": {"b64": DIGITS}}),
    Sent(PREDICT, "digit-finder", {"image": DIGITS}),
    Sent(PREDICT, "digit-finder", [{"image": DIGITS}, DIGITS]),
    Sent(V1, "iris", {"instances": [ROW]}),
    Sent(V1, "iris", {"inputs": [ROW], "signature_name": "serving_default"}),
    Sent(V1, "digit-finder", {"instances": [{"image_bytes": {"b64": DIGITS}, "key": "1"}], "parameters": None}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"confidence": 0.5, "classes": [2, "7"]}}),
    Sent(V1, "digit-finder", {"inputs": {"image": [DIGITS]}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"classes": []}}),
    Sent(V2, "iris", v2(TENSOR)),
    Sent(V2, "iris", v2(TENSOR | {"data": [ROW], "parameters": {"content_type": "np"}}, id="me", outputs=None)),
    Sent(V2, "iris", v2(TENSOR, outputs=[{"name": "class_id", "parameters": {"binary_data": False}}])),
    Sent(V2, "digit-finder", v2(IMAGES, parameters={"confidence": 0.5, "classes": "2,7", "max_detections": 3})),
    Sent(V2, "digit-finder", v2(IMAGES | {"data": DIGITS}, parameters={"priority": 1})),
]
BAD = [
    Sent(PREDICT, "iris", []),
    Sent(PREDICT, "iris", 5),
    Sent(PREDICT, "iris", None),
    Sent(PREDICT, "iris", [True, 1, 2, 3]),
    Sent(PREDICT, "iris", [[[1]]]),
    Sent(PREDICT, "iris", {}),
    Sent(PREDICT, "digit-finder", ""),
    Sent(PREDICT, "digit-finder", {}),
    Sent(PREDICT, "digit-finder", {"image": {"b64": 5}}),
    Sent(V1, "iris", {}),
    Sent(V1, "iris", [ROW]),
    Sent(V1, "iris", {"instances": []}),
    Sent(V1, "iris", {"instances": ROW[0]}),
    Sent(V1, "iris", {"instances": None}),
    Sent(V1, "iris", {"inputs": {}}),
    Sent(V1, "iris", {"instances": [ROW], "inputs": [ROW]}),
    Sent(V1, "iris", {"instances": [ROW], "model": "iris"}),
    Sent(V1, "iris", {"instances": [ROW], "signature_name": "other"}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": []}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"confidence": 1.5}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"confidence": True}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"max_detections": 0}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"unknown": 1}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"classes": [-1]}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"then": ""}}),
    Sent(V2, "iris", {}),
    Sent(V2, "iris", []),
    Sent(V2, "iris", v2()),
    Sent(V2, "iris", {"inputs": TENSOR}),
    Sent(V2, "iris", v2("features")),
    Sent(V2, "iris", v2({name: value for name, value in TENSOR.items() if name != "name"})),
    Sent(V2, "iris", v2({name: value for name, value in TENSOR.items() if name != "data"})),
    Sent(V2, "iris", v2(TENSOR | {"data": None})),
    Sent(V2, "iris", v2(TENSOR | {"data": None, "parameters": {"content_type": "np"}})),
    Sent(V2, "iris", v2(TENSOR | {"datatype": "FLOAT"})),
    Sent(V2, "iris", v2(TENSOR | {"shape": "1,4"})),
    Sent(V2, "iris", v2(TENSOR | {"shape": [-1, 4]})),
    Sent(V2, "iris", v2(TENSOR | {"shape": [1.5, 4]})),
    Sent(V2, "iris", v2(TENSOR | {"shape": [1] * 65})),
    Sent(V2, "iris", v2(TENSOR | {"name": "x" * 256})),
    Sent(V2, "iris", v2(TENSOR | {"data": 5})),
    Sent(V2, "iris", v2(TENSOR | {"data": [{"a": 1}]})),
    Sent(V2, "iris", v2(TENSOR | {"parameters": []})),
    Sent(V2, "iris", v2(TENSOR | {"parameters": {"binary_data_size": -1}})),
    Sent(V2, "iris", v2(TENSOR | {"parameters": {"shared_memory_region": "a"}})),
    Sent(V2, "iris", v2(TENSOR, id=5)),
    Sent(V2, "iris", v2(TENSOR, outputs={})),
    Sent(V2, "iris", v2(TENSOR, outputs=[{}])),
    Sent(V2, "iris", v2(TENSOR, outputs=[{"name": "class_id", "parameters": {"binary_data": "no"}}])),
    Sent(V2, "iris", v2(TENSOR, outputs=[{"name": "class_id", "parameters": {"classification": -1}}])),
    Sent(V2, "iris", v2(TENSOR, outputs=[{"name": f"o{number}"} for number in range(257)])),
    Sent(V2, "iris", v2(TENSOR, parameters={"binary_data_output": 1})),
    Sent(V2, "digit-finder", v2(IMAGES, parameters={"iou": -0.1})),
    Sent(V2, "digit-finder", v2(IMAGES, parameters={"max_detections": 1001})),
    Sent(V2, "digit-finder", v2(IMAGES, parameters={"unknown": []})),
]
# The server rejects them, and no schema does: what they mean is wrong, not their form.
BEYOND = [
    Sent(PREDICT, "digit-finder", "no image"),
    Sent(PREDICT, "iris", ROW[:3]),
    Sent(PREDICT, "iris", DIGITS),
    Sent(V1, "iris", {"inputs": {"a": [1, 2], "b": [1]}}),
    Sent(V1, "iris", {"instances": [ROW], "parameters": {"confidence": 0.5}}),
    Sent(V1, "digit-finder", {"instances": [DIGITS], "parameters": {"classes": "cat"}}),
    Sent(V2, "iris", v2(TENSOR | {"data": ROW[:3]})),
    Sent(V2, "iris", v2(TENSOR, TENSOR)),
    Sent(V2, "iris", v2(TENSOR | {"data": ["a", "b", "c", "d"]})),
    Sent(V2, "iris", v2(TENSOR | {"parameters": {"binary_data_size": 16}})),
    Sent(V2, "iris", v2(TENSOR | {"name": "image"})),
]
QUERIES = [
    ("confidence", "0.5", True), ("confidence", "1.5", False), ("confidence", "high", False), ("iou", "-1", False),
    ("max_detections", "3", True), ("max_detections", "0", False), ("max_detections", "1001", False),
    ("max_detections", "2.5", False), ("classes", "2", True), ("classes", "", False), ("then", "digits", True),
    ("then", "", False), ("keypoint_confidence", "2", False), ("mask", "outline", False), ("depth_scale", "0", False),
    ("depth_map", "all", False), ("segmentation_mask", "jpg", False), ("top_k", "0", False),
    ("format", "ultralytics", True), ("format", "coco", False), ("format", "", False),
]  # fmt: skip
HEADERS = [
    ("X-Request-Timeout-Ms", "5000", True), ("X-Request-Timeout-Ms", "0", False), ("X-Request-Timeout-Ms", "-1", False),
    ("X-Request-Timeout-Ms", "soon", False), ("Inference-Header-Content-Length", "-1", False),
    ("Inference-Header-Content-Length", "x", False),
]  # fmt: skip


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = stack.http.get("/openapi.json").json()
    return found


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator({**schema, "components": document["components"]}).is_valid(value))


def of_body(document: dict[str, Any], path: str) -> dict[str, Any]:
    schema: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema


def send(stack: Stack, sent: Sent) -> tuple[int, str]:
    response = stack.http.post(
        sent.path.format(model=sent.model), content=json.dumps(sent.body), headers={"Content-Type": "application/json"}
    )
    return response.status_code, response.text


def shown(sent: Sent) -> str:
    return f"{sent.path.split('/')[1]} {sent.model} {json.dumps(sent.body).replace(DIGITS, '...')[:70]}"


@pytest.mark.parametrize("sent", GOOD, ids=shown)
def test_good_request_fits_and_has_a_result(stack: Stack, document: dict[str, Any], sent: Sent) -> None:
    assert fits(document, of_body(document, sent.path), sent.body)
    assert send(stack, sent)[0] == 200


@pytest.mark.parametrize("sent", BAD, ids=shown)
def test_request_of_a_wrong_form_is_rejected_by_schema_and_server(
    stack: Stack, document: dict[str, Any], sent: Sent
) -> None:
    status, text = send(stack, sent)
    assert status == 400, text
    assert not fits(document, of_body(document, sent.path), sent.body), text


@pytest.mark.parametrize("sent", BEYOND, ids=shown)
def test_request_of_a_wrong_meaning_is_rejected_by_the_server_alone(
    stack: Stack, document: dict[str, Any], sent: Sent
) -> None:
    assert send(stack, sent)[0] == 400
    assert fits(document, of_body(document, sent.path), sent.body)


def read(schema: dict[str, Any], text: str) -> Any:
    """A parameter as a client holds it that sends this text."""
    if schema.get("type") == "array":
        return [text]
    if schema.get("type") in {"number", "integer"}:
        try:
            return float(text) if "." in text else int(text)
        except ValueError:
            return text
    return text


ODD: list[Any] = [
    None, [], {}, -1, 0, 1.5, True, "", "x", "x" * 300, 2**70, 1e300, [None], [[1]], {"a": 1}, {"b64": 1},
]  # fmt: skip
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Of a JSON document, itself and what is in it."""
    yield at
    for key, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(member, (*at, key))


def put(value: Any, place: Place, new: Any) -> Any:
    """The document with something else in one place."""
    if not place:
        return new
    changed = copy.copy(value)
    changed[place[0]] = put(value[place[0]], place[1:], new)
    return changed


PLACES = [(good, place) for good in GOOD for place in places(good.body)]


@settings(max_examples=300)
@given(st.sampled_from(range(len(PLACES))), st.sampled_from(ODD))  # by number: an image has a long repr
def test_what_the_schema_rejects_the_server_rejects(
    stack: Stack, document: dict[str, Any], number: int, odd: Any
) -> None:
    """Good requests with something else in one place: what does not fit has no result, and nothing fails the server."""
    good, place = PLACES[number]
    sent = good._replace(body=put(good.body, place, odd))
    status, text = send(stack, sent)
    is_good = fits(document, of_body(document, sent.path), sent.body)
    assert status == 400 or (status in {200, 404} and is_good), f"{shown(good)}, {place}: {odd!r:.60}: {text}"


# Of the parameters a model takes those of its task.
MODELS = {"mask": "digit-outlines", "keypoint_confidence": "digit-strokes", "top_k": "digits"}


@pytest.mark.parametrize(("name", "text", "is_good"), QUERIES)
def test_query_is_judged_alike(stack: Stack, document: dict[str, Any], name: str, text: str, is_good: bool) -> None:
    model = MODELS.get(name, "digit-finder")
    response = stack.http.post(
        f"/predict/{model}", params={name: text}, files={"image": (SAMPLES / "digits.jpg").read_bytes()}
    )
    assert (response.status_code == 200) == is_good, response.text
    for path in (PREDICT,) if name == "format" else (PREDICT, V1, V2, INFER):
        (parameter,) = (each for each in document["paths"][path]["post"]["parameters"] if each["name"] == name)
        assert fits(document, parameter["schema"], read(parameter["schema"], text)) == is_good


@pytest.mark.parametrize(("name", "text", "is_good"), HEADERS)
def test_header_is_judged_alike(stack: Stack, document: dict[str, Any], name: str, text: str, is_good: bool) -> None:
    response = stack.http.post("/v2/models/iris/infer", headers={name: text}, json=v2(TENSOR))
    assert (response.status_code == 200) == is_good, response.text
    (parameter,) = (each for each in document["paths"][V2]["post"]["parameters"] if each["name"] == name)
    assert fits(document, parameter["schema"], read(parameter["schema"], text)) == is_good


def test_every_parameter_is_judged(document: dict[str, Any]) -> None:
    named = {each["name"] for path in (PREDICT, V1, V2) for each in document["paths"][path]["post"]["parameters"]}
    assert named - {"model"} == {name for name, _, _ in (*QUERIES, *HEADERS)}


def test_form_has_an_image(stack: Stack, document: dict[str, Any]) -> None:
    schema = document["paths"][PREDICT]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert not fits(document, schema, {"image": []})
    assert not fits(document, schema, {})
    assert stack.http.post("/predict/digit-finder", files={}, data={"confidence": "0.5"}).status_code in {400, 415}
