"""Triton's metrics at a port of the synchroniser, for a Triton that listens on loopback only.

No byte of a client reaches Triton: each scrape is a request of this process, whose response's body is passed on.
"""

from http.client import HTTPConnection, HTTPException
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from environment.error_codes import ErrorCode
from environment.listening import within_reach
from predictor.settings import Settings

_TIMEOUT_S = 5.0
# 512 models with a dozen series of 200 bytes are 1.2 MB.
_MAX_BYTES = 16 * 2**20


class RelayUnavailable(Exception):
    """Triton returned no metrics; the message says why."""


class ByPort:
    """An ASGI application of two: the relay for connections to its port, the synchroniser's own for all others."""

    def __init__(self, own: Any, relay: Any, relay_port: int) -> None:
        self._own, self._relay, self._relay_port = own, relay, relay_port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on by the port that it came to."""
        server = scope.get("server")
        app = self._relay if server and server[1] == self._relay_port else self._own
        await app(scope, receive, send)


def create_relay(settings: Settings) -> Starlette:
    """The application of the relay: `GET /metrics` and nothing else."""

    def get_metrics(_: Request) -> Response:
        try:
            return Response(read_metrics(settings), media_type=CONTENT_TYPE_PLAIN_0_0_4)
        except RelayUnavailable as exc:
            code = ErrorCode.PREDICTOR_UNAVAILABLE
            return JSONResponse({"error": str(exc), "code": code}, code.http_status)

    return Starlette(routes=[Route("/metrics", get_metrics, methods=["GET"])])


def read_metrics(settings: Settings) -> bytes:
    """Triton's metrics as it writes them.

    Raises:
        RelayUnavailable: Triton does not respond, or not with metrics.
    """
    connection = HTTPConnection(within_reach(settings.address), settings.metrics_port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        body = response.read(_MAX_BYTES + 1)
    except (OSError, HTTPException) as exc:
        raise RelayUnavailable(f"Triton's metrics: {exc}") from exc
    finally:
        connection.close()
    if response.status != 200 or len(body) > _MAX_BYTES:
        got = f"status {response.status} with {len(body)} bytes"
        raise RelayUnavailable(f"Triton's metrics: got {got}, expected 200 with at most {_MAX_BYTES}")
    return body
