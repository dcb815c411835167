"""The Lambda function in front of a SageMaker endpoint: deployed to moto, run by AWS's own runtime.

The endpoint is the real stack. moto itself runs functions in Docker alone, and knows no HTTP API.
"""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.cloudformation import TEMPLATES, Account, read_template
from tests.support.functions import Function, start_function
from tests.support.s3 import BUCKET, start_s3
from tests.support.sagemaker import ENDPOINT, start_endpoint
from tests.support.stack import ROOT, Stack, start_shipped

IMAGES = ROOT / "loadtest" / "pictures"
DIGITS = (IMAGES / "digits.jpg").read_bytes()
FOUND = ["2", "7", "0"]  # in digits.jpg, at a confidence of 0.9
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    variables = {"TRANSFORMER_SAGEMAKER": "true"}
    with start_shipped(tmp_path_factory.mktemp("stack"), "digit-finder", variables=variables) as started:
        yield started


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The unpacked code of the function, and its configuration, by a stack that is updated and deleted too."""
    folder = tmp_path_factory.mktemp("code")
    with start_s3(folder / "s3.log") as s3:
        account = Account(s3)
        s3.put("code.zip", pack(TEMPLATES / "front"))
        packaged = package(BUCKET, "code.zip")
        account.create("front", packaged, {"EndpointName": ENDPOINT})
        account.update("front", packaged, {"EndpointName": ENDPOINT, "RequestsPerSecond": "9"})
        found = account.client("lambda").get_function(FunctionName=account.resources("front")["Function"])
        archive = s3.client.get_object(Bucket=BUCKET, Key="code.zip")["Body"].read()
        zipfile.ZipFile(io.BytesIO(archive)).extractall(folder / "task")
        account.delete("front")
        assert not account.client("lambda").list_functions()["Functions"]
    return folder / "task", found["Configuration"]


@pytest.fixture(scope="module")
def front(
    stack: Stack, deployed: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    log = tmp_path_factory.mktemp("front") / "log"
    with start_endpoint(f"http://127.0.0.1:{stack.http_port}") as url, start(deployed, url, log) as function:
        yield function


def start(deployed: tuple[Path, dict[str, Any]], url: str, log: Path, **variables: str) -> Any:
    """The function, with SageMaker at another address and another pair of keys."""
    folder, configuration = deployed
    given = dict(configuration["Environment"]["Variables"])
    given |= {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url, "AWS_DEFAULT_REGION": "eu-central-1", "NO_PROXY": "127.0.0.1"}
    given |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return start_function(folder, configuration["Handler"], log, given | variables)


def package(bucket: str, key: str) -> str:
    """The template as `aws cloudformation package` leaves it, without the HTTP API."""
    template = read_template("front.yaml")
    resources = {
        name: each
        for name, each in template["Resources"].items()
        if not each["Type"].startswith("AWS::ApiGatewayV2::") and name != "Permission"
    }
    resources["Function"]["Properties"]["Code"] = {"S3Bucket": bucket, "S3Key": key}
    kept = ("AWSTemplateFormatVersion", "Parameters", "Conditions")
    return json.dumps({name: template[name] for name in kept} | {"Resources": resources})


def pack(folder: Path) -> bytes:
    """The files of a folder as ZIP."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.glob("*.py"):
            archive.write(path, path.name)
    return packed.getvalue()


def event_of(body: bytes, query: str = "", model: str = "digit-finder", **headers: str) -> dict[str, Any]:
    """What API Gateway sends of a request (payload 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "POST /predict/{model}",
        "rawPath": f"/predict/{model}",
        "rawQueryString": query,
        "headers": {"content-type": "image/jpeg", **headers},
        "pathParameters": {"model": model},
        "requestContext": {"requestId": "JKJaXmPLvHcESHA=", "http": {"method": "POST"}},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def read(response: dict[str, Any]) -> Any:
    """The JSON of a response."""
    body = response["body"]
    return json.loads(base64.b64decode(body) if response.get("isBase64Encoded") else body)


def test_image_gets_detections(front: Function) -> None:
    response = front.invoke(event_of(DIGITS, "confidence=0.9"))
    assert (response["statusCode"], response["headers"]) == (200, {"content-type": "application/json"})
    assert [each["class"] for each in read(response)["predictions"]] == FOUND


def test_classes_with_commas_reach_the_model(front: Function) -> None:
    response = front.invoke(event_of(DIGITS, "confidence=0.9&classes=7%2C0"))
    assert [each["class"] for each in read(response)["predictions"]] == ["7", "0"]


def test_annotated_image_comes_back_as_bytes(front: Function) -> None:
    response = front.invoke(event_of(DIGITS, accept="image/png"))
    assert response["headers"]["content-type"] == "image/png"
    assert base64.b64decode(response["body"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("event", "status", "code", "words"),
    [
        (event_of(b"no image"), 400, "invalid_image", "image"),
        (event_of(DIGITS, model="absent"), 404, "model_not_found", "absent"),
        (event_of(DIGITS, "confidence=2"), 400, "invalid_request", "confidence"),
        (event_of(DIGITS, "x=" + "a" * 1100), 414, "invalid_request", "1024"),
        (event_of(DIGITS, **{"content-encoding": "gzip"}), 415, "unsupported_media", "gzip"),
    ],
    ids=["no image", "no model", "wrong parameter", "long parameter", "compressed"],
)
def test_error_has_the_status_of_the_stack(
    front: Function, event: dict[str, Any], status: int, code: str, words: str
) -> None:
    response = front.invoke(event)
    assert response["statusCode"] == status
    assert read(response)["code"] == code
    assert words in read(response)["error"]


def test_response_that_lambda_cannot_give_is_named(front: Function) -> None:
    # A photo as PNG: incompressible, and far smaller as it was sent.
    large = front.invoke(event_of(noise(), accept="image/png"))
    assert (large["statusCode"], read(large)["code"]) == (413, "payload_too_large")


def test_endpoint_that_does_not_exist_is_named(
    stack: Stack, deployed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with (
        start_endpoint(f"http://127.0.0.1:{stack.http_port}") as url,
        start(deployed, url, tmp_path / "log", ENDPOINT_NAME="other") as function,
    ):
        response = function.invoke(event_of(DIGITS))
    assert (response["statusCode"], read(response)["code"]) == (503, "not_ready")
    assert "123456789012" not in response["body"]  # the account is in the log alone
    assert "123456789012" in (tmp_path / "log").read_text()


def test_endpoint_that_is_away_is_named(deployed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with start(deployed, "http://127.0.0.1:9", tmp_path / "log") as function:
        response = function.invoke(event_of(DIGITS))
    assert (response["statusCode"], read(response)["code"]) == (503, "predictor_unavailable")
    assert "SageMaker" in (tmp_path / "log").read_text()


def noise() -> bytes:
    """A JPEG whose PNG is larger than what Lambda returns."""
    image = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    assert len(encoded) < 4 * MIB
    return encoded
