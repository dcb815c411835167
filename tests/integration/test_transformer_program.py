"""The transformer as a process: its arguments, both servers, health, reflection, and how it ends."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment.error_codes import ErrorCode
from export.examples.shipped import EXAMPLES
from tests.support.error_codes import code_of, rejection, rejection_of
from tests.support.ports import find_free_ports, is_open
from tests.support.stack import ROOT, Stack, wait_until
from tests.support.transformer import (
    DIGITS,
    REFLECTION,
    gauge,
    infer_message,
    infer_rejection,
    open_reflection,
    silent_triton,
    start_transformer,
)

SHIPPED = sorted(example.name for example in EXAMPLES)

SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


@pytest.fixture
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
        yield channel


def test_sigterm_finishes_accepted_requests(stack: Stack, tmp_path: Path) -> None:
    triton = f"127.0.0.1:{stack.triton_grpc_port}"
    with (
        start_transformer(triton, tmp_path / "log", "--workers", "2") as transformer,
        ThreadPoolExecutor(2) as threads,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc)
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=30).ready
        seen: list[int] = []
        watcher = threading.Thread(target=lambda: seen.extend(watch(transformer.grpc)))
        watcher.start()
        stream = open_reflection(transformer.grpc)
        over_http = threads.submit(transformer.http.post, "/predict/digit-finder", files=[("image", DIGITS)] * 48)
        over_grpc = threads.submit(stub.ModelInfer, infer_message("digit-finder", *[DIGITS] * 48), timeout=60)
        wait_until(lambda: gauge(transformer, "nereid_in_flight") == 2, log=tmp_path / "log")
        assert not over_http.done()
        assert not over_grpc.done()
        transformer.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_open(transformer.http_port), log=tmp_path / "log")
        assert len(over_http.result().json()) == 48
        assert list(over_grpc.result().outputs[0].shape) == [48]
        # Well before the grace period is over, although a client holds a stream of reflection.
        assert transformer.process.wait(60) == 0
        watcher.join(5)
        assert stream.code() is not None
        assert seen == [SERVING, NOT_SERVING]
    log = (tmp_path / "log").read_text()
    assert "option --workers has no effect" in log
    assert "Traceback" not in log


def health_of(channel: grpc.Channel) -> Any:
    """The generated stub, whose type stubs lack its methods."""
    return health_pb2_grpc.HealthStub(channel)


def watch(channel: grpc.Channel) -> list[int]:
    """Every status until the server ends the stream."""
    stream = health_of(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    return [response.status for response in stream]


def test_late_predictor_is_a_timeout_and_absent_one_is_unavailable(stack: Stack, tmp_path: Path) -> None:
    late = {"TRANSFORMER_REQUEST_TIMEOUT_S": "0.001"}
    triton = f"127.0.0.1:{stack.triton_grpc_port}"
    (closed_port,) = find_free_ports(1)
    raw = service_pb2.ModelInferRequest(model_name="digit-finder", raw_input_contents=[bytes(640 * 640 * 3)])
    raw.inputs.add(name="image", datatype="UINT8", shape=[1, 640, 640, 3])
    with start_transformer(triton, tmp_path / "late.log", variables=late) as transformer:
        response = transformer.http.post("/predict/digit-finder", files={"image": DIGITS})
        # Which of them is over first is a matter of luck; test_overload.py distinguishes them.
        late_codes = {ErrorCode.PREDICTOR_TIMEOUT, ErrorCode.DEADLINE_EXCEEDED}
        assert code_of(response) in late_codes
        for request in (infer_message("digit-finder", DIGITS), raw):
            assert infer_rejection(transformer.grpc, request).code in late_codes
    with start_transformer(f"127.0.0.1:{closed_port}", tmp_path / "away.log") as transformer:
        for path in ("/v2/health/ready", "/v1/models", "/v2/models", "/v2/models/digits", "/v2/models/digits/ready"):
            response = transformer.http.get(path)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1"), path
        for request in (infer_message("digit-finder", DIGITS), raw):
            rejected = infer_rejection(transformer.grpc, request)
            assert (rejected.code, rejected.status) == (
                ErrorCode.PREDICTOR_UNAVAILABLE,
                grpc.StatusCode.UNAVAILABLE,
            )
            assert rejected.words.startswith("the predictor is not available (request ")
        stub = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        assert health_of(transformer.grpc).Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING
        # An ALB of AWS looks at the status of gRPC alone.
        agent = [("grpc.primary_user_agent", "ELB-HealthChecker/2.0")]
        with (
            grpc.insecure_channel(f"127.0.0.1:{transformer.grpc_port}", options=agent) as balancer,
            pytest.raises(grpc.RpcError) as rejected_check,
        ):
            health_of(balancer).Check(health_pb2.HealthCheckRequest())
        assert rejection_of(rejected_check.value).status == grpc.StatusCode.UNAVAILABLE


def test_request_that_cannot_be_finished_gets_an_error(tmp_path: Path) -> None:
    short = {"TRANSFORMER_SHUTDOWN_TIMEOUT_S": "1"}
    with (
        ThreadPoolExecutor(4) as threads,
        silent_triton(threads) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "log", variables=short) as transformer,
    ):
        waiting = threads.submit(transformer.http.post, "/predict/digits", files={"image": DIGITS})
        wait_until(lambda: gauge(transformer, "nereid_in_flight") == 1, log=tmp_path / "log")
        transformer.process.send_signal(signal.SIGTERM)
        response = waiting.result()
        assert (code_of(response), response.headers["Retry-After"]) == (ErrorCode.SHUTTING_DOWN, "1")
        assert transformer.process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("option", ["--http_port", "--grpc_port"])
def test_port_that_is_taken_is_named(option: str) -> None:
    taken, other = find_free_ports(2)
    ports = {"--http_port": other, "--grpc_port": other, option: taken}
    arguments = [f"{name}={port}" for name, port in ports.items()]
    with socket.create_server(("127.0.0.1", taken)):
        done = subprocess.run(
            [sys.executable, "-m", "transformer", "--predictor_host=localhost:1", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"error: 127.0.0.1:{taken} is unavailable: " in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_what_matters_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "transformer", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert {"--predictor_host", "--http_port", "--grpc_port", "--model_name", "--workers"} <= set(done.stdout.split())
    assert "SUPPRESS" not in done.stdout
    assert done.stderr == ""


def test_grpc_health_covers_the_server_and_its_service(channel: grpc.Channel) -> None:
    stub = health_of(channel)
    for service in ("", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
        assert next(iter(stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60))).status == SERVING
    assert rejection(stub.Check, health_pb2.HealthCheckRequest(service="absent")).code is ErrorCode.SERVICE_NOT_FOUND
    unknown = health_pb2.HealthCheckRequest(service="absent")
    assert next(iter(stub.Watch(unknown, timeout=60))).status == SERVICE_UNKNOWN


def test_reflection_names_every_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
    assert "ModelInfer" in {method.name for service in file.service for method in service.method}


@pytest.mark.parametrize(
    "method",
    ["RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex", "SystemSharedMemoryRegister", "LogSettings"],
)
def test_methods_that_change_the_server_are_out_of_reach(stack: Stack, channel: grpc.Channel, method: str) -> None:
    request = getattr(service_pb2, f"{method}Request")()
    rejected = rejection(getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method), request)
    assert (rejected.code, rejected.status) == (ErrorCode.ROUTE_NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
    for action in ("load", "unload"):
        for path in (f"/v2/repository/models/digits/{action}", f"/v1/models/digits/{action}"):
            assert code_of(stack.http.post(path)) is ErrorCode.ROUTE_NOT_FOUND
    assert stack.http.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}


def test_grpc_returns_the_request_id(channel: grpc.Channel) -> None:
    method = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    _, call = method.with_call(infer_message("digits", DIGITS), metadata=[("x-request-id", "abc-123")])
    assert dict(call.trailing_metadata())["x-request-id"] == "abc-123"
    _, call = method.with_call(infer_message("digits", DIGITS))
    assert len(dict(call.trailing_metadata())["x-request-id"]) == 32
    with pytest.raises(grpc.RpcError) as rejected:
        method(infer_message("none", DIGITS), metadata=[("x-request-id", "abc-123")])
    assert isinstance(rejected.value, grpc.Call)
    assert dict(rejected.value.trailing_metadata())["x-request-id"] == "abc-123"


def test_limits_of_grpc_are_those_of_http(channel: grpc.Channel) -> None:
    many = [DIGITS + bytes(15 * 2**20)] * 4  # 60 MiB, each below the limit of an image
    assert infer_rejection(channel, infer_message("none", *many)).code is ErrorCode.MODEL_NOT_FOUND
    # gRPC's own rejection, which has no code.
    code, status, words, _ = infer_rejection(channel, infer_message("digits", *many, *many))
    assert (code, status, "larger than max" in words) == (None, grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    with pytest.raises(grpc.RpcError) as rejected:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
            infer_message("digits", bytes(100 * 2**20)), compression=grpc.Compression.Gzip
        )
    assert "larger than max" in str(rejected.value)


@pytest.mark.parametrize(
    "method",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        REFLECTION,
    ],
)
def test_health_and_reflection_reject_invalid_messages(channel: grpc.Channel, method: str) -> None:
    call: Any = channel.stream_stream(f"/{method}")
    with pytest.raises(grpc.RpcError) as raised:
        next(call(iter([b"\xff\xff"]), timeout=20))
    rejected = rejection_of(raised.value)
    assert rejected.code is ErrorCode.INVALID_REQUEST
    assert rejected.words == "message: its bytes are not a message of this method"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x0a\x02\xff\xfe", ErrorCode.INVALID_REQUEST),  # a name that is not UTF-8
        (b"\x0a\xff", ErrorCode.INVALID_REQUEST),
        (b"\x0a\x04iris" + b"\x2a\x00" * 2_000_000, ErrorCode.PAYLOAD_TOO_LARGE),
        (b"\x0a\x90\x4e" + b"x" * 10_000, ErrorCode.MODEL_NOT_FOUND),
    ],
)
def test_hostile_message_is_rejected_at_once(stack: Stack, channel: grpc.Channel, data: bytes, code: ErrorCode) -> None:
    call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as rejected:
        call(data, metadata=[("x-request-id", "hostile")])
    assert time.monotonic() - started < 10  # and not after it has become objects
    assert isinstance(rejected.value, grpc.Call)
    assert (rejection_of(rejected.value).code, dict(rejected.value.trailing_metadata())["x-request-id"]) == (
        code,
        "hostile",
    )
    assert "Traceback" not in stack.log.read_text(errors="replace")


@pytest.mark.parametrize("path", ["/v1/models/{}", "/v2/models/{}", "/v2/models/{}/ready", "/v2/models/{}/config"])
def test_overlong_model_name_is_unknown(stack: Stack, path: str) -> None:
    assert code_of(stack.http.get(path.format("x" * 20_000))) is ErrorCode.MODEL_NOT_FOUND


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc])
def test_priority_and_timeout_reach_the_scheduler(stack: Stack, library: Any) -> None:
    port = stack.http_port if library is tritonclient.http else stack.grpc_port
    image = library.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([DIGITS], object))
    rows = library.InferInput("features", [1, 4], "FP32")
    rows.set_data_from_numpy(np.ones((1, 4), np.float32))
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for model, tensor in (("digits", image), ("iris", rows)):
            result = client.infer(model, [tensor], priority=1, timeout=10_000_000)
            assert result.as_numpy("class_id").shape == (1,)


def test_parameters_of_the_scheduler_are_whole_numbers(stack: Stack) -> None:
    rows = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    for value in ("soon", -1, 0.5, True):
        body = {"inputs": [rows], "parameters": {"timeout": value}}
        response = stack.http.post("/v2/models/iris/infer", json=body)
        assert (response.status_code, "expected a whole number" in response.json()["error"]) == (400, True)


def test_parameters_may_be_in_the_query_of_every_protocol(stack: Stack) -> None:
    raw = {"Inference-Header-Content-Length": "0", "Content-Type": "image/jpeg"}
    query = {"max_detections": "2"}
    v1 = stack.http.post("/v1/models/digit-finder:predict", params=query, content=DIGITS, headers=raw).json()
    assert len(v1["predictions"][0]["predictions"]) == 2
    v2 = stack.http.post("/v2/models/digit-finder/infer", params=query, content=DIGITS, headers=raw)
    assert b'"name":"scores","datatype":"FP32","shape":[1,2]' in v2.content
    response = stack.http.post("/v2/models/digit-finder/infer?nonsense=1", content=DIGITS, headers=raw)
    assert (response.status_code, "'nonsense' is unknown" in response.json()["error"]) == (400, True)


def test_requests_over_grpc_are_counted_and_logged(stack: Stack, channel: grpc.Channel) -> None:
    infer_rejection(channel, infer_message("none", DIGITS))
    metrics = stack.http.get("/metrics").text
    assert 'route="/inference.GRPCInferenceService/ModelInfer",status="NOT_FOUND"' in metrics
    stack.http.get("/v1/models/digits")
    assert 'route="/v1/models/{model}",status="200"' in stack.http.get("/metrics").text
    log = stack.log
    wait_until(lambda: "gRPC ModelInfer NOT_FOUND" in log.read_text(errors="replace"), log=log)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/predict/digits", ErrorCode.METHOD_NOT_ALLOWED),
        ("GET", "/v1/models/digits:predict", ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/v1/models", ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/v1/models/digits", ErrorCode.METHOD_NOT_ALLOWED),
        ("GET", "/v2/models/digits/infer", ErrorCode.METHOD_NOT_ALLOWED),
        ("DELETE", "/v2/models/digits", ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/v2", ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/v2/health/live", ErrorCode.METHOD_NOT_ALLOWED),
        ("GET", "/v1/models/digits:explain", ErrorCode.ROUTE_NOT_FOUND),
        ("POST", "/v1/models/digits:explain", ErrorCode.ROUTE_NOT_FOUND),
        ("GET", "/v2/models//", ErrorCode.ROUTE_NOT_FOUND),
        ("GET", "/v2/models/none", ErrorCode.MODEL_NOT_FOUND),
        ("GET", "/v2/models/none/ready", ErrorCode.MODEL_NOT_FOUND),
        ("GET", "/v2/models/none/config", ErrorCode.MODEL_NOT_FOUND),
        ("GET", "/v2/models/digits/versions/9", ErrorCode.VERSION_NOT_FOUND),
        ("GET", "/v2/models/digits/versions/9/ready", ErrorCode.VERSION_NOT_FOUND),
        ("GET", "/v2/models/digits/versions/9/config", ErrorCode.VERSION_NOT_FOUND),
        ("GET", "/v2/models/digits/versions/x", ErrorCode.VERSION_NOT_FOUND),
        ("POST", "/v2/models/digits/versions/9/infer", ErrorCode.VERSION_NOT_FOUND),
        ("POST", "/v2/models/digits/generate", ErrorCode.ROUTE_NOT_FOUND),
        ("GET", "/v1/models/none", ErrorCode.MODEL_NOT_FOUND),
        ("GET", "/v3", ErrorCode.ROUTE_NOT_FOUND),
    ],
)
def test_every_route_returns_errors_alike(stack: Stack, method: str, path: str, code: ErrorCode) -> None:
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}]}
    response = stack.http.request(method, path, json=body if method == "POST" else None)
    assert code_of(response) is code


def test_metadata_has_the_inputs_and_outputs_of_the_server(stack: Stack) -> None:
    response = stack.http.get("/v2/models/digit-finder").json()
    (served,) = response["versions"]
    assert stack.http.get(f"/v2/models/digit-finder/versions/{served}").json() == response
    assert response["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    tritons = httpx.get(f"http://127.0.0.1:{stack.triton_http_port}/v2/models/digit-finder").json()
    assert response["parameters"]["model_inputs"] == tritons["inputs"]
    assert response["parameters"]["model_outputs"] == tritons["outputs"]
    assert response["platform"] == tritons["platform"]
    for model in stack.http.get("/v2/models").json()["models"]:
        config = stack.http.get(f"/v2/models/{model}/config").json()
        assert config == httpx.get(f"http://127.0.0.1:{stack.triton_http_port}/v2/models/{model}/config").json()
    assert stack.http.get("/v1/models").json() == {"models": SHIPPED}
    assert stack.http.get("/v2").json()["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "parameters",
    ]


@pytest.mark.parametrize("model", SHIPPED)
def test_outputs_are_those_of_the_metadata(stack: Stack, model: str) -> None:
    body = (
        {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        if model == "iris"
        else None
    )
    raw = {"Inference-Header-Content-Length": "0"}
    url = f"/v2/models/{model}/infer"
    response = stack.http.post(url, json=body) if body else stack.http.post(url, content=DIGITS, headers=raw)
    length = int(response.headers.get("Inference-Header-Content-Length", len(response.content)))
    outputs = httpx.Response(200, content=response.content[:length]).json()["outputs"]
    promised = stack.http.get(f"/v2/models/{model}").json()["outputs"]
    assert [(o["name"], o["datatype"]) for o in outputs] == [(o["name"], o["datatype"]) for o in promised]
    for output, expected in zip(outputs, promised, strict=True):
        assert len(output["shape"]) == len(expected["shape"])
        assert all(e in {-1, got} for got, e in zip(output["shape"], expected["shape"], strict=True))
