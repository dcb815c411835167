"""Images in the forms of the field's clients, on the running stack: the response is that to the file itself."""

import base64
from typing import Any

import httpx
import pytest

from tests.support.stack import ROOT, Stack

IMAGES = ROOT / "loadtest" / "pictures"
FILES = {"digits": (IMAGES / "seven.png").read_bytes(), "digit-finder": (IMAGES / "digits.jpg").read_bytes()}
VIRGINICA, SETOSA = [6.3, 3.3, 6.0, 2.5], [5.1, 3.5, 1.4, 0.2]
IRIS_NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def found(response: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(entry["class"], entry["confidence"], entry.get("box")) for entry in response["predictions"]]


def forms(data: bytes) -> dict[str, Any]:
    """Instances that hold a file."""
    text, lines, in_url = (
        encode(data).decode() for encode in (base64.b64encode, base64.encodebytes, base64.urlsafe_b64encode)
    )
    return {
        "KServe's flowers": {"image_bytes": {"b64": text}, "key": "   1"},
        "TensorFlow Serving": {"b64": text},
        "TorchServe": {"data": text, "target": 0},
        "string": text,
        "image as a string": {"image": text},
        "data URI": {"image": {"b64": f"data:image/jpeg;base64,{text}"}},
        "lines of 76": {"image": {"b64": lines}},
        "lines of 76 as mail has them": {"image": {"b64": lines.replace("\n", "\r\n")}},
        "alphabet of URLs": {"image": {"b64": in_url}},
        "without padding": {"image": {"b64": text.rstrip("=")}},
        "another key": {"photo": {"b64": text}},
    }


@pytest.mark.parametrize("form", forms(b""))
@pytest.mark.parametrize("model", FILES)
def test_image_in_json_gives_the_result_of_the_file(stack: Stack, model: str, form: str) -> None:
    expected = found(ok(stack.http.post(f"/predict/{model}", files={"image": FILES[model]})))
    assert expected
    instance = forms(FILES[model])[form]
    for member in ("instances", "inputs"):
        (response,) = ok(stack.http.post(f"/v1/models/{model}:predict", json={member: [instance]}))["predictions"]
        assert found(response) == expected
    assert found(ok(stack.http.post(f"/predict/{model}", json=instance))) == expected
    two = ok(stack.http.post(f"/predict/{model}", json=[instance, instance]))
    assert [found(response) for response in two] == [expected, expected]


@pytest.mark.parametrize("form", ["data URI", "lines of 76", "alphabet of URLs", "without padding", "string"])
def test_image_in_a_v2_string_gives_the_result_of_the_file(stack: Stack, form: str) -> None:
    instance = forms(FILES["digits"])[form]
    text = instance if isinstance(instance, str) else instance["image"]["b64"]
    for name, parameters in (("image", None), ("input-1", {"content_type": "base64"})):
        tensor = {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [text], "parameters": parameters}
        body = {
            "inputs": [tensor],
            "outputs": [{"name": "class_id", "parameters": parameters}],
            "parameters": parameters,
        }
        response = ok(stack.http.post("/v2/models/digits/infer", json=body))
        assert response["outputs"] == [{"name": "class_id", "datatype": "INT32", "shape": [1], "data": [7]}]


def test_results_of_sixteen_images_are_in_their_order(stack: Stack) -> None:
    texts = [base64.b64encode(FILES[model]).decode() for model in ("digits", "digit-finder")] * 8
    responses = ok(stack.http.post("/v1/models/digits:predict", json={"instances": texts}))["predictions"]
    seven, other = (found(ok(stack.http.post("/predict/digits", files={"image": FILES[model]}))) for model in FILES)
    assert [found(response) for response in responses] == [seven, other] * 8


@pytest.mark.parametrize("name", ["file", "files", "images", "images[]", "upload", "photo"])
def test_file_of_a_form_is_an_image_under_any_name(stack: Stack, name: str) -> None:
    expected = found(ok(stack.http.post("/predict/digits", files={"image": FILES["digits"]})))
    response = ok(stack.http.post("/predict/digits", files={name: FILES["digits"]}, data={"user": "me"}))
    assert found(response) == expected


def test_fields_of_a_form_are_the_parameters_of_that_name(stack: Stack) -> None:
    parameters = {"max_detections": "2", "classes": "7,2"}
    files = {"file": FILES["digit-finder"]}
    by_query = found(ok(stack.http.post("/predict/digit-finder", files=files, params=parameters)))
    assert found(ok(stack.http.post("/predict/digit-finder", files=files, data=parameters))) == by_query
    assert by_query != found(ok(stack.http.post("/predict/digit-finder", files=files)))


V1 = "/v1/models/digits:predict"
NO_IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [None]}


@pytest.mark.parametrize(
    ("path", "request_", "says"),
    [
        (V1, {"json": {"instances": [[1, 2]]}}, 'in JSON {"image": {"b64": "<base64>"}}'),
        (V1, {"json": {"instances": [{"x": 1}]}}, 'expected one as {"image": {"b64": "<base64'),
        (V1, {"json": {"image": {"b64": "AA=="}}}, 'expected {"instances": [{"image": {"b64"'),
        (V1, {"json": {"instances": ["data:text/plain;base64,AA=="]}}, "data:image/...;base64,"),
        ("/v1/models/iris:predict", {"json": {"instances": [{"b64": "AA=="}]}}, "got images"),
        ("/predict/digits", {"json": [1, 2]}, 'in JSON {"image": {"b64": "<base64>"}}'),
        ("/predict/digits", {"json": 5}, 'an image ({"image": {"b64"'),
        ("/predict/digits", {"files": {"a": b"1", "b": b"2"}}, "one or more files named 'image'"),
        ("/predict/iris", {"json": {"image": {"b64": "AA=="}}}, "got images"),
        ("/v2/models/digits/infer", {"json": {"inputs": [NO_IMAGE]}}, "data: got null, expected"),
    ],
)  # fmt: skip
def test_expected_form_is_named(stack: Stack, path: str, request_: dict[str, Any], says: str) -> None:
    response = stack.http.post(path, **request_)
    assert (response.status_code, says in response.json()["error"]) == (400, True), response.text


def test_rows_come_as_inputs_too(stack: Stack) -> None:
    rows = [VIRGINICA, SETOSA]
    url = "/v1/models/iris:predict"
    expected = ok(stack.http.post(url, json={"instances": rows}))
    columns = {name: [row[index] for row in rows] for index, name in enumerate(IRIS_NAMES)}
    for body in ({"inputs": rows}, {"inputs": columns}, {"instances": rows, "signature_name": "serving_default"}):
        assert ok(stack.http.post(url, json=body)) == expected


def test_codec_of_mlserver_names_rows_as_it_likes(stack: Stack) -> None:
    tensor = {"name": "input-1", "datatype": "FP64", "shape": [1, 4], "data": VIRGINICA}
    codec = {"content_type": "np", "headers": None}
    body = {"id": None, "inputs": [tensor | {"parameters": codec}], "parameters": codec, "outputs": None}
    named = {"inputs": [tensor | {"name": "features"}]}
    expected, response = (ok(stack.http.post("/v2/models/iris/infer", json=json)) for json in (named, body))
    assert response == expected
    without = {"inputs": [tensor]}
    assert stack.http.post("/v2/models/iris/infer", json=without).status_code == 400


def test_best_classes_of_rows_are_those_of_triton(stack: Stack) -> None:
    tensor = {"name": "features", "datatype": "FP32", "shape": [2, 4], "data": [VIRGINICA, SETOSA]}
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    responses = [
        ok(httpx.post(f"http://127.0.0.1:{port}/v2/models/iris/infer", json={"inputs": [tensor], "outputs": outputs}))
        for port in (stack.http_port, stack.triton_http_port)
    ]
    assert responses[0] == responses[1]
    assert [text.split(":")[1] for text in responses[0]["outputs"][0]["data"]] == ["2", "1", "0", "1"]


def test_classification_of_an_image_is_rejected_with_a_hint_to_predictions(stack: Stack) -> None:
    text = base64.b64encode(FILES["digits"]).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    response = stack.http.post("/v2/models/digits/infer", json={"inputs": [tensor], "outputs": outputs})
    assert (response.status_code, "see 'predictions'" in response.json()["error"]) == (400, True)
