"""v2 requests with a model's own tensors: straight to Triton; malformed ones are rejected as Triton rejects them."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_of
from tests.support.models import BATCHED, build_identity, write_model
from tests.support.stack import Stack, start_stack, wait_until_announced

# Two numbers for each item; texts; half-precision numbers: models that no task describes.
TYPES = {
    "pairs": ("FP32", TensorProto.FLOAT),
    "texts": ("BYTES", TensorProto.STRING),
    "half": ("FP16", TensorProto.FLOAT16),
}
CONFIG_TYPES = {"BYTES": "STRING"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over small models whose configs name no task, and one that cannot be loaded."""
    repository = tmp_path_factory.mktemp("plain")
    for name, (datatype, number) in TYPES.items():
        form = f"data_type: TYPE_{CONFIG_TYPES.get(datatype, datatype)} dims: [ 2 ]"
        tensors = f'input {{ name: "x" {form} }}\noutput {{ name: "y" {form} }}\n'
        write_model(repository, name, onnx_file=build_identity(datatype=number), config=BATCHED + tensors)
    write_model(repository, "broken", onnx_file=b"no model", config=BATCHED)
    with start_stack(repository, tmp_path_factory.mktemp("plain-log") / "log") as running:
        yield running


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes


def document(*inputs: Any, **more: Any) -> tuple[dict[str, str], bytes]:
    return {}, json.dumps({"inputs": inputs, **more}).encode()


def binary(blob: bytes, *, length: Any = None, size: Any = 8, **changes: Any) -> tuple[dict[str, str], bytes]:
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}} | changes
    head = json.dumps({"inputs": [entry]}).encode()
    return {"Inference-Header-Content-Length": str(len(head) if length is None else length)}, head + blob


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in tensor().items() if name != key}


EIGHT = np.array([1, 2], np.float32).tobytes()

# Header and body of requests for `pairs`.
MALFORMED: dict[str, tuple[dict[str, str], bytes]] = {
    "wrong name": document(tensor(name="nothing")),
    "wrong shape": document(tensor(shape=[1, 3], data=[1, 2, 3])),
    "wrong rank": document(tensor(shape=[2])),
    "wrong datatype": document(tensor(datatype="INT32")),
    "unknown datatype": document(tensor(datatype="FLOAT")),
    "more data than the shape": document(tensor(data=[1, 2, 3])),
    "less data than the shape": document(tensor(data=[1])),
    "missing input": document(),
    "no inputs": ({}, b"{}"),
    "inputs are no list": ({}, b'{"inputs": {}}'),
    "input twice": document(tensor(), tensor()),
    "one input too many": document(tensor(), tensor(name="z")),
    "missing name": document(without("name")),
    "missing datatype": document(without("datatype")),
    "missing shape": document(without("shape")),
    "missing data": document(without("data")),
    "unknown output": document(tensor(), outputs=[{"name": "nothing"}]),
    "output without a name": document(tensor(), outputs=[{}]),
    "negative dimension": document(tensor(shape=[-1, 2])),
    "negative dimensions": document(tensor(shape=[-1, -2])),
    "zero batch": document(tensor(shape=[0, 2], data=[])),
    "shape that overflows": document(tensor(shape=[2**62, 8], data=[])),
    "no elements of a huge shape": document(tensor(shape=[0, 2**62], data=[])),
    "long name": document(tensor(name="x" * 20_000)),
    "long output name": document(tensor(), outputs=[{"name": "y" * 20_000}]),
    "shape of fractions": document(tensor(shape=[1.0, 2])),
    "shape of strings": document(tensor(shape=["1", 2])),
    "string among numbers": document(tensor(data=[1, "2"])),
    "null among numbers": document(tensor(data=[1, None])),
    "boolean among numbers": document(tensor(data=[1, True])),
    "data is no list": document(tensor(data=5)),
    "ragged data": document(tensor(data=[[1], [2, 3]])),
    "id is no string": document(tensor(), id=5),
    "parameters are no object": document(tensor(), parameters=5),
    "parameter is a list": document(tensor(), parameters={"what": [1]}),
    "broken JSON": ({}, b'{"inputs": ['),
    "JSON list": ({}, b"[]"),
    "empty body": ({}, b""),
    "fewer bytes than the size": binary(EIGHT[:4]),
    "more bytes than the size": binary(EIGHT + b"more"),
    "size less than the shape": binary(EIGHT[:4], size=4),
    "size more than the shape": binary(EIGHT + EIGHT, size=16),
    "negative size": binary(EIGHT, size=-1),
    "size is no number": binary(EIGHT, size="8"),
    "size and data": binary(EIGHT, data=[1, 2]),
    "header length over the body": binary(EIGHT, length=10_000),
    "header length inside the JSON": binary(EIGHT, length=10),
    "negative header length": binary(EIGHT, length=-1),
    "header length is no number": binary(EIGHT, length="abc"),
    "raw body of an odd size": ({"Inference-Header-Content-Length": "0"}, EIGHT[:5]),
    "raw body without a byte": ({"Inference-Header-Content-Length": "0"}, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_is_rejected_as_triton_rejects_it(plain: Stack, name: str) -> None:
    headers, body = MALFORMED[name]
    ours = plain.http.post("/v2/models/pairs/infer", headers=headers, content=body)
    tritons = httpx.post(
        f"http://127.0.0.1:{plain.triton_http_port}/v2/models/pairs/infer", headers=headers, content=body
    )
    assert tritons.is_error
    # Triton 2.51 returns 500 where its JSON parser fails; later versions return 400, as the transformer does.
    assert ours.status_code == {500: 400}.get(tritons.status_code, tritons.status_code), (ours.text, tritons.text)
    assert len(ours.json()["error"]) > 15


def message(**changes: Any) -> Any:
    """A `ModelInferRequest` with one raw input."""
    changes = {"name": "x", "datatype": "FP32", "shape": [1, 2], "raw": [EIGHT], "outputs": ["y"]} | changes
    request = service_pb2.ModelInferRequest(model_name="pairs", model_version=changes.get("version", ""))
    for _ in range(changes.get("inputs", 1)):
        request.inputs.add(name=changes["name"], datatype=changes["datatype"], shape=changes["shape"])
    for output in changes["outputs"]:
        request.outputs.add(name=output)
    request.raw_input_contents.extend(changes["raw"])
    if "typed" in changes:
        request.inputs[0].contents.fp32_contents.extend(changes["typed"])
    return request


MALFORMED_MESSAGES = {
    "wrong name": message(name="nothing"),
    "wrong shape": message(shape=[1, 3], raw=[EIGHT + EIGHT[:4]]),
    "wrong datatype": message(datatype="INT32"),
    "unknown datatype": message(datatype="FLOAT"),
    "fewer bytes": message(raw=[EIGHT[:4]]),
    "more bytes": message(raw=[EIGHT + EIGHT]),
    "missing input": message(inputs=0, raw=[]),
    "unknown output": message(outputs=["nothing"]),
    "negative dimension": message(shape=[-1, 2]),
    "zero batch": message(shape=[0, 2], raw=[b""]),
    "no elements of a huge shape": message(shape=[0, 2**62], raw=[b""]),
    "raw and typed": message(typed=[1, 2]),
    "neither raw nor typed": message(raw=[]),
    "fewer raw contents than inputs": message(inputs=2),
    "too few typed": message(raw=[], typed=[1]),
    "unknown version": message(version="9"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED_MESSAGES)
def test_malformed_message_is_rejected_as_triton_rejects_it(plain: Stack, name: str) -> None:
    codes: list[grpc.StatusCode] = []
    for port in (plain.grpc_port, plain.triton_grpc_port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as rejected:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(MALFORMED_MESSAGES[name], timeout=30)
        assert isinstance(rejected.value, grpc.Call)
        codes.append(rejected.value.code())
    assert codes[0] == codes[1]


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc])
@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("pairs", np.array([[1.5, -2], [np.nan, np.inf]], np.float32)),
        ("half", np.array([[1.5, -2]], np.float16)),
        ("texts", np.array([["é".encode(), b""]], object)),
    ],
)
def test_own_tensors_of_a_model_go_to_triton_and_back(plain: Stack, library: Any, model: str, array: Any) -> None:
    port = plain.http_port if library is tritonclient.http else plain.grpc_port
    given = library.InferInput("x", array.shape, TYPES[model][0])
    given.set_data_from_numpy(array)
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for outputs in (None, [library.InferRequestedOutput("y")]):
            result = client.infer(model, [given], outputs=outputs, model_version="1", request_id="mine")
            np.testing.assert_array_equal(result.as_numpy("y"), array)
            response = result.get_response()
            assert "mine" in (response["id"] if isinstance(response, dict) else response.id)


def test_own_tensors_of_a_model_may_be_json(plain: Stack) -> None:
    for data in ([1, 2.5, 3, 4], [[1, 2.5], [3, 4]]):
        response = plain.http.post("/v2/models/pairs/infer", json={"inputs": [tensor(shape=[2, 2], data=data)]}).json()
        assert response["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2.5, 3, 4]}]
    texts = tensor(datatype="BYTES", data=["é", "z"])
    response = plain.http.post("/v2/models/texts/infer", json={"inputs": [texts]}).json()
    assert response["outputs"][0]["data"] == ["é", "z"]
    response = plain.http.post("/v2/models/half/infer", json={"inputs": [tensor(datatype="FP16")]}).json()
    assert response["outputs"][0]["data"] == [1, 2]


def test_body_of_nothing_but_the_input_is_understood(plain: Stack) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    url = f"http://127.0.0.1:{plain.triton_http_port}"
    tritons = httpx.post(f"{url}/v2/models/pairs/infer", headers=headers, content=EIGHT)
    ours = plain.http.post("/v2/models/pairs/infer", headers=headers, content=EIGHT)
    split = int(ours.headers["Inference-Header-Content-Length"])
    assert ours.content[split:] == EIGHT == tritons.content[int(tritons.headers["Inference-Header-Content-Length"]) :]
    assert json.loads(ours.content[:split]) == json.loads(tritons.content[:-8])


def test_model_without_a_task_has_metadata_and_v2_tensors_only(plain: Stack) -> None:
    ours = plain.http.get("/v2/models/pairs").json()
    tritons = httpx.get(f"http://127.0.0.1:{plain.triton_http_port}/v2/models/pairs").json()
    assert {key: ours[key] for key in tritons} == tritons
    wait_until_announced(plain.log)
    assert "no model here has a task" in plain.log.read_text(errors="replace")
    response = plain.http.post("/predict/pairs", json=[1, 2])
    assert (response.status_code, response.json()["error"]) == (
        400,
        "pairs is a model without a task in its config: it takes its tensors: got rows",
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/broken/infer", {"inputs": [tensor()]}),
        ("/v2/models/broken/ready", None),
        ("/v2/models/broken", None),
        ("/v2/models/broken/config", None),
        ("/v1/models/broken", None),
        ("/v1/models/broken:predict", {"instances": [[1, 2]]}),
    ],
)
def test_model_that_failed_to_load_is_unavailable(plain: Stack, path: str, body: Any) -> None:
    response = plain.http.post(path, json=body) if body else plain.http.get(path)
    assert code_of(response) is ErrorCode.NO_SERVABLE_VERSION  # no Retry-After: it does not pass by itself


def test_model_that_failed_to_load_is_unavailable_over_grpc(plain: Stack) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{plain.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not stub.ModelReady(service_pb2.ModelReadyRequest(name="broken")).ready
        request = message()
        request.model_name = "broken"
        with pytest.raises(grpc.RpcError) as rejected:
            stub.ModelInfer(request)
    assert isinstance(rejected.value, grpc.Call)
    assert rejected.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "retry-after" not in dict(rejected.value.trailing_metadata())


@pytest.mark.parametrize("what", ["inputs", "outputs", "parameters"])
def test_endless_lists_are_rejected(plain: Stack, what: str) -> None:
    many: dict[str, Any] = {
        "inputs": [tensor(name=f"x{index}") for index in range(300)],
        "outputs": [{"name": f"y{index}"} for index in range(300)],
        "parameters": {f"p{index}": 1 for index in range(300)},
    }
    response = plain.http.post("/v2/models/pairs/infer", json={"inputs": [tensor()], what: many[what]})
    assert (response.status_code, response.json()["error"]) == (400, f"{what}: got 300, expected at most 256")


def test_shared_memory_is_rejected(plain: Stack) -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    response = plain.http.post("/v2/models/pairs/infer", json={"inputs": [without("data") | {"parameters": region}]})
    assert (response.status_code, "shared memory" in response.json()["error"]) == (400, True)
    request = message(raw=[])
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with grpc.insecure_channel(f"127.0.0.1:{plain.grpc_port}") as channel, pytest.raises(grpc.RpcError) as rejected:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert "shared memory is not supported" in str(rejected.value)
