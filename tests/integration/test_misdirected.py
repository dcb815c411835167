"""A web page that had its own name lead to loopback: its requests name another Host, and get nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_in
from tests.support.stack import PATIENCE_S, ROOT
from tests.support.synced import start_synchroniser
from tests.support.transformer import Transformer, make_key, start_transformer

ANYWHERE = {"TRANSFORMER_HOST": "0.0.0.0"}  # noqa: S104  # as in a pod
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


def send(port: int, head: bytes, *, address: str = "127.0.0.1", body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the response to a head without its last line."""
    with socket.create_connection((address, port), timeout=PATIENCE_S) as client:
        client.sendall(head + b"\r\n" + body)
        response = HTTPResponse(client, method=head.partition(b" ")[0].decode())
        response.begin()
        return response.status, response.read()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    """A transformer as `make serve` starts it, with keys: the host of a request is checked before its key."""
    folder = tmp_path_factory.mktemp("hosts")
    make_key("alice", folder / "keys")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(folder / "keys"), "TRANSFORMER_HOSTS": "nereid.test"}
    with start_transformer("127.0.0.1:9", folder / "log", variables=variables) as transformer:
        yield transformer
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def synchroniser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with start_synchroniser(tmp_path_factory.mktemp("sync"), PREDICTOR_SYNC_HOSTS="nereid.test") as port:
        yield port


PATHS = [
    "/", "/v2/health/live", "/v2/health/ready", "/metrics", "/status", "/docs", "/openapi.json", "/v2", "/v2/models",
    "/v2/models/iris/ready", "/v1/models", "/static-offline-docs/swagger-ui.css", "/nowhere", "//",
]  # fmt: skip
FOREIGN = [b"evil.example", b"evil.example:8080", b"127.0.0.1.nip.io", b"localhost.evil.example", b"0.0.0.0:8080", b""]
OWN = [b"localhost", b"LOCALHOST:1", b"a.localhost", b"127.9.9.9:8080", b"[::1]", b"nereid.test", b"NEREID.test:443"]


@pytest.mark.parametrize(
    ("method", "path"), [*((method, path) for method in ("GET", "HEAD", "POST") for path in PATHS), ("OPTIONS", "*")]
)
def test_requests_for_another_host_are_rejected(local: Transformer, method: str, path: str) -> None:
    status, body = send(local.http_port, f"{method} {path} HTTP/1.1\r\nHost: evil.example:8080\r\n".encode())
    assert status == 421
    if method != "HEAD":
        assert code_in(status, body) is ErrorCode.MISDIRECTED_REQUEST
        error = json.loads(body)["error"]
        assert error.startswith("Host: got 'evil.example:8080', expected one of 127.0.0.1, [::1], localhost")
        assert error.endswith("next: TRANSFORMER_HOSTS=<names of this server>")


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("extra", [b"", WEBSOCKET, H2C, b"X-Forwarded-Host: localhost\r\n", b"Origin: http://a\r\n"])
def test_no_form_of_a_request_bypasses_the_host_check(
    local: Transformer, synchroniser: int, host: bytes, extra: bytes
) -> None:
    for port, path in ((local.http_port, b"/v2/health/live"), (synchroniser, b"/status")):
        wanted = [
            b"GET %s HTTP/1.1\r\nHost: %s\r\n" % (path, host),
            b"GET %s HTTP/1.0\r\nHost: %s\r\n" % (path, host),
        ]
        if host:
            wanted += [
                b"GET http://%s%s HTTP/1.1\r\nHost: localhost\r\n" % (host, path),
                b"GET HTTP://%s HTTP/1.1\r\nHost: %s\r\n" % (host, host),
                b"GET http://%s%s HTTP/1.0\r\n" % (host, path),
                b"GET https://%s%s HTTP/1.1\r\nHost: localhost\r\n" % (host, path),
            ]
        assert [send(port, head + extra)[0] for head in wanted] == [421] * len(wanted), port


@pytest.mark.parametrize("host", OWN)
def test_hosts_of_loopback_and_of_the_setting_are_accepted(local: Transformer, synchroniser: int, host: bytes) -> None:
    for port, path in ((local.http_port, b"/v2/health/live"), (synchroniser, b"/status")):
        for head in (
            b"GET %s HTTP/1.1\r\nHost: %s\r\n" % (path, host),
            b"GET http://%s%s HTTP/1.1\r\nHost: evil.example\r\n" % (host, path),  # the target counts
            b"GET %s HTTP/1.0\r\n" % path,
        ):
            assert send(port, head)[0] == 200, head


def test_body_of_a_rejected_request_is_not_read(local: Transformer) -> None:
    head = b"POST /predict/iris HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000\r\n"
    assert send(local.http_port, head)[0] == 421


@pytest.mark.parametrize("path", ["/status", "/ready", "/metrics", "/nowhere"])
def test_synchroniser_rejects_requests_for_another_host(synchroniser: int, path: str) -> None:
    status, body = send(synchroniser, f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n".encode())
    assert code_in(status, body) is ErrorCode.MISDIRECTED_REQUEST
    assert json.loads(body)["error"].endswith("next: PREDICTOR_SYNC_HOSTS=<names of this server>")


@pytest.mark.parametrize(
    ("line", "code"),
    [("GET /nowhere", ErrorCode.ROUTE_NOT_FOUND), ("POST /status", ErrorCode.METHOD_NOT_ALLOWED)],
)
def test_errors_of_the_synchroniser_have_a_code(synchroniser: int, line: str, code: ErrorCode) -> None:
    assert code_in(*send(synchroniser, f"{line} HTTP/1.1\r\nHost: localhost\r\n".encode())) is code


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /status HTTP/1.1\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: a b\r\n", 421),
        (b"GET /status\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost : localhost\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
    ],
)
def test_synchroniser_rejects_malformed_requests(synchroniser: int, sent: bytes, status: int) -> None:
    assert send(synchroniser, sent)[0] == status


def test_server_on_all_addresses_accepts_every_host(tmp_path: Path) -> None:
    # In a pod: probes name its address, KServe's proxies the host that a client requested.
    with start_transformer("127.0.0.1:9", tmp_path / "log", variables=ANYWHERE) as transformer:
        for host in (b"10.1.2.3:8080", b"nereid.models.example.com", b"evil.example", b"localhost"):
            head = b"GET /v2/health/live HTTP/1.1\r\nHost: %s\r\n" % host
            assert send(transformer.http_port, head)[0] == 200, host
        assert send(transformer.http_port, b"GET http://any.example/v2 HTTP/1.1\r\nHost: a\r\n")[0] == 200


def test_server_with_named_hosts_rejects_others(tmp_path: Path) -> None:
    variables = ANYWHERE | {"TRANSFORMER_HOSTS": "nereid.test"}
    with start_transformer("127.0.0.1:9", tmp_path / "log", variables=variables) as transformer:
        for host, status in ((b"10.1.2.3:8080", 200), (b"nereid.test", 200), (b"evil.example", 421)):
            assert send(transformer.http_port, b"GET /v2 HTTP/1.1\r\nHost: %s\r\n" % host)[0] == status, host


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["transformer", "--predictor_host=localhost:1"], "TRANSFORMER_HOSTS"),
        (["predictor", "synchroniser"], "PREDICTOR_SYNC_HOSTS"),
    ],
)
def test_invalid_setting_of_hosts_is_reported_at_the_start(command: list[str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=os.environ | {name: "http://a"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert name in done.stderr
    assert "names of hosts with commas between" in done.stderr
