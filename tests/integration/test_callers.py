"""Metrics of callers: requests and rejections over every protocol, by route and by the name of the key."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.support.metrics import Series, by_labels, scrape
from tests.support.stack import Stack, wait_until
from tests.support.transformer import (
    DIGITS,
    Transformer,
    call_raw,
    gauge,
    infer_message,
    make_key,
    silent_triton,
    start_transformer,
)

FLOWER = [6.3, 3.3, 6.0, 2.5]
ROW = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": FLOWER}]}
BODIES = {
    "/predict/{model}": [FLOWER],
    "/v1/models/{model}:predict": {"instances": [FLOWER]},
    "/v2/models/{model}/infer": ROW,
    "/v2/models/{model}/versions/{version}/infer": ROW,
}
INFER = "/inference.GRPCInferenceService/ModelInfer"
MAX_BODY_BYTES = 200_000
REQUESTS, BY_KEY = "nereid_requests_total", "nereid_requests_by_key_total"


def path_of(route: str, stack: Stack | None = None, model: str = "iris") -> str:
    served = stack.http.get(f"/v2/models/{model}").json()["versions"][-1] if stack else "1"
    return route.format(model=model, version=served)


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The key of Alice, in a file of keys."""
    return make_key("alice", tmp_path / "keys")


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path, key: str) -> Iterator[Transformer]:
    """A transformer that requires a key, and takes small bodies and images."""
    assert key
    variables = {
        "LOG_FORMAT": "json",
        "TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys"),
        "TRANSFORMER_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "TRANSFORMER_MAX_IMAGE_BYTES": str(MAX_BODY_BYTES),
    }
    triton = f"127.0.0.1:{stack.triton_grpc_port}"
    with start_transformer(triton, tmp_path / "log", variables=variables) as transformer:
        wait_until(lambda: transformer.http.get("/v2/health/ready").is_success, log=tmp_path / "log")
        yield transformer


def grown(before: Series, after: Series, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The increase between two scrapes; scrapes and probes are left out."""
    counts = Counter(by_labels(after, name, *labels))
    counts.subtract(by_labels(before, name, *labels))
    return {key: number for key, number in counts.items() if number and key[0] != "/metrics" and key[:2] != ("", "")}


def call(transformer: Transformer, key: str, model: str = "iris", size: int = 0) -> grpc.StatusCode:
    """The code of an inference over gRPC."""
    infer = service_pb2_grpc.GRPCInferenceServiceStub(transformer.grpc).ModelInfer
    message = infer_message(model, DIGITS + bytes(max(0, size - len(DIGITS))))
    code: grpc.StatusCode = infer.future(message, metadata=[("x-api-key", key)] if key else []).code()
    return code


def test_rejected_requests_are_counted_under_their_route(guarded: Transformer, key: str) -> None:
    before = scrape(guarded.http)
    expected: Counter[tuple[str, ...]] = Counter()

    def send(method: str, path: str, status: int, route: str, *, sent_key: str = key, **options: object) -> None:
        headers = {"X-API-Key": sent_key, "Host": str(options.pop("host", "localhost"))}
        response = guarded.http.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
        assert response.status_code == status, (method, path, response.text)
        expected[route, str(status)] += 1

    for route, body in BODIES.items():
        path = path_of(route)
        send("POST", path, 401, route, sent_key="")
        send("POST", f"{path}/", 403, route, sent_key="wrong")
        send("POST", path, 421, route, host="evil.example")
        if ":predict" not in path:  # to GET a model's name
            send("GET", path, 401, route, sent_key="")
            send("GET", path, 405, route)
        send("POST", path, 413, route, content=bytes(MAX_BODY_BYTES + 1))
        send("POST", path_of(route, model="made-up"), 404, route, json=body)
    for route, path in (("/v2/models/{model}", "/v2/models/iris"), ("/status", "/status"), ("/v2", "/v2")):
        send("GET", path, 401, route, sent_key="")
        send("GET", path, 403, route, sent_key="wrong")
    send("GET", "/docs", 401, "/docs", sent_key="")
    for path in ("/made-up", "/predict", "/v2/models/iris/made-up", "/predict/a/b"):
        send("POST", path, 401, "other", sent_key="")
        send("POST", path, 404, "other")
    for sent_key, model, size, code in (
        ("", "iris", 0, grpc.StatusCode.UNAUTHENTICATED),
        ("wrong", "iris", 0, grpc.StatusCode.PERMISSION_DENIED),
        (key, "made-up", 0, grpc.StatusCode.NOT_FOUND),
        (key, "digits", MAX_BODY_BYTES + 1, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        assert call(guarded, sent_key, model, size) is code
        expected[INFER, code.name] += 1
    assert call_raw(guarded.grpc, "/made.up/Method", b"") is grpc.StatusCode.UNAUTHENTICATED
    expected["other", "UNAUTHENTICATED"] += 1
    assert grown(before, scrape(guarded.http), REQUESTS, "route", "status") == expected


def test_requests_beyond_a_full_queue_are_counted_under_their_route(tmp_path: Path, key: str) -> None:
    variables = {
        "TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys"),
        "TRANSFORMER_MAX_IN_FLIGHT": "1",
        "TRANSFORMER_MAX_WAITING": "0",
    }
    with (
        ThreadPoolExecutor(2) as threads,
        silent_triton(threads) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "log", variables=variables) as transformer,
    ):
        threads.submit(call, transformer, key)
        wait_until(lambda: gauge(transformer, "nereid_in_flight") == 1, log=tmp_path / "log")
        before = scrape(transformer.http)
        for route, body in BODIES.items():
            response = transformer.http.post(path_of(route), json=body, headers={"X-API-Key": key})
            assert response.status_code == 429
        assert call(transformer, key) is grpc.StatusCode.RESOURCE_EXHAUSTED
        after = scrape(transformer.http)
    assert grown(before, after, REQUESTS, "route", "status") == {(route, "429"): 1 for route in BODIES} | {
        (INFER, "RESOURCE_EXHAUSTED"): 1
    }
    assert by_labels(after, BY_KEY, "key", "status") | {("", "200"): 0} == {
        ("alice", "429"): 4, ("alice", "RESOURCE_EXHAUSTED"): 1, ("", "200"): 0,
    }  # fmt: skip


def test_requests_are_counted_by_key_and_model(guarded: Transformer, stack: Stack, tmp_path: Path, key: str) -> None:
    bob = make_key("bob", tmp_path / "keys")
    wait_until(lambda: guarded.http.get("/v2", headers={"X-API-Key": bob}).is_success, log=guarded.log)
    before = scrape(guarded.http)
    for route, body in BODIES.items():
        for sent_key, status in ((key, 200), ("", 401), ("wrong", 403)):
            response = guarded.http.post(path_of(route, stack), json=body, headers={"X-API-Key": sent_key})
            assert response.status_code == status, response.text
    guarded.http.post("/predict/iris", json=["no row"], headers={"X-API-Key": bob})
    assert call(guarded, key, "digits") is grpc.StatusCode.OK
    assert call(guarded, bob, "digits") is grpc.StatusCode.OK
    after = scrape(guarded.http)
    counted = {
        ("alice", "iris", "200"): 4,
        ("bob", "iris", "400"): 1,
        ("alice", "digits", "OK"): 1,
        ("bob", "digits", "OK"): 1,
        # Whatever they showed: a name that no good key has is none.
        ("", "iris", "401"): 4,
        ("", "iris", "403"): 4,
    }
    assert grown(before, after, BY_KEY, "key", "model", "status") == counted

    def logged() -> Counter[tuple[str, str, str]]:
        lines = [json.loads(line) for line in guarded.log.read_text().splitlines()]
        return Counter((line["key"], line["model"], str(line["status"])) for line in lines if line.get("model"))

    # A client may have its response before the line is written.
    wait_until(lambda: logged().total() >= sum(counted.values()), log=guarded.log)
    assert logged() == counted


def test_invented_names_make_no_series_by_key(guarded: Transformer, key: str) -> None:
    def send(name: str) -> None:
        for sent_key in (key, name):
            assert guarded.http.post(f"/predict/{name}", json=[FLOWER], headers={"X-API-Key": sent_key}).is_client_error
            guarded.http.get(f"/{name}", headers={"X-API-Key": sent_key})
            call(guarded, sent_key, name)
            call_raw(guarded.grpc, f"/{name}/{name}", b"", sent_key)

    scrape(guarded.http)  # a series of its own
    send("first")
    before = scrape(guarded.http)
    for index in range(20):
        send(f"made-up-{index}")
    after = scrape(guarded.http)
    assert before.keys() == after.keys()
    assert by_labels(after, BY_KEY, "key", "model").keys() == {("alice", ""), ("", "")}


def test_without_keys_no_request_is_counted_by_key(stack: Stack) -> None:
    stack.http.post("/predict/iris", json=[FLOWER]).raise_for_status()
    assert not by_labels(scrape(stack.http), BY_KEY, "key")
