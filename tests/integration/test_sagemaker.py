"""SageMaker's contract over the real stack, started by `serve`, with no other headers than SageMaker passes on."""

import http.client
import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http
from botocore.exceptions import ClientError
from PIL import Image

from tests.support.error_codes import code_of
from tests.support.multipart import FORM, form
from tests.support.sagemaker import ENDPOINT, open_endpoint
from tests.support.stack import ROOT, Stack, start_stack
from tests.support.transformer import gauge, make_key, silent_triton, start_transformer
from transformer.rest.sagemaker import ATTRIBUTES, BINARY, TARGET_MODEL

IMAGES = ROOT / "loadtest" / "pictures"
DIGITS = (IMAGES / "digits.jpg").read_bytes()
SEVEN = (IMAGES / "seven.png").read_bytes()
VIRGINICA = [6.3, 3.3, 6.0, 2.5]
MODELS = ("digit-finder", "digits", "iris")
# Of a response to one request alone.
OWN = {"inference_id", "time", "timing_ms", "detection_id"}
SERVE = ("stack.container", "serve")


def start_serve(folder: Path, *models: str) -> Any:
    """The stack of `serve` over a folder of models that is not written to."""
    for model in models:
        shutil.copytree(ROOT / "model_repository" / model, folder / "model" / model)
    for path in (folder / "model").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    variables = {"POLL_S": "inf", "SETTLE_S": "0"}  # as for /opt/ml/model
    return start_stack(folder / "model", folder / "log", variables=variables, program=SERVE)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start_serve(tmp_path_factory.mktemp("sagemaker"), *MODELS) as stack:
        yield stack


@pytest.fixture(scope="module")
def runtime(serve: Stack) -> Iterator[Any]:
    with open_endpoint(f"http://127.0.0.1:{serve.http_port}") as client:
        yield client


def invoke(stack: Stack, body: bytes, content_type: str = "", attributes: str = "", **headers: str) -> httpx.Response:
    given = {"Content-Type": content_type, ATTRIBUTES: attributes, **headers}
    return stack.http.post("/invocations", content=body, headers={name: each for name, each in given.items() if each})


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return stripped(response.json())


def stripped(value: Any) -> Any:
    """A response without what every request has of its own."""
    if isinstance(value, dict):
        return {name: stripped(each) for name, each in value.items() if name not in OWN}
    return [stripped(each) for each in value] if isinstance(value, list) else value


def test_ping_says_that_the_models_can_be_served(serve: Stack) -> None:
    assert serve.http.get("/ping").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/jpeg", DIGITS),
        ("application/octet-stream", DIGITS),
        ("application/x-image", DIGITS),
        (FORM, form(("image", DIGITS), ("image", SEVEN))),
        ("application/json", b'{"image": {"b64": "/9j/"}}'),
    ],
    ids=["jpeg", "binary", "x-image", "form", "json"],
)
def test_images_are_those_of_predict(serve: Stack, content_type: str, body: bytes) -> None:
    found = invoke(serve, body, content_type, "model=digit-finder,confidence=0.9,classes=2,7")
    type_there = content_type.replace("application/x-image", "application/octet-stream")
    query = {"confidence": "0.9", "classes": ["2", "7"]}
    expected = serve.http.post(
        "/predict/digit-finder", params=query, content=body, headers={"Content-Type": type_there}
    )
    assert found.status_code == expected.status_code
    assert stripped(found.json()) == stripped(expected.json())


def test_rows_and_instances_are_those_of_predict_and_v1(serve: Stack) -> None:
    for path, document in (
        ("/predict/iris", VIRGINICA),
        ("/v1/models/iris:predict", {"instances": [VIRGINICA]}),
        ("/v1/models/iris:predict", {"inputs": [VIRGINICA]}),
    ):
        body = json.dumps(document).encode()
        found = invoke(serve, body, "application/json; charset=utf-8", **{TARGET_MODEL: "iris"})
        assert ok(found) == ok(serve.http.post(path, json=document))
        assert found.headers[ATTRIBUTES] == "model=iris,version=1"


def test_v2_takes_json_and_what_tritonclient_writes_for_sagemaker(serve: Stack) -> None:
    document = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": VIRGINICA}]}
    metadata = serve.http.get("/v2/models/iris").json()
    document["inputs"][0]["name"] = metadata["inputs"][0]["name"]
    found = ok(invoke(serve, json.dumps(document).encode(), "application/json", "model=iris"))
    expected = ok(serve.http.post("/v2/models/iris/infer", json=document))
    assert found == expected

    client = tritonclient.http.InferenceServerClient
    image = tritonclient.http.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([DIGITS], object))
    body, size = client.generate_request_body([image], outputs=[tritonclient.http.InferRequestedOutput("boxes")])
    binary = invoke(serve, body, f"{BINARY};json-header-size={size}", "model=digit-finder,confidence=0.9")
    assert binary.status_code == 200, binary.text
    content_type, _, length = binary.headers["Content-Type"].partition(";json-header-size=")
    assert content_type == BINARY
    boxes = client.parse_response_body(binary.content, header_length=int(length)).as_numpy("boxes")
    assert boxes.shape == (1, 3, 4)


def test_raw_binary_of_v2_is_an_image(serve: Stack) -> None:
    binary = invoke(serve, SEVEN, f"{BINARY};json-header-size=0", "model=digits")
    assert binary.status_code == 200, binary.text
    assert binary.headers["Content-Type"].startswith(BINARY)


def test_aws_client_gets_detections_and_what_served_them(runtime: Any) -> None:
    response = runtime.invoke_endpoint(
        EndpointName=ENDPOINT,
        Body=DIGITS,
        ContentType="image/jpeg",
        CustomAttributes="model=digit-finder,confidence=0.9",
        InferenceId="order-17",
    )
    assert [each["class"] for each in json.load(response["Body"])["predictions"]] == ["2", "7", "0"]
    assert response["ContentType"] == "application/json"
    model, _, version = response["CustomAttributes"].partition(",version=")
    assert model == "model=digit-finder"
    assert version.isdecimal()


def test_aws_client_gets_an_annotated_image(runtime: Any) -> None:
    response = runtime.invoke_endpoint(
        EndpointName=ENDPOINT, Body=DIGITS, ContentType="image/jpeg", Accept="image/png", TargetModel="digit-finder"
    )
    assert response["ContentType"] == "image/png"
    assert Image.open(io.BytesIO(response["Body"].read())).size == Image.open(io.BytesIO(DIGITS)).size


def test_aws_client_reads_which_models_there_are(runtime: Any) -> None:
    with pytest.raises(ClientError) as raised:
        runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=DIGITS, ContentType="image/jpeg")
    error: Any = raised.value.response
    assert error["Error"]["Code"] == "ModelError"
    assert error["OriginalStatusCode"] == 400
    assert json.loads(error["OriginalMessage"])["error"] == (
        f"{ATTRIBUTES}: got no model, expected model=<name> of one of digit-finder, digits, iris"
    )


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [
        (
            {ATTRIBUTES: "model=digit-finder,confidense=1"},
            "invalid_request",
            "'confidense' is unknown; expected one of",
        ),
        ({ATTRIBUTES: "model=digit-finder,iou=1,iou=2"}, "invalid_request", "parameter 'iou': got it twice"),
        ({ATTRIBUTES: "trace"}, "invalid_request", "got 'trace', expected model=<name>,confidence=0.5"),
        ({ATTRIBUTES: "model=digits", TARGET_MODEL: "iris"}, "invalid_request", "got models ['digits', 'iris']"),
        ({ATTRIBUTES: "model=unknown"}, "model_not_found", "'unknown'"),
        ({"Content-Type": BINARY, ATTRIBUTES: "model=digits"}, "invalid_request", "json-header-size=<bytes of the"),
        ({"Content-Type": f"{BINARY};json-header-size=x"}, "invalid_request", "got 'x', expected a number from 0"),
        ({"Content-Type": "application/json"}, "invalid_request", "broken JSON"),
        ({"Content-Type": "text/csv", ATTRIBUTES: "model=iris"}, "unsupported_media", "got 'text/csv', expected"),
    ],
)
def test_wrong_requests_have_the_usual_errors(serve: Stack, headers: dict[str, str], code: str, words: str) -> None:
    body = b'{"inputs"' if "application/json" in headers.values() else DIGITS
    given = {"Content-Type": "image/jpeg", ATTRIBUTES: "model=digits"} | headers
    response = serve.http.post("/invocations", content=body, headers=given)
    assert code_of(response) == code
    assert words in response.json()["error"]


def test_body_of_an_asynchronous_endpoint_has_the_usual_limit(serve: Stack) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", serve.http_port)) as connection:
        connection.putrequest("POST", "/invocations")
        for name, value in {
            "Content-Type": "image/jpeg",
            ATTRIBUTES: "model=digits",
            "Content-Length": str(2**30),
        }.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert json.load(response)["error"] == (
            "body: 1073741824 bytes is over the limit of 100663296; send fewer items at once"
        )


def test_requests_are_known_by_their_inference_id_and_counted_by_model(serve: Stack) -> None:
    line = 'nereid_requests_total{model="digits",route="/invocations",status="200",version="'
    version = serve.http.get("/v2/models/digits").json()["versions"][-1]
    before = gauge(serve, f'{line}{version}"}}')
    response = invoke(serve, SEVEN, "image/png", "model=digits", **{"X-Amzn-SageMaker-Inference-Id": "order-18"})
    assert response.headers["X-Request-Id"] == "order-18"
    assert gauge(serve, f'{line}{version}"}}') == before + 1


def test_only_model_needs_no_name(tmp_path: Path) -> None:
    with start_serve(tmp_path, "iris") as stack:
        found = invoke(stack, json.dumps(VIRGINICA).encode(), "application/json")
        assert ok(found)["model"]["name"] == "iris"


def test_setting_names_the_model_of_requests_without_one(serve: Stack, tmp_path: Path) -> None:
    variables = {"TRANSFORMER_SAGEMAKER": "true", "TRANSFORMER_DEFAULT_MODEL": "digits"}
    with start_transformer(f"127.0.0.1:{serve.triton_grpc_port}", tmp_path / "log", variables=variables) as own:
        image = {"Content-Type": "image/png"}
        assert own.http.post("/invocations", content=SEVEN, headers=image).json()["top"] == "7"


def test_ping_is_no_endpoint_elsewhere_and_needs_no_key(serve: Stack, tmp_path: Path) -> None:
    triton = f"127.0.0.1:{serve.triton_grpc_port}"
    with start_transformer(triton, tmp_path / "off") as off:
        assert {code_of(off.http.get("/ping")), code_of(off.http.post("/invocations"))} == {"route_not_found"}
    make_key("someone", tmp_path / "keys")
    variables = {"TRANSFORMER_SAGEMAKER": "true", "TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys")}
    with start_transformer(triton, tmp_path / "on", variables=variables) as on:
        assert on.http.get("/ping").status_code == 200
        assert code_of(on.http.post("/invocations")) == "missing_api_key"


def test_ping_and_admission_while_triton_hangs(tmp_path: Path) -> None:
    limits = {"TRANSFORMER_MAX_IN_FLIGHT": "1", "TRANSFORMER_MAX_WAITING": "0", "TRANSFORMER_REQUEST_TIMEOUT_S": "4"}
    variables = {"TRANSFORMER_SAGEMAKER": "true", "TRANSFORMER_DEFAULT_MODEL": "digits", **limits}
    with (
        ThreadPoolExecutor(4) as threads,
        silent_triton(threads) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "log", variables=variables) as own,
    ):
        first = threads.submit(own.http.post, "/invocations", content=SEVEN, headers={"Content-Type": "image/png"})
        ping = own.http.get("/ping")
        assert code_of(ping) == "not_ready"
        assert ping.elapsed.total_seconds() < 2
        assert code_of(own.http.post("/invocations", content=SEVEN)) == "queue_full"
        assert code_of(first.result()) == "deadline_exceeded"
