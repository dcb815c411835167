"""DeepStack's and CodeProject.AI's dialect over the real stack; the clients' own code is in tests/e2e."""

import gzip
import json
import socket
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_of
from tests.support.pages import blocks_of
from tests.support.stack import ROOT, Stack, start_shipped
from tests.support.transformer import Transformer, make_key, start_transformer

DIGITS = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
TILTED = (ROOT / "loadtest" / "pictures" / "tilted-digits.jpg").read_bytes()
FINDERS = ["digit-finder", "digit-outlines", "digit-strokes", "tilted-digits"]
PREDICTION = {"label", "confidence", "x_min", "y_min", "x_max", "y_max"}


def detect(client: httpx.Client, path: str, image: bytes = DIGITS, **fields: str) -> httpx.Response:
    """As the clients send it: the fields before the image, whose part has a file name and no type."""
    return client.post(f"/v1/vision/{path}", data=fields, files={"image": image})


def found(response: httpx.Response) -> list[dict[str, Any]]:
    """The predictions, after a look at everything else."""
    assert response.status_code == HTTPStatus.OK, response.text
    body = response.json()
    assert list(body) == ["success", "message", "count", "predictions", "duration", "inferenceMs", "processMs"]
    predictions: list[dict[str, Any]] = body["predictions"]
    assert body["success"] is True
    assert body["count"] == len(predictions)
    assert 0 < body["inferenceMs"] <= body["processMs"] <= body["duration"] * 1000 + 1
    assert body["message"].startswith("Found " if predictions else "No objects")
    for each in predictions:
        assert set(each) == PREDICTION
        assert all(type(each[corner]) is int for corner in PREDICTION if corner[1] == "_")
    scores = [each["confidence"] for each in predictions]
    assert scores == sorted(scores, reverse=True)
    return predictions


@pytest.mark.parametrize("model", FINDERS)
def test_every_task_that_finds_objects_has_the_boxes_of_predict(stack: Stack, model: str) -> None:
    image = TILTED if model.startswith("tilted") else DIGITS
    expected = stack.http.post(f"/predict/{model}?confidence=0.4", files={"image": image}).json()["predictions"]
    predictions = found(detect(stack.http, f"custom/{model}", image))
    assert len(predictions) > 2
    assert [each["label"] for each in predictions] == [each["class"] for each in expected]
    for ours, theirs in zip(predictions, expected, strict=True):
        box = theirs["box"]
        corners = {f"{axis}_{side}": round(box[f"{axis}{n}"]) for axis in "xy" for side, n in (("min", 1), ("max", 2))}
        assert {**corners, "label": theirs["class"], "confidence": theirs["confidence"]} == ours


def test_min_confidence_is_of_the_form_and_0_4_without(stack: Stack) -> None:
    path = "custom/digit-finder"
    least = {text: len(found(detect(stack.http, path, min_confidence=text))) for text in ("0.01", "0.4", "0.97")}
    assert least["0.01"] > least["0.4"] > least["0.97"] > 0
    assert (
        len(found(detect(stack.http, path))) == len(found(detect(stack.http, path, min_confidence=""))) == least["0.4"]
    )
    assert len(found(detect(stack.http, f"{path}?confidence=0.97"))) == least["0.97"]
    assert len(found(detect(stack.http, f"{path}?confidence=0.01", min_confidence="0.97"))) == least["0.97"]


def test_query_chooses_among_the_objects(stack: Stack) -> None:
    path = "custom/digit-finder?classes=2,7"
    assert {each["label"] for each in found(detect(stack.http, path))} == {"2", "7"}
    limited = detect(stack.http, "custom/digit-finder?max_detections=1")
    assert len(found(limited)) == 1
    assert limited.headers["X-Limits-Reached"] == '[{"max_detections":1}]'


def test_command_of_the_page_prints_what_the_page_shows(stack: Stack) -> None:
    (block,) = blocks_of(ROOT / "docs" / "cameras.md", "Cameras")
    command, printed = block.removeprefix("$ ").split("\n", 1)
    command = command.replace("curl ", "curl --silent --noproxy '*' ").replace(":8080", f":{stack.http_port}")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    shown, got = json.loads(printed.replace("\n", " ")), json.loads(done.stdout)
    assert list(shown) == list(got)
    assert (shown["message"], shown["count"]) == (got["message"], got["count"])
    # Scores differ by CPU.
    assert shown["predictions"] == [
        each | {"confidence": pytest.approx(each["confidence"], abs=1e-3)} for each in got["predictions"]
    ]


def test_list_has_what_finds_objects(stack: Stack) -> None:
    for method in ("GET", "POST"):
        listed = stack.http.request(method, "/v1/vision/custom/list")
        assert listed.json() == {"success": True, "models": FINDERS}
    assert set(stack.http.put("/v1/vision/custom/list").headers["Allow"].split(", ")) == {"GET", "POST"}


def test_request_without_a_model_says_what_to_name_where_several_find_objects(stack: Stack) -> None:
    rejected = detect(stack.http, "detection")
    assert code_of(rejected) is ErrorCode.INVALID_REQUEST
    message = rejected.json()["error"]
    assert "TRANSFORMER_DEFAULT_MODEL" in message
    assert "/v1/vision/custom/<model>" in message
    assert all(name in message for name in FINDERS)


@pytest.mark.parametrize(
    ("path", "fields", "image", "code", "words"),
    [
        ("custom/nope", {}, DIGITS, ErrorCode.MODEL_NOT_FOUND, "nope"),
        ("custom/digits", {}, DIGITS, ErrorCode.INVALID_REQUEST, "/v1/vision/custom/list"),
        ("custom/iris", {}, DIGITS, ErrorCode.INVALID_REQUEST, "finds no objects"),
        ("custom/digit-finder", {"min_confidence": "40"}, DIGITS, ErrorCode.INVALID_REQUEST, "'min_confidence'"),
        ("custom/digit-finder", {"min_confidence": "0,4"}, DIGITS, ErrorCode.INVALID_REQUEST, "'min_confidence'"),
        ("custom/digit-finder?classes=person", {}, DIGITS, ErrorCode.INVALID_REQUEST, "person"),
        ("custom/digit-finder?nonsense=1", {}, DIGITS, ErrorCode.INVALID_REQUEST, "nonsense"),
        ("custom/digit-finder?then=digits", {}, DIGITS, ErrorCode.INVALID_REQUEST, "'then'"),
        ("custom/digit-finder", {}, b"no image", ErrorCode.INVALID_IMAGE, "image"),
        ("custom/digit-finder", {}, b"", ErrorCode.INVALID_IMAGE, "image"),
        ("face/recognize", {}, DIGITS, ErrorCode.ROUTE_NOT_FOUND, "/v1/vision/detection"),
        ("scene", {}, DIGITS, ErrorCode.ROUTE_NOT_FOUND, "/v1/vision/detection"),
    ],
)
def test_error_has_success_false_and_says_what(
    stack: Stack, path: str, fields: dict[str, str], image: bytes, code: ErrorCode, words: str
) -> None:
    rejected = detect(stack.http, path, image, **fields)
    assert code_of(rejected) is code
    assert rejected.json()["success"] is False
    assert words in rejected.json()["error"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"content": DIGITS, "headers": {"Content-Type": "image/jpeg"}}, ErrorCode.UNSUPPORTED_MEDIA),
        ({}, ErrorCode.UNSUPPORTED_MEDIA),
        ({"data": {"image": "x"}}, ErrorCode.UNSUPPORTED_MEDIA),
        ({"files": {"photo": DIGITS}}, ErrorCode.INVALID_REQUEST),
        ({"files": [("image", DIGITS), ("image", DIGITS)]}, ErrorCode.INVALID_REQUEST),
        (
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            ErrorCode.INVALID_REQUEST,
        ),
    ],
)
def test_body_that_is_not_one_image_in_a_form_is_rejected(
    stack: Stack, arguments: dict[str, Any], code: ErrorCode
) -> None:
    assert code_of(stack.http.post("/v1/vision/custom/digit-finder", **arguments)) is code


def test_request_is_logged_and_counted_under_its_route_and_model(stack: Stack) -> None:
    series = 'nereid_requests_total{model="digit-finder",route="/v1/vision/custom/{model}",status="200"'
    before = counted(stack.http, series)
    found(detect(stack.http, "custom/digit-finder"))
    assert counted(stack.http, series) == before + 1


def counted(client: httpx.Client, series: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


@pytest.fixture(scope="module")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transformer, str]]:
    """A transformer beside the stack that requires keys and has a default model, and a key."""
    folder = tmp_path_factory.mktemp("vision-keys")
    key = make_key("camera", folder / "keys.txt")
    variables = {
        "TRANSFORMER_API_KEYS_FILE": str(folder / "keys.txt"),
        "TRANSFORMER_SYNC_URL": stack.sync,
        "TRANSFORMER_DEFAULT_MODEL": "digit-finder",
        "TRANSFORMER_BODY_TIMEOUT_S": "2",
    }
    address = f"127.0.0.1:{stack.triton_grpc_port}"
    with start_transformer(address, folder / "log", variables=variables) as transformer:
        yield transformer, key
    assert key not in (folder / "log").read_text()


def test_default_model_serves_a_request_that_names_none(guarded: tuple[Transformer, str], stack: Stack) -> None:
    transformer, key = guarded
    expected = found(detect(stack.http, "custom/digit-finder"))
    assert found(detect(transformer.http, "detection", api_key=key)) == expected
    assert counted(transformer.http, 'nereid_requests_total{model="digit-finder",route="/v1/vision/detection"') >= 1


def test_key_of_the_form_is_compared_and_counted_as_one_of_a_header(guarded: tuple[Transformer, str]) -> None:
    transformer, key = guarded
    assert code_of(detect(transformer.http, "detection")) is ErrorCode.MISSING_API_KEY
    missing = detect(transformer.http, "detection", api_key="")
    assert code_of(missing) is ErrorCode.MISSING_API_KEY
    assert "form field api_key before the image, in the first 8192 bytes" in missing.json()["error"]
    assert missing.json()["success"] is False
    for wrong in ("x", key[:-1], key + "x", "ключ", "x" * 5000):
        assert code_of(detect(transformer.http, "detection", api_key=wrong)) is ErrorCode.UNKNOWN_API_KEY
    before = counted(transformer.http, 'nereid_key_requests_total{key="camera",result="accepted"')
    assert found(detect(transformer.http, "detection", api_key=key))
    assert found(detect(transformer.http, "custom/digit-finder", min_confidence="0.3", api_key=key))
    assert transformer.http.post("/v1/vision/custom/list", files={"api_key": (None, key)}).status_code == 200
    assert counted(transformer.http, 'nereid_key_requests_total{key="camera",result="accepted"') == before + 3
    header = {"X-API-Key": key}
    sent = transformer.http.post("/v1/vision/detection", files={"image": DIGITS}, data={"api_key": "x"}, headers=header)
    assert found(sent)


def test_key_of_a_form_opens_no_other_route(guarded: tuple[Transformer, str]) -> None:
    transformer, key = guarded
    rejected = transformer.http.post("/predict/digit-finder", data={"api_key": key}, files={"image": DIGITS})
    assert code_of(rejected) is ErrorCode.MISSING_API_KEY
    assert code_of(transformer.http.get("/v1/vision/custom/list")) is ErrorCode.MISSING_API_KEY


def test_key_of_a_compressed_form_is_not_read_and_the_error_says_so(guarded: tuple[Transformer, str]) -> None:
    transformer, key = guarded
    request = transformer.http.build_request(
        "POST", "/v1/vision/detection", data={"api_key": key}, files={"image": DIGITS}
    )
    headers = {"Content-Type": request.headers["Content-Type"], "Content-Encoding": "gzip"}
    body = gzip.compress(request.read())
    rejected = transformer.http.post("/v1/vision/detection", content=body, headers=headers)
    assert code_of(rejected) is ErrorCode.MISSING_API_KEY
    assert "without Content-Encoding" in rejected.json()["error"]
    assert found(transformer.http.post("/v1/vision/detection", content=body, headers=headers | {"X-API-Key": key}))


def test_client_that_awaits_100_continue_and_pipelined_forms_have_results(guarded: tuple[Transformer, str]) -> None:
    transformer, key = guarded
    request = transformer.http.build_request(
        "POST", "/v1/vision/custom/digit-finder", data={"api_key": key}, files={"image": DIGITS}
    )
    body, address = request.read(), transformer.http.base_url
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (
        request.url.raw_path, request.headers["Content-Type"].encode(), len(body),
    )  # fmt: skip
    with socket.create_connection((address.host, address.port), timeout=10) as client:
        client.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(body + (head + b"\r\n" + body) + (head + b"Connection: close\r\n\r\n" + body))
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == received.count(b'"success":true') == 3


def test_key_behind_the_image_is_not_looked_for(guarded: tuple[Transformer, str]) -> None:
    transformer, key = guarded
    files: Any = [("image", ("a.jpg", DIGITS)), ("api_key", (None, key.encode()))]
    assert code_of(transformer.http.post("/v1/vision/detection", files=files)) is ErrorCode.MISSING_API_KEY


@pytest.mark.parametrize("size", [1, 7, 100])
def test_form_that_arrives_in_pieces_is_whole(guarded: tuple[Transformer, str], size: int) -> None:
    """The head is read before the key is known, and again by the route."""
    transformer, key = guarded
    request = transformer.http.build_request(
        "POST", "/v1/vision/detection", data={"min_confidence": "0.4", "api_key": key}, files={"image": DIGITS}
    )
    body = request.read()

    def pieces() -> Iterator[bytes]:
        yield from (body[start : start + size] for start in range(0, 400, size))
        yield body[-(-400 // size) * size :]

    headers = {"Content-Type": request.headers["Content-Type"]}
    assert found(transformer.http.post("/v1/vision/detection", content=pieces(), headers=headers))


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b'--X\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n', ErrorCode.MISSING_API_KEY),
        (b'--X\r\nContent-Disposition: form-data; name="api_key"\r\n\r\nwrong\r\n--X\r\n', ErrorCode.UNKNOWN_API_KEY),
        (b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"y" * 9000, ErrorCode.MISSING_API_KEY),
        (b"no form at all\r\n" * 1000, ErrorCode.MISSING_API_KEY),
        (b'--X\r\nContent-Disposition: form-data; name="api_key"\r\n\r\nwro', ErrorCode.BODY_TIMEOUT),
        (b"", ErrorCode.BODY_TIMEOUT),
    ],
)
def test_image_without_a_key_before_it_is_not_read(
    guarded: tuple[Transformer, str], head: bytes, code: ErrorCode
) -> None:
    """The rest of the body never comes."""
    address = guarded[0].http.base_url
    with socket.create_connection((address.host, address.port), timeout=10) as client:
        client.sendall(
            b"POST /v1/vision/detection HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=X\r\n\r\n" + head
        )
        status = client.recv(65536).split(b" ", 2)[1]
    assert int(status) == code.http_status


def test_page_of_another_origin_reads_no_response_and_has_no_key(
    guarded: tuple[Transformer, str], stack: Stack
) -> None:
    """A browser sends a form of any page, and lets the page read what a header allows: there is none."""
    page = {"Origin": "https://page.example", "Sec-Fetch-Site": "cross-site", "Cookie": f"api_key={guarded[1]}"}
    for path in ("/v1/vision/custom/digit-finder", "/predict/digit-finder"):
        for method in ("POST", "OPTIONS"):
            sent = stack.http.request(method, path, files={"image": DIGITS}, headers=page)
            assert not [name for name in sent.headers if name.startswith("access-control-")]
            assert sent.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        rejected = guarded[0].http.post(path, files={"image": DIGITS}, headers=page)
        assert code_of(rejected) is ErrorCode.MISSING_API_KEY


def test_only_model_that_finds_objects_serves_without_a_setting(tmp_path: Path) -> None:
    with start_shipped(tmp_path, "digit-strokes", "digits", "iris") as stack:
        assert {each["label"] for each in found(detect(stack.http, "detection"))} <= set("0123456789")
        series = 'nereid_requests_total{model="digit-strokes",route="/v1/vision/detection"'
        assert counted(stack.http, series) == 1


def test_model_that_finds_no_objects_as_default_is_rejected_in_words(stack: Stack, tmp_path: Path) -> None:
    variables = {"TRANSFORMER_DEFAULT_MODEL": "iris", "TRANSFORMER_SYNC_URL": stack.sync}
    address = f"127.0.0.1:{stack.triton_grpc_port}"
    with start_transformer(address, tmp_path / "log", variables=variables) as transformer:
        rejected = detect(transformer.http, "detection")
        assert code_of(rejected) is ErrorCode.INVALID_REQUEST
        assert "iris finds no objects" in rejected.json()["error"]


def test_default_model_that_is_unknown_is_named_as_the_setting(stack: Stack, tmp_path: Path) -> None:
    variables = {
        "TRANSFORMER_DEFAULT_MODEL": "nope", "TRANSFORMER_SYNC_URL": stack.sync, "TRANSFORMER_SAGEMAKER": "true",
    }  # fmt: skip
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as transformer:
        for rejected in (
            detect(transformer.http, "detection"),
            transformer.http.post("/invocations", files={"image": DIGITS}),
        ):
            assert code_of(rejected) is ErrorCode.MODEL_NOT_FOUND
            assert "'nope' is unknown, which the setting TRANSFORMER_DEFAULT_MODEL names" in rejected.json()["error"]
