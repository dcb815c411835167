"""The real stack, once through: an image over every protocol, a row, a broken image, a swap. The rest: integration."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from loadtest.generator.load import Load, Plan
from tests.support.responded import versions
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack
from tests.support.tolerances import same_detections
from tests.support.versions import Build, write

IMAGE = ROOT / "loadtest" / "pictures" / "digits.jpg"
VIRGINICA = [6.3, 3.3, 6.0, 2.5]
FIRST, SECOND = Build(1), Build(2)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the models that are shipped, and one whose versions have different outputs."""
    folder = tmp_path_factory.mktemp("smoke") / "repository"
    for name in ("digit-finder", "iris"):
        shutil.copytree(ROOT / "model_repository" / name, folder / name)
    write(folder, "rows", FIRST)
    return folder


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[Stack]:
    with start_stack(repository, repository.parent / "log", variables={"POLL_S": "0.5"}) as running:
        yield running


def rows_of(response: dict[str, Any]) -> list[list[float]]:
    return [[*p["box"].values(), p["confidence"], p["class_id"]] for p in response["predictions"]]


def infer_with_tritonclient(library: Any, port: int, image: bytes) -> dict[str, Any]:
    tensor = library.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image], object))
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        (text,) = client.infer("digit-finder", [tensor]).as_numpy("detections")
    response: dict[str, Any] = json.loads(text)
    return response


def infer_v2(stack: Stack, image: bytes) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}
    response = stack.http.post("/v2/models/digit-finder/infer", json={"inputs": [tensor]}).raise_for_status().json()
    (text,) = next(output for output in response["outputs"] if output["name"] == "detections")["data"]
    found: dict[str, Any] = json.loads(text)
    return found


def test_image_has_the_same_response_over_every_protocol(served: Stack) -> None:
    image = IMAGE.read_bytes()
    expected = served.http.post("/predict/digit-finder", files={"image": image}).raise_for_status().json()
    confident = [found["class"] for found in expected["predictions"] if found["confidence"] > 0.9]
    assert confident == ["2", "7", "0"], "what is drawn there"
    jpeg = {"Content-Type": "image/jpeg"}
    v1 = {"instances": [{"image": {"b64": base64.b64encode(image).decode()}}]}
    responses = {
        "raw body": served.http.post("/predict/digit-finder", content=image, headers=jpeg).raise_for_status().json(),
        "v1": served.http.post("/v1/models/digit-finder:predict", json=v1).raise_for_status().json()["predictions"][0],
        "v2": infer_v2(served, image),
        "v2 binary": infer_with_tritonclient(tritonclient.http, served.http_port, image),
        "gRPC": infer_with_tritonclient(tritonclient.grpc, served.grpc_port, image),
    }
    different = {
        name for name, response in responses.items() if not same_detections(rows_of(response), rows_of(expected))
    }
    assert not different


def test_row_is_classified(served: Stack) -> None:
    (prediction,) = served.http.post("/predict/iris", json=VIRGINICA).raise_for_status().json()["predictions"]
    assert prediction["class"] == "virginica"
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": VIRGINICA}
    v2 = served.http.post("/v2/models/iris/infer", json={"inputs": [tensor]}).raise_for_status().json()
    class_ids = next(output["data"] for output in v2["outputs"] if output["name"] == "class_id")
    assert class_ids == [prediction["class_id"]]


def test_error_of_a_broken_image_names_it(served: Stack) -> None:
    response = served.http.post("/predict/digit-finder", files={"image": b"no image"})
    assert (response.status_code, "8 bytes that begin with b'no image'" in response.json()["error"]) == (400, True)
    with pytest.raises(InferenceServerException, match="8 bytes that begin with") as rejected:
        infer_with_tritonclient(tritonclient.grpc, served.grpc_port, b"no image")
    assert rejected.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_new_version_replaces_the_previous_one(served: Stack, repository: Path) -> None:
    http, grpc = (f"localhost:{port}" for port in (served.http_port, served.grpc_port))
    with Load(Plan(http, grpc, "rows", row=[1.0] * 4, pause_s=0.01)) as load:
        assert load.wait_for_version("1", seconds=PATIENCE_S)
        write(repository, "rows", SECOND)
        assert load.wait_for_version("2", seconds=PATIENCE_S)
        result = load.stop()
    assert (result.failures, versions(result)) == ([], ["1", "2"])
    assert all({"1": FIRST, "2": SECOND}[response.version].fits(response) for response in result.responses)
    assert served.http.get("/status").json()["models"]["rows"]["serving"] == ["2"]
