"""Observability: metrics, log lines, request ids and traces."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment.error_codes import ErrorCode
from predictor.settings import Settings
from predictor.triton.command import compose_command
from predictor.triton.installation import find_installation, link_backends
from tests.support.collector import Collector, Span, start_collector
from tests.support.error_codes import code_of
from tests.support.metrics import scrape, value
from tests.support.ports import find_free_ports
from tests.support.processes import ended
from tests.support.stack import ROOT, Stack, wait_until
from tests.support.synced import start_synchroniser
from tests.support.transformer import (
    DIGITS,
    Transformer,
    infer_message,
    infer_rejection,
    make_key,
    silent_triton,
    start_transformer,
)

ROW = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [6.3, 3.3, 6.0, 2.5]}]}
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_PAYLOAD = 5301425
KEYS = "nereid_key_requests_total"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")


def lines(transformer: Transformer) -> list[dict[str, Any]]:
    """Every line of a log of JSON."""
    return [json.loads(line) for line in transformer.log.read_text().splitlines()]


def line_of(transformer: Transformer, request_id: str) -> dict[str, Any]:
    """The log line of a request that got its response."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [line for line in lines(transformer) if line.get("request_id") == request_id and "ms" in line]
        return bool(found)

    wait_until(is_there, log=transformer.log)
    (line,) = found
    return line


@pytest.fixture(scope="module")
def in_json(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    """A transformer that logs JSON."""
    log = tmp_path_factory.mktemp("json") / "log"
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", log, variables={"LOG_FORMAT": "json"}) as transformer:
        wait_until(lambda: transformer.http.get("/v2/health/ready").is_success, log=log)
        yield transformer


def test_requests_are_counted_by_route_model_version_and_status(stack: Stack) -> None:
    version = stack.http.get("/v2/models/iris").json()["versions"][-1]
    before = scrape(stack.http)
    stack.http.post("/v2/models/iris/infer", json=ROW).raise_for_status()
    assert stack.http.post("/v2/models/iris/infer", json={"inputs": []}).status_code == 400
    assert stack.http.post("/v2/models/iris/infer", content=b"{").status_code == 400
    assert stack.http.post("/predict/digit-finder", files={"image": b"no image"}).status_code == 400
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client:
        tensor = tritonclient.grpc.InferInput("features", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
        client.infer("iris", [tensor])
    after = scrape(stack.http)
    infer, grpc_infer = "/v2/models/{model}/infer", "/inference.GRPCInferenceService/ModelInfer"
    for labels, count in (
        ({"route": infer, "model": "iris", "version": version, "status": "200"}, 1),
        ({"route": infer, "model": "iris", "status": "400"}, 2),
        ({"route": "/predict/{model}", "model": "digit-finder", "status": "400"}, 1),
        ({"route": grpc_infer, "model": "iris", "version": version, "status": "OK"}, 1),
    ):
        counted = value(after, "nereid_requests_total", **labels) - value(before, "nereid_requests_total", **labels)
        assert counted == count, labels
    seconds = "nereid_request_seconds_count"
    assert value(after, seconds, route=infer) - value(before, seconds, route=infer) == 3


def test_names_that_no_model_has_make_no_series(stack: Stack) -> None:
    def send(name: str) -> None:
        assert stack.http.post(f"/predict/{name}", files={"image": DIGITS}).status_code == 404
        assert stack.http.get(f"/v2/models/{name}/versions/{name}/ready").status_code == 404
        assert stack.http.get(f"/v2/models/iris/versions/{name}/ready").status_code == 404
        assert stack.http.get(f"/{name}").status_code == 404
        with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
            infer_rejection(channel, infer_message(name, DIGITS))

    send("first")
    before = scrape(stack.http)
    for index in range(20):
        send(f"strange-{index}")
    after = scrape(stack.http)
    routes = {"/predict/{model}", "/v2/models/{model}/versions/{version}/ready", "other"}
    routes.add("/inference.GRPCInferenceService/ModelInfer")
    for series in (before, after):
        assert not [labels for _, labels in series if "strange" in str(labels)]
    counted = [{key for key in series if dict(key[1]).get("route") in routes} for series in (before, after)]
    assert counted[0] == counted[1]
    assert {dict(labels)["route"] for _, labels in counted[0]} == routes
    unknown = {"route": "/predict/{model}", "model": "", "version": "", "status": "404"}
    assert value(after, "nereid_requests_total", **unknown) - value(before, "nereid_requests_total", **unknown) == 20
    known = {"model": "iris", "version": "", "status": "404"}
    assert value(after, "nereid_requests_total", **known) - value(before, "nereid_requests_total", **known) == 20


def test_sizes_of_images_are_measured(stack: Stack) -> None:
    before = scrape(stack.http)
    response = stack.http.post("/predict/digit-finder", files={"image": DIGITS}).json()
    stack.http.post("/predict/digits", files={"image": DIGITS}).raise_for_status()
    after = scrape(stack.http)

    def grown(name: str, model: str) -> float:
        return value(after, name, model=model) - value(before, name, model=model)

    pixels = response["image"]["width"] * response["image"]["height"]
    for model in ("digit-finder", "digits"):
        assert (grown("nereid_image_pixels_count", model), grown("nereid_image_pixels_sum", model)) == (1, pixels)
    assert grown("nereid_detections_count", "digit-finder") == 1
    assert grown("nereid_detections_sum", "digit-finder") == len(response["predictions"]) > 0
    assert grown("nereid_detections_count", "digits") == 0
    for stage in ("queue", "decode", "preprocess", "infer", "postprocess"):
        count = "nereid_stage_seconds_count"
        labels = {"model": "digit-finder", "stage": stage}
        assert value(after, count, **labels) - value(before, count, **labels) == 1
    for name in ("nereid_in_flight", "nereid_waiting"):
        assert value(after, name) == 0


def test_metrics_have_the_versions_of_the_build(stack: Stack) -> None:
    (labels,) = (dict(labels) for name, labels in scrape(stack.http) if name == "nereid_build_info")
    assert labels["version"] == stack.http.get("/v2").json()["version"]
    assert labels["python"] == ".".join(map(str, sys.version_info[:3]))
    assert labels.keys() == {"version", "python", "opencv", "simplejpeg"}
    assert all(re.match(r"\d+\.\d+", version) for version in labels.values())


def test_metrics_have_the_state_of_the_predictor_at_the_scrape(stack: Stack, tmp_path: Path) -> None:
    (closed_port,) = find_free_ports(1)
    assert value(scrape(stack.http), "nereid_predictor_ready") == 1
    with start_transformer(f"127.0.0.1:{closed_port}", tmp_path / "away.log") as transformer:
        assert value(scrape(transformer.http), "nereid_predictor_ready") == 0
    with (
        ThreadPoolExecutor(12) as threads,
        silent_triton(threads) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "hangs.log") as transformer,
    ):
        scrapes = [threads.submit(scrape, transformer.http) for _ in range(4)]
        assert transformer.http.get("/v2/health/live").is_success
        # Prometheus waits ten seconds.
        assert [value(done.result(60), "nereid_predictor_ready") for done in scrapes] == [0] * 4


def test_a_request_is_one_line_of_json(in_json: Transformer) -> None:
    headers = {"X-Request-Id": "over-http", "traceparent": TRACEPARENT}
    body = json.dumps(ROW).encode()
    started = datetime.now(UTC) - timedelta(seconds=1)
    response = in_json.http.post("/v2/models/iris/infer?confidence=0.5", content=body, headers=headers)
    assert response.status_code == 400
    response = in_json.http.post("/v2/models/iris/infer", content=body, headers=headers | {"X-Request-Id": "good"})
    line = line_of(in_json, "good")
    assert started <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    ms = line.pop("ms")
    assert 0 < ms < 60_000
    assert line == {
        "level": "INFO",
        "logger": "transformer",
        "message": f"good POST /v2/models/iris/infer 200 {ms:.1f}ms",
        "request_id": "good",
        "protocol": "http",
        "method": "POST",
        "route": "/v2/models/{model}/infer",
        "path": "/v2/models/iris/infer",
        "model": "iris",
        "version": response.json()["model_version"],
        "status": 200,
        "bytes_in": len(body),
        "bytes_out": len(response.content),
        "trace_id": TRACE_ID,
    }
    # Other log lines of a request have its id too.
    assert line_of(in_json, "over-http")["status"] == 400
    logged = [line for line in lines(in_json) if line.get("request_id") == "over-http"]
    assert [(line["level"], line["trace_id"]) for line in logged] == [("INFO", TRACE_ID)] * 2


def test_a_call_is_one_line_of_json(in_json: Transformer) -> None:
    method = service_pb2_grpc.GRPCInferenceServiceStub(in_json.grpc).ModelInfer
    message = infer_message("digits", DIGITS)
    response = method(message, metadata=[("x-request-id", "over-grpc"), ("traceparent", TRACEPARENT)])
    line = line_of(in_json, "over-grpc")
    wanted = {
        "protocol": "grpc",
        "rpc": "ModelInfer",
        "route": "/inference.GRPCInferenceService/ModelInfer",
        "path": "/inference.GRPCInferenceService/ModelInfer",
        "model": "digits",
        "version": response.model_version,
        "status": "OK",
        "bytes_in": message.ByteSize(),
        "bytes_out": response.ByteSize(),
        "trace_id": TRACE_ID,
    }
    assert {key: line[key] for key in wanted} == wanted
    with pytest.raises(grpc.RpcError):
        method(infer_message("none", DIGITS), metadata=[("x-request-id", "refused")])
    line = line_of(in_json, "refused")
    assert (line["status"], line["model"], line["version"], line["bytes_out"]) == ("NOT_FOUND", "none", "", 0)
    assert "trace_id" not in line


def test_grpc_call_without_a_key_is_logged_with_its_request_id(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    make_key("alice", file)
    variables = {"LOG_FORMAT": "json", "TRANSFORMER_API_KEYS_FILE": str(file)}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as transformer:
        method = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer
        with pytest.raises(grpc.RpcError) as rejected:
            method(infer_message("digits", DIGITS), metadata=[("x-request-id", "keyless")])
        assert isinstance(rejected.value, grpc.Call)
        assert dict(rejected.value.trailing_metadata())["x-request-id"] == "keyless"
        line = line_of(transformer, "keyless")
        assert (line["rpc"], line["status"]) == ("ModelInfer", "UNAUTHENTICATED")
        labels = {"route": line["route"], "status": "UNAUTHENTICATED"}
        assert value(scrape(transformer.http), "nereid_requests_total", **labels) == 1
        # A file of keys that becomes invalid is reported in the log like everything else.
        file.write_text("broken\n")

        def is_reported() -> bool:
            with pytest.raises(grpc.RpcError):
                method(infer_message("digits", DIGITS), metadata=[("x-api-key", "wrong")])
            return any("API keys: " in line["message"] for line in lines(transformer))

        wait_until(is_reported, log=tmp_path / "log")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_log_and_metrics_name_the_key_of_a_request(stack: Stack, tmp_path: Path, log_format: str) -> None:
    file = tmp_path / "keys"
    keys = {name: make_key(name, file) for name in ("alice", "bob")}
    variables = {"LOG_FORMAT": log_format, "TRANSFORMER_API_KEYS_FILE": str(file)}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as transformer:
        counts = {(name, result): 0 for name in keys for result in ["accepted"]} | {
            ("", "no key"): 0,
            ("", "unknown key"): 0,
        }

        def counted() -> dict[tuple[str, str], float]:
            found = [(dict(its), n) for (name, its), n in scrape(transformer.http).items() if name == KEYS]
            return {(labels["key"], labels["result"]): number for labels, number in found}

        assert counted() == counts  # a rate needs the zero before the first
        ready = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelReady
        infer = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer
        seen: dict[str, int | str] = {}

        def over_http(request_id: str, key: str) -> None:
            headers = {"X-Request-Id": request_id} | ({"X-API-Key": key} if key else {})
            seen[request_id] = transformer.http.get("/v2/models/iris/ready", headers=headers).status_code

        def over_grpc(request_id: str, key: str) -> None:
            metadata = [("x-request-id", request_id)] + ([("authorization", f"Bearer {key}")] if key else [])
            call = ready.future(service_pb2.ModelReadyRequest(name="iris"), metadata=metadata)
            seen[request_id] = call.code().name
            if call.code() is grpc.StatusCode.OK:
                infer(infer_message("digits", DIGITS), metadata=[("x-request-id", f"{request_id}-i"), *metadata[1:]])
                seen[f"{request_id}-i"] = "OK"

        with ThreadPoolExecutor(8) as threads:  # side by side, on the same connections
            for number in range(10):
                for name, key in (*keys.items(), ("none", ""), ("wrong", "nereid_wrong")):
                    threads.submit(over_http, f"{name}-h-{number}", key)
                    threads.submit(over_grpc, f"{name}-g-{number}", key)
        assert len(seen) == 100
        assert set(seen.values()) == {200, 401, 403, "OK", "UNAUTHENTICATED", "PERMISSION_DENIED"}
        # HTTP and two methods of gRPC; HTTP and the first one, which is rejected.
        grown = {("alice", "accepted"): 30, ("bob", "accepted"): 30, ("", "no key"): 20, ("", "unknown key"): 20}
        assert counted() == grown
        transformer.http.get("/v2/health/live", headers={"X-API-Key": "x"})  # a route without keys
        assert counted() == grown
        for request_id, status in seen.items():
            name = request_id.partition("-")[0]
            key_name = name if name in keys else ""
            if log_format == "json":
                line = line_of(transformer, request_id)
                assert (line["key"], line["status"]) == (key_name, status), request_id
            else:
                end = f" key={key_name}" if key_name else r" code=\w+"
                words = rf" {request_id} \S+ \S+ {status} [0-9.]+ms{end}$"
                pattern = re.compile(words, re.MULTILINE)
                wait_until(lambda: bool(pattern.search(transformer.log.read_text())), log=transformer.log)  # noqa: B023
        assert not any(key in transformer.log.read_text() for key in (*keys.values(), "nereid_wrong"))
        # A key that is taken back goes on as a series, and a new one begins as one.
        file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("bob ")))
        make_key("carol", file)

        def is_read() -> bool:
            status = transformer.http.get("/v2/models", headers={"X-API-Key": keys["bob"]}).status_code
            return status == 403 and counted().get(("carol", "accepted")) == 0

        wait_until(is_read, log=transformer.log)
        assert counted()[("bob", "accepted")] >= grown[("bob", "accepted")]


def test_without_keys_log_and_metrics_have_no_key_name(in_json: Transformer) -> None:
    in_json.http.get("/v2/models/iris", headers={"X-Request-Id": "no-keys", "X-API-Key": "x"})
    assert "key" not in line_of(in_json, "no-keys")
    assert not [name for name, _ in scrape(in_json.http) if name == KEYS]


EVIL = "x\r\n2026-01-01 00:00:00,000 INFO transformer INJECTED\x1b[31m\x1b]0;t\x07\x00\x7f\u009b31m\u2028\u202e\u0085"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_client_data_break_no_log_line(stack: Stack, tmp_path: Path, log_format: str) -> None:
    log = tmp_path / "log"
    variables = {"LOG_FORMAT": log_format}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", log, variables=variables) as transformer:
        quoted = httpx.URL("/", params={"q": EVIL}).query.decode().removeprefix("q=").replace("+", "%20")
        for path in (f"/predict/{quoted}", f"/v2/models/{quoted}/ready", f"/{quoted}", f"/predict/iris?{quoted}=1"):
            transformer.http.request("GET" if "ready" in path else "POST", path, json=[[EVIL]])
        for body in ([{EVIL: 1}], [[EVIL, 1, 1, 1]], {"inputs": [{"name": EVIL, "datatype": EVIL, "shape": [1]}]}):
            transformer.http.post("/predict/iris", json=body)
            transformer.http.post("/v2/models/iris/infer", json=body)
        own = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
        document = {"inputs": [own], "outputs": [{"name": EVIL}], "parameters": {EVIL: EVIL}}
        transformer.http.post("/v2/models/iris/infer", json=document)
        transformer.http.post("/predict/iris", headers={b"Content-Type": b"image/\x1b[31m"}, content=b"x")
        for head in (b"POST /predict/\x1b[31m HTTP/1.1", b"G\x1bET / HTTP/1.1", b"GET /\xc2\x9b31m HTTP/1.1"):
            send_raw(transformer.http_port, head + b"\r\nHost: localhost\r\nX-Request-Id: \x1b[31m\xff\r\n\r\n")
        for name in (EVIL, "iris"):
            message = service_pb2.ModelInferRequest(model_name=name, model_version=EVIL, id=EVIL)
            message.inputs.add(name=EVIL, datatype="FP32", shape=[1])
            message.parameters[EVIL].string_param = EVIL
            infer_rejection(transformer.grpc, message)
        wait_until(lambda: log.read_text().count("ModelInfer") >= 2, log=log)
        text = log.read_bytes().decode()
    assert not CONTROL.search(text), CONTROL.findall(text)
    if log_format == "json":
        assert text.isascii()
        assert all(json.loads(line)["time"] for line in text.splitlines())
    else:
        start = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) [a-z.]+ ")
        assert all(start.match(line) for line in text.split("\n")[:-1])
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]


def send_raw(port: int, data: bytes) -> None:
    """Send bytes, and read the whole response."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def test_logs_hold_no_payload_and_no_secret(stack: Stack, tmp_path: Path) -> None:
    secrets = {name: f"s3cret{name}" for name in ("key", "cookie", "body", "field", "query", "state", "metadata")}
    triton = f"127.0.0.1:{stack.triton_grpc_port}"
    with start_transformer(triton, tmp_path / "log") as transformer:
        body = secrets["body"]
        headers = {
            "Authorization": f"Bearer {secrets['key']}",
            "X-API-Key": secrets["key"],
            "Cookie": f"session={secrets['cookie']}",
            "traceparent": TRACEPARENT,
            "tracestate": f"x={secrets['state']}",
        }
        for sent in (
            {"content": body},
            {"json": [[body, 1, 2, 3]]},
            {"json": [[[_PAYLOAD, _PAYLOAD], 1, 2, 3]]},
            {"json": [[_PAYLOAD * 1e300, 1, 2, 3]]},
            {"json": {"instances": [[1, 2, 3, {body: _PAYLOAD}]]}},
            {"json": {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1, _PAYLOAD], "data": [_PAYLOAD]}]}},
            {"json": {"rows": [{body: 1}]}},
            {"json": {"instances": [[1, 2, 3, body]]}},
            {"json": {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [body, 1, 2, 3]}]}},
            {"json": ROW | {"parameters": {"timeout": body, body: body}}},
            {"json": ROW | {"outputs": [{"name": body}]}},
            {"files": {"image": (f"{secrets['field']}.jpg", body)}, "data": {secrets["field"]: body}},
        ):
            for path in ("/predict/iris", "/predict/digits", "/v1/models/iris:predict", "/v2/models/iris/infer"):
                for query in ({}, {secrets["query"]: secrets["query"]}, {"confidence": secrets["query"]}):
                    response = transformer.http.post(path, params=query, headers=headers, **sent)
                    assert response.status_code in {400, 415, 422}, response.text
        message = service_pb2.ModelInferRequest(model_name="iris", id=secrets["metadata"])
        message.inputs.add(name=body, datatype="BYTES", shape=[1]).contents.bytes_contents.append(body.encode())
        message.parameters[body].string_param = body
        with pytest.raises(grpc.RpcError):
            service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer(
                message, metadata=[("x-secret", secrets["metadata"])]
            )
    log = (tmp_path / "log").read_text()
    assert log.count(" 400 ") > 50
    assert "s3cret" not in log
    assert str(_PAYLOAD) not in log


@contextmanager
def start_traced_triton(folder: Path, *options: str) -> Iterator[int]:
    """A Triton that traces its requests; its gRPC port."""
    http_port, grpc_port, metrics_port = find_free_ports(3)
    settings = Settings(
        repository=str(ROOT / "model_repository"),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_verbose=1,
    )
    installation = find_installation(settings.venv)
    argv, env = compose_command(settings, installation, environ=os.environ)
    link_backends(installation)
    log = folder / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*argv, *options], env=env, stdout=output, stderr=output)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{http_port}/v2/health/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    with ended(process, patience_s=30):
        wait_until(is_ready, log=log)
        yield grpc_port


IDS = ("plain-1", "x" * 128, "a]b", "%s%n{}", "<script>", "1/2+3=é", "with space", 'quo"te', "back\\slash", "x" * 500)


def test_request_id_goes_through_triton(tmp_path: Path) -> None:
    given: dict[str, str] = {}
    trace = tmp_path / "trace.json"
    options = ("mode=triton", f"triton,file={trace}", "level=TIMESTAMPS", "rate=1", "count=-1")
    with (
        start_traced_triton(tmp_path, *(f"--trace-config={option}" for option in options)) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "log") as transformer,
    ):
        for request_id in IDS:
            headers = {b"X-Request-Id": request_id.encode()}
            response = transformer.http.post("/v2/models/iris/infer", json=ROW | {"id": "v2 id"}, headers=headers)
            assert response.json()["id"] == "v2 id"
            given[request_id] = response.headers["X-Request-Id"]
        stub = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc)
        message = infer_message("digits", DIGITS)
        message.id = "v2 id"
        assert stub.ModelInfer(message, metadata=[("x-request-id", "over-grpc")]).id == "v2 id"
        log = (tmp_path / "triton.log").read_text(errors="replace")
        assert all(f"[request id: {request_id}]" in log for request_id in [*given.values(), "over-grpc"])
        assert "v2 id" not in log
    kept = {request_id for request_id, returned in given.items() if returned == request_id}
    assert kept == {"plain-1", "x" * 128, "a]b", "%s%n{}", "<script>"}
    assert given["x" * 500] == "x" * 128
    assert all(re.fullmatch("[0-9a-f]{32}", given[other]) for other in ("with space", 'quo"te', "back\\slash"))
    # A quote in an id would break it.
    traced = [entry["request_id"] for entry in json.loads(trace.read_text()) if "request_id" in entry]
    assert set(given.values()) | {"over-grpc"} <= set(traced)


@pytest.mark.parametrize("request_id", IDS)
def test_error_of_triton_is_returned_without_the_request_id(stack: Stack, request_id: str) -> None:
    wrong = {"name": "features", "datatype": "INT8", "shape": [1, 4], "data": [1, 2, 3, 4]}
    headers = {b"X-Request-Id": request_id.encode()}
    response = stack.http.post("/v2/models/iris/infer", json={"inputs": [wrong]}, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"].startswith("inference input 'features' data-type is 'INT8'")


def opentelemetry(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"} | more


def wait_for(collector: Collector, log: Path, is_there: Callable[[list[Span]], bool]) -> list[Span]:
    wait_until(lambda: is_there(list(collector.spans)), log=log)
    return list(collector.spans)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, int]]:
    """A Triton that exports its spans; the collector of them, and its gRPC port."""
    with start_collector() as collector:
        own = (f"url={collector.url}/v1/traces", "resource=service.name=triton", "bsp_schedule_delay=200")
        options = ["mode=opentelemetry", "level=TIMESTAMPS", "rate=1", "count=-1"]
        options += [f"opentelemetry,{option}" for option in own]
        folder = tmp_path_factory.mktemp("traced")
        with start_traced_triton(folder, *(f"--trace-config={option}" for option in options)) as port:
            yield collector, port


# In each test another: spans come late.
OTHER_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
# Triton 2.51 loses the trace context of about one request in twenty, with any client.
SEVERAL = 6


def tritons(spans: list[Span], trace_id: str) -> list[Span]:
    """Spans of Triton with a trace id."""
    return [span for span in spans if span.name == "InferRequest" and span.trace_id == trace_id]


def test_trace_context_is_forwarded_unchanged(traced: tuple[Collector, int], tmp_path: Path) -> None:
    collector, port = traced
    collector.spans.clear()
    with start_transformer(f"127.0.0.1:{port}", tmp_path / "log") as transformer:
        for _ in range(SEVERAL):
            send(transformer, {"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
        spans = wait_for(collector, transformer.log, lambda spans: bool(tritons(spans, TRACE_ID)))
        assert {span.parent_id for span in tritons(spans, TRACE_ID)} == {PARENT_ID}
        assert {span.service for span in spans} == {"triton"}


def test_spans_are_children_of_the_clients_and_parents_of_tritons(
    traced: tuple[Collector, int], tmp_path: Path
) -> None:
    collector, port = traced
    collector.spans.clear()
    variables = opentelemetry(collector, OTEL_SERVICE_NAME="mine", OTEL_EXPORTER_OTLP_HEADERS="x-token=t0ken")
    with start_transformer(f"127.0.0.1:{port}", tmp_path / "log", variables=variables) as transformer:
        transformer.http.get("/v2/health/ready").raise_for_status()
        headers = {"traceparent": TRACEPARENT.replace(TRACE_ID, OTHER_ID), "tracestate": "vendor=1"}
        request_ids = {send(transformer, headers) for _ in range(SEVERAL)}

        def are_there(spans: list[Span]) -> bool:
            return len([span for span in spans if span.service == "mine"]) == 5 * SEVERAL and bool(
                tritons(spans, OTHER_ID)
            )

        spans = wait_for(collector, transformer.log, are_there)
        assert "t0ken" in collector.tokens
        ours = [span for span in spans if span.service == "mine"]
        assert {span.trace_id for span in ours} == {OTHER_ID}
        requests = {span.span_id: span for span in ours if span.name == "POST /predict/{model}"}
        assert {span.attributes["nereid.request_id"] for span in requests.values()} == request_ids
        for request in requests.values():
            assert (request.parent_id, request.status, str(request.attributes["nereid.model"])) == (
                PARENT_ID, "", "digit-finder",
            )  # fmt: skip
            assert int(request.attributes["http.response.status_code"]) == 200
            stages = [span for span in ours if span.parent_id == request.span_id]
            assert [span.name for span in sorted(stages, key=lambda span: span.start_ns)] == [
                "decode", "preprocess", "infer", "postprocess",
            ]  # fmt: skip
            assert all(request.start_ns <= s.start_ns <= s.end_ns <= request.end_ns for s in stages)
        infer = {span.span_id for span in ours if span.name == "infer"}
        assert {span.parent_id for span in tritons(spans, OTHER_ID)} <= infer
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert "t0ken" not in text


def test_request_without_trace_context_begins_a_trace(stack: Stack, tmp_path: Path) -> None:
    with start_collector() as collector:
        triton = f"127.0.0.1:{stack.triton_grpc_port}"
        with start_transformer(triton, tmp_path / "log", variables=opentelemetry(collector)) as transformer:
            with pytest.raises(grpc.RpcError):
                service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer(
                    infer_message("none", DIGITS), metadata=[("traceparent", TRACEPARENT[:-1])]
                )
            (span,) = wait_for(collector, transformer.log, lambda spans: len(spans) == 1)
            assert (span.name, span.parent_id) == ("inference.GRPCInferenceService/ModelInfer", "")
            assert span.trace_id != TRACE_ID
            assert (span.attributes["rpc.response.status_code"], span.status) == ("NOT_FOUND", "")


def test_span_has_the_name_of_the_key(stack: Stack, tmp_path: Path) -> None:
    key = make_key("alice", tmp_path / "keys")
    with start_collector() as collector:
        variables = opentelemetry(collector, TRANSFORMER_API_KEYS_FILE=str(tmp_path / "keys"))
        triton = f"127.0.0.1:{stack.triton_grpc_port}"
        with start_transformer(triton, tmp_path / "log", variables=variables) as transformer:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer
            for shown in ({"X-API-Key": key}, {}):
                transformer.http.post("/v2/models/iris/infer", json=ROW, headers=shown)
                call = infer.future(
                    infer_message("digits", DIGITS), metadata=[(name.lower(), its) for name, its in shown.items()]
                )
                assert call.code() is (grpc.StatusCode.OK if shown else grpc.StatusCode.UNAUTHENTICATED)
            spans = wait_for(collector, transformer.log, lambda spans: len(requests_of(spans)) == 4)
        over_http, over_grpc = "POST /v2/models/{model}/infer", "inference.GRPCInferenceService/ModelInfer"
        assert {
            (span.name, *(span.attributes.get(each) for each in ("nereid.key", "nereid.model")), status_of(span))
            for span in requests_of(spans)
        } == {
            (over_http, "alice", "iris", "200"),
            (over_http, None, "iris", "401"),
            (over_grpc, "alice", "digits", "OK"),
            (over_grpc, None, "", "UNAUTHENTICATED"),
        }


def requests_of(spans: list[Span]) -> list[Span]:
    return [span for span in spans if "nereid.request_id" in span.attributes]


def status_of(span: Span) -> str:
    http, rpc = (span.attributes.get(f"{protocol}.response.status_code") for protocol in ("http", "rpc"))
    return str(http or rpc)


def send(transformer: Transformer, headers: dict[str, str]) -> str:
    response = transformer.http.post("/predict/digit-finder", files={"image": DIGITS}, headers=headers)
    response.raise_for_status()
    return response.headers["X-Request-Id"]


def test_server_error_is_an_error_of_its_span(tmp_path: Path) -> None:
    (closed_port,) = find_free_ports(1)
    with start_collector() as collector:
        variables = opentelemetry(collector, LOG_FORMAT="json")
        with start_transformer(f"127.0.0.1:{closed_port}", tmp_path / "log", variables=variables) as transformer:
            response = transformer.http.post("/predict/digit-finder", files={"image": DIGITS})
            code = code_of(response)
            assert code is ErrorCode.PREDICTOR_UNAVAILABLE
            (span,) = wait_for(collector, transformer.log, lambda spans: len(spans) == 1)
            assert span.attributes["nereid.error_code"] == code
            assert (span.service, span.status) == ("nereid-transformer", "STATUS_CODE_ERROR")
            line = line_of(transformer, response.headers["X-Request-Id"])
            assert (line["trace_id"], line["code"]) == (span.trace_id, code)
            # Remaining spans are sent at the end.
            transformer.http.get("/v1/models")
            transformer.process.send_signal(signal.SIGTERM)
            assert transformer.process.wait(60) == 0
            assert Counter(span.name for span in collector.spans)["GET /v1/models"] == 1


@pytest.mark.parametrize("is_silent", [False, True])
def test_absent_collector_fails_no_request_and_delays_no_stop(stack: Stack, tmp_path: Path, is_silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not is_silent:
            listener.close()
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        triton = f"127.0.0.1:{stack.triton_grpc_port}"
        with start_transformer(triton, tmp_path / "log", variables=variables) as transformer:
            for _ in range(5):
                send(transformer, {})
                time.sleep(0.1)
            transformer.process.send_signal(signal.SIGTERM)
            assert transformer.process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "got 'grpc', expected http/protobuf"),
    ],
)
def test_spans_can_be_switched_off(stack: Stack, tmp_path: Path, variables: dict[str, str], words: str) -> None:
    with start_collector() as collector:
        given = opentelemetry(collector, **variables)
        triton = f"127.0.0.1:{stack.triton_grpc_port}"
        with start_transformer(triton, tmp_path / "log", variables=given) as transformer:
            send(transformer, {})
            transformer.process.send_signal(signal.SIGTERM)
            assert transformer.process.wait(60) == 0
        assert not collector.spans
    assert words in (tmp_path / "log").read_text()


def test_no_exporter_is_loaded_by_default() -> None:
    """The rest of OpenTelemetry FastAPI loads itself."""
    script = (
        "import sys, transformer.program as program; from transformer.settings import OpenTelemetrySettings;"
        "assert program.open_spans(OpenTelemetrySettings()) is None;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", [["transformer", "--predictor_host=localhost:1"], ["predictor", "synchroniser"]])
def test_invalid_log_format_is_rejected(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=os.environ | {"LOG_FORMAT": "xml"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.fullmatch("error: LOG_FORMAT.*xml.*: Input should be 'text' or 'json'\n", done.stderr)


def test_the_synchroniser_logs_json_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_synchroniser(tmp_path, LOG_FORMAT="json"):
        wait_until(lambda: "\n" in log.read_text(), log=log)
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in logged)
    assert logged[0]["logger"] == "synchroniser"
    assert datetime.fromisoformat(logged[0]["time"]).tzinfo is not None
