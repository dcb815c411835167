"""The relay of Triton's metrics: the body alone is passed on, and no other request."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from predictor.settings import Settings
from predictor.synchroniser.metrics_relay import ByPort, create_relay
from predictor.synchroniser.server import create_app
from predictor.synchroniser.status import Status

METRICS = b'# HELP nv_inference_count x\nnv_inference_count{model="a"} 1\n'


class Triton(BaseHTTPRequestHandler):
    """What Triton responds with, and the requests that it got."""

    port = 0
    status = 200
    seen: tuple[str, ...] = ()

    def do_GET(self) -> None:
        type(self).seen += (f"{self.path} {self.headers.get('X-Of-A-Client')}",)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(METRICS)))
        self.end_headers()
        self.wfile.write(METRICS)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def triton() -> Iterator[type[Triton]]:
    """A server on a free port, `port`."""

    class Handler(Triton):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        Handler.port = server.server_port
        yield Handler
        server.shutdown()


def request(app: Any, method: str, url: str, **of: Any) -> httpx.Response:
    """The response of an application."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod:8002") as client:
            return await client.request(method, url, **of)

    return asyncio.run(send())


def relay_of(port: int) -> Any:
    return create_relay(Settings(metrics_port=port))


def test_metrics_of_triton_are_passed_on(triton: type[Triton]) -> None:
    response = request(relay_of(triton.port), "GET", "/metrics?a=1", headers={"X-Of-A-Client": "1"})
    assert (response.status_code, response.content) == (200, METRICS)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert triton.seen == ("/metrics None",)


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/metrics", 405), ("GET", "/v2/models", 404)])
def test_no_other_request_reaches_triton(triton: type[Triton], method: str, path: str, status: int) -> None:
    assert request(relay_of(triton.port), method, path).status_code == status
    assert triton.seen == ()


def test_triton_that_fails_is_unavailable(triton: type[Triton]) -> None:
    triton.status = 500
    response = request(relay_of(triton.port), "GET", "/metrics")
    assert response.status_code == 503
    assert response.json() == {
        "error": f"Triton's metrics: got status 500 with {len(METRICS)} bytes, expected 200 with at most 16777216",
        "code": "predictor_unavailable",
    }


def test_triton_that_does_not_listen_is_unavailable() -> None:
    response = request(relay_of(1), "GET", "/metrics")
    assert response.status_code == 503
    assert "refused" in response.json()["error"]


@pytest.mark.parametrize(("port", "series"), [(8002, "nv_inference_count"), (8003, "nereid_sync_ready")])
def test_each_port_has_metrics_of_its_own(triton: type[Triton], port: int, series: str) -> None:
    app = ByPort(create_app(Status("s3://models")), relay_of(triton.port), 8002)
    response = request(app, "GET", f"http://pod:{port}/metrics")
    assert response.status_code == 200
    assert series in response.text
