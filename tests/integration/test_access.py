"""Access: API keys, TLS, the headers for browsers, and the methods that are out of reach."""

import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_of, rejection
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack, start_stack, wait_until, wait_until_announced
from tests.support.transformer import DIGITS, Transformer, call_raw, infer_message, make_key, start_transformer


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The file of keys, and two keys in it."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    return file, make_key("alice", file), make_key("bob", file)


@pytest.fixture(scope="module")
def guarded(
    stack: Stack, keys: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transformer]:
    log = tmp_path_factory.mktemp("guarded") / "log"
    variables = {"TRANSFORMER_API_KEYS_FILE": str(keys[0]), "TRANSFORMER_SYNC_URL": stack.sync}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", log, variables=variables) as transformer:
        yield transformer
    text = log.read_text()
    assert "Traceback" not in text
    assert not any(key in text for key in keys[1:])


REQUESTS = [
    ("POST", "/predict/iris"),
    ("POST", "/v1/models/iris:predict"),
    ("POST", "/v2/models/iris/infer"),
    ("POST", "/v2/models/iris/versions/1/infer"),
    ("GET", "/v2/models"),
    ("GET", "/v2/models/iris"),
    ("GET", "/v2/models/iris/config"),
    ("GET", "/v2"),
    ("GET", "/status"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/static-offline-docs/swagger-ui.css"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_nothing_is_served_without_a_key(
    guarded: Transformer, keys: tuple[Path, str, str], method: str, path: str
) -> None:
    without = guarded.http.request(method, path)
    assert (code_of(without), without.headers["WWW-Authenticate"]) == (ErrorCode.MISSING_API_KEY, "Bearer")
    for wrong in ("x", keys[1][:-1], keys[1] + "x", "ключ"):
        response = guarded.http.request(method, path, headers=[(b"X-API-Key", wrong.encode())])
        assert code_of(response) is ErrorCode.UNKNOWN_API_KEY
    for key in keys[1:]:
        for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"X-API-Key": key}):
            assert guarded.http.request(method, path, headers=headers).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_and_scrapes_need_no_key(guarded: Transformer, path: str) -> None:
    assert guarded.http.get(path).status_code == 200


def test_body_without_an_api_key_is_not_read(guarded: Transformer) -> None:
    def never() -> Iterator[bytes]:
        yield b"x"
        time.sleep(5)
        yield b"y"

    started = time.monotonic()
    with guarded.http.stream("POST", "/predict/digits", content=never()) as response:
        assert response.status_code == 401
    assert time.monotonic() - started < 60


def test_grpc_requires_the_same_keys(guarded: Transformer, keys: tuple[Path, str, str]) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(guarded.grpc)
    request = infer_message("digit-finder", DIGITS)
    cases = [
        ((), ErrorCode.MISSING_API_KEY),
        ((("x-api-key", "x"),), ErrorCode.UNKNOWN_API_KEY),
        ((("authorization", "Basic x"),), ErrorCode.MISSING_API_KEY),
    ]
    for metadata, code in cases:
        about = service_pb2.ModelMetadataRequest(name="iris")
        for method, message in ((stub.ModelInfer, request), (stub.ModelMetadata, about)):
            assert rejection(method, message, metadata=metadata).code is code
    for metadata in ((("authorization", f"Bearer {keys[1]}"),), (("x-api-key", keys[2]),)):
        assert stub.ModelInfer(request, metadata=metadata).model_name == "digit-finder"
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
    health: Any = health_pb2_grpc.HealthStub(guarded.grpc)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as rejected:
        ProtoReflectionDescriptorDatabase(guarded.grpc).get_services()
    assert rejected.value.code() is grpc.StatusCode.UNAUTHENTICATED


SERVICE = "/inference.GRPCInferenceService/"
# The HTTP route of each gRPC method; any other method has none.
TWINS = {
    f"{SERVICE}ServerLive": "/v2/health/live",
    f"{SERVICE}ServerReady": "/v2/health/ready",
    f"{SERVICE}ModelReady": "/v2/models/iris/ready",
    f"{SERVICE}ServerMetadata": "/v2",
    f"{SERVICE}ModelMetadata": "/v2/models/iris",
    f"{SERVICE}ModelConfig": "/v2/models/iris/config",
    f"{SERVICE}ModelInfer": "/v2/models/iris/infer",
    f"{SERVICE}RepositoryIndex": "/v2/repository/index",
    "/grpc.health.v1.Health/Check": "/v2/health/ready",
    "/grpc.health.v1.Health/Watch": "/v2/health/ready",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "/openapi.json",
    "/other.Service/ServerLive": "/other/v2/health/live",
    "/grpc.health.v2.Health/Check": "/v3/health/ready",
}
ALL = sorted(
    {SERVICE + method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    | TWINS.keys()
)
OPEN = {
    "health": {"ServerLive", "ServerReady", "Check", "Watch"},
    "docs": {"ServerReflectionInfo"},
    "metrics": set(),
    "status": set(),
}


@pytest.mark.parametrize("keyless", ["health", "docs", "metrics", "status", "health,metrics,status,docs"])
def test_method_needs_a_key_over_grpc_where_it_does_over_http(
    keys: tuple[Path, str, str], tmp_path: Path, keyless: str
) -> None:
    variables = {"TRANSFORMER_API_KEYS_FILE": str(keys[0]), "TRANSFORMER_KEYLESS": keyless}
    is_open = {
        method
        for method in ALL
        for word in keyless.split(",")
        if method.rpartition("/")[2] in OPEN[word] and not method.startswith(("/other", "/grpc.health.v2"))
    }
    messages = {
        method: message
        for method in ALL
        # A name: of a service that health knows, of one that it does not, of a model.
        for message in (b"", b"\x0a\x1einference.GRPCInferenceService", b"\x0a\x04iris")
    }
    with start_transformer("127.0.0.1:9", tmp_path / "log", variables=variables) as transformer:
        for method, message in messages.items():
            requires_key = call_raw(transformer.grpc, method, message) is grpc.StatusCode.UNAUTHENTICATED
            assert requires_key is (method not in is_open), method
            twin = TWINS.get(method, "/nowhere")
            status = transformer.http.request("POST" if twin.endswith("infer") else "GET", twin).status_code
            assert (status == 401) is requires_key, (method, twin)
            rejected = call_raw(transformer.grpc, method, message, "wrong") is grpc.StatusCode.PERMISSION_DENIED
            assert rejected is requires_key, method
            served = call_raw(transformer.grpc, method, message, keys[1])
            assert served not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}, method
            if method not in TWINS or method.endswith("RepositoryIndex"):
                assert served is grpc.StatusCode.UNIMPLEMENTED, method
        # Invented names make no series.
        assert "other.Service" not in transformer.http.get("/metrics", headers={"X-API-Key": keys[1]}).text


def test_revoked_key_is_rejected_without_a_restart(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    first, second = make_key("first", file), make_key("second", file)
    assert not any(key in file.read_text() for key in (first, second))
    variables = {"TRANSFORMER_API_KEYS_FILE": str(file)}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as transformer:

        def status(key: str) -> int:
            return transformer.http.get("/v2/models/iris", headers={"X-API-Key": key}).status_code

        assert (status(first), status(second)) == (200, 200)
        file.write_text(
            "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("first "))
        )
        log = tmp_path / "log"
        wait_until(lambda: status(first) == 403, log=log)
        assert status(second) == 200
        # A broken line neither admits a key that was deleted nor rejects one that is there.
        kept, third = file.read_text(), make_key("third", file)
        wait_until(lambda: status(third) == 200, log=log)
        file.write_text(f"what is this\n{kept}")
        wait_until(lambda: status(third) == 403, log=log)
        assert status(second) == 200
        assert f"{file}, line 1: expected '<name> sha256:<64 hex digits>'" in log.read_text()
        # Another file of the same size and time.
        other = tmp_path / "other"
        make_key("other_", other)
        facts = file.stat()
        other.write_text(other.read_text().ljust(facts.st_size, "\n")[: facts.st_size])
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.replace(file)
        wait_until(lambda: status(second) == 403, log=log)
        file.write_text(kept)
        wait_until(lambda: status(second) == 200, log=log)
        file.unlink()
        wait_until(lambda: status(second) == 403, log=log)
        file.write_text(kept)
        wait_until(lambda: status(second) == 200, log=log)
        file.write_text("# empty\n")
        wait_until(lambda: status(second) == 403, log=log)


def test_stack_with_keys_says_that_it_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    key = make_key("alice", file)
    with start_stack(
        ROOT / "model_repository", tmp_path / "log", variables={"TRANSFORMER_API_KEYS_FILE": str(file)}
    ) as stack:
        wait_until_announced(stack.log)
        log = stack.log.read_text()
        assert "the models are listed for clients with an API key; next: NEREID_API_KEY=" in log
        # One for the list of models, one for what a slow start waits for; before, 14 a second for ever.
        assert len(re.findall(r" GET \S+ 401 ", log)) <= 2, log
        url = f"http://127.0.0.1:{stack.http_port}"
        commands = {
            "announce": ["-m", "stack.announce"],
            "versions": ["-m", "export", "versions", "--repository", "model_repository", "--url", url],
        }
        variables = {"NEREID_API_KEY": key, "HTTP_PORT": str(stack.http_port)}
        outputs = {
            (name, given): subprocess.run(
                [sys.executable, *words],
                cwd=ROOT, env=os.environ | variables | {"NEREID_API_KEY": key if given else "", "TRITON_URL": ""},
                capture_output=True, text=True, timeout=60, check=False,
            )
            for name, words in commands.items()
            for given in (True, False)
        }  # fmt: skip
    for word in (" detect", 'curl -H "X-API-Key: $NEREID_API_KEY" -F image='):
        assert word in outputs["announce", True].stdout
    assert "listed for clients with an API key" in outputs["announce", False].stdout
    assert outputs["versions", True].returncode == 0, outputs["versions", True].stderr
    assert "serving" in outputs["versions", True].stdout
    assert outputs["versions", False].returncode == 1
    assert "401 no API key; expected Authorization: Bearer <key>" in outputs["versions", False].stderr
    assert "next: NEREID_API_KEY=<one of the server's keys>" in outputs["versions", False].stderr
    assert key not in "".join(done.stdout + done.stderr for done in outputs.values()) + log


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "got no key, expected at least one; next: make key"),
        ("alice secret", "line 1: expected '<name> sha256:<64 hex digits>'"),
        (None, "No such file"),
    ],
)
def test_invalid_file_of_keys_is_reported_at_the_start(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "keys.txt"
    if text is not None:
        file.write_text(text)
    program = run_transformer(TRANSFORMER_API_KEYS_FILE=str(file))
    assert program.returncode == 2
    assert says in program.stderr
    assert "secret" not in program.stderr


def run_transformer(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    http_port, grpc_port = find_free_ports(2)
    command = [sys.executable, "-m", "transformer", "--predictor_host=127.0.0.1:1", *arguments]
    command += [f"--http_port={http_port}", f"--grpc_port={grpc_port}"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    return cert, key


def test_both_ports_speak_tls(stack: Stack, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    http_port, grpc_port = find_free_ports(2)
    command = [sys.executable, "-m", "transformer", f"--predictor_host=127.0.0.1:{stack.triton_grpc_port}"]
    command += [
        f"--http_port={http_port}",
        f"--grpc_port={grpc_port}",
        f"--ssl_certfile={cert}",
        f"--ssl_keyfile={key}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        context = ssl.create_default_context(cafile=str(cert.with_name("ca.pem")))
        with httpx.Client(base_url=f"https://localhost:{http_port}", verify=context, trust_env=False) as client:

            def is_ready() -> bool:
                with suppress(httpx.TransportError):
                    return client.get("/v2/health/ready").is_success
                return False

            wait_until(is_ready, log=tmp_path / "log")
            assert client.post("/predict/iris", json=[5.1, 3.5, 1.4, 0.2]).json()["predictions"][0]["class"] == "setosa"
        credentials = grpc.ssl_channel_credentials(cert.with_name("ca.pem").read_bytes())
        with grpc.secure_channel(f"localhost:{grpc_port}", credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=60).ready
        with httpx.Client(trust_env=False) as plain, pytest.raises(httpx.TransportError):
            plain.get(f"http://localhost:{http_port}/v2/health/live")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_invalid_certificate_is_reported_at_the_start(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    (tmp_path / "empty.pem").touch()
    for pair in ((cert, tmp_path / "none.pem"), (tmp_path / "empty.pem", key), (key, cert)):
        program = run_transformer(f"--ssl_certfile={pair[0]}", f"--ssl_keyfile={pair[1]}")
        assert program.returncode == 2
        assert "expected a certificate and its key, PEM" in program.stderr
        assert "Traceback" not in program.stderr
    assert "got one, expected both or neither" in run_transformer(f"--ssl_certfile={cert}").stderr


def test_responses_have_security_headers(stack: Stack) -> None:
    for path in ("/docs", "/v2/models", "/nowhere", "/metrics"):
        headers = stack.http.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert not [name for name in headers if name.startswith("access-control-")]


def test_docs_can_be_switched_off(stack: Stack, tmp_path: Path) -> None:
    variables = {"TRANSFORMER_DOCS": "false"}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as transformer:
        for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert transformer.http.get(path).status_code == 404
        assert transformer.http.post("/predict/iris", json=[5.1, 3.5, 1.4, 0.2]).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/iris/load",
        "/v2/repository/models/iris/unload",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/status",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/iris/trace/setting",
    ],
)
def test_methods_that_administer_triton_are_out_of_reach(stack: Stack, path: str) -> None:
    for method in ("GET", "POST"):
        assert stack.http.request(method, path).status_code in (404, 405)


def test_key_is_shown_once_and_its_name_is_checked(tmp_path: Path) -> None:
    assert re.fullmatch(r"nereid_[0-9A-Za-z_-]{43}", make_key("a.b-c_1", tmp_path / "keys"))
    command = [sys.executable, "-m", "transformer.auth", "two words", str(tmp_path / "keys")]
    program = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert program.returncode == 1
    assert "NAME: got 'two words'" in program.stderr
