"""The FastAPI application: routes, errors, request ids, one log line for each request."""

import asyncio
import logging
import time
import uuid
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transformer import __version__, metrics
from transformer.dataplane import DataPlane
from transformer.errors import MESSAGE_LENGTH, ServingError
from transformer.rest import openapi, predict, v1, v2
from transformer.settings import TransformerSettings

log = logging.getLogger("transformer")

_ID_HEADER = b"x-request-id"
_QUIET_PATHS = ("/v2/health/", "/metrics", "/status")
_DESCRIPTION = "A picture goes in, detections come out: preprocessing and post-processing in front of NVIDIA Triton."


def create_app(settings: TransformerSettings, dataplane: DataPlane) -> FastAPI:
    """The application over a data plane."""
    # Like FastAPI, with the files of /docs from this server: a cluster need not reach a content delivery network.
    app = FastAPIOffline(
        title="Nereid", description=_DESCRIPTION, version=__version__, redoc_url=None, redirect_slashes=False
    )
    app.state.settings, app.state.dataplane = settings, dataplane
    app.include_router(predict.router)
    app.include_router(v1.router)
    app.include_router(v2.router)
    app.add_api_route("/status", _status, summary="The model repository: versions, what serves, what was refused")
    app.add_api_route("/metrics", _metrics, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_exception_handler(ServingError, _serving_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(RequestLog)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class RequestLog:
    """Gives each request an id, returns it, counts the request and writes its line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = dict(scope["headers"]).get(_ID_HEADER, b"")[:128].decode("ascii", "ignore")
        request_id = given if given.isprintable() and given else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, begun = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message["headers"], (_ID_HEADER, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            log.error("%s cancelled: the time to finish accepted requests is over", request_id)
            if begun:
                raise
            unavailable = _error(503, f"the server stops (request {request_id})", {"Retry-After": "1"})
            await unavailable(scope, receive, send_with_id)
        except Exception as exc:  # uvicorn would answer in words of its own
            log.error("%s unexpected", request_id, exc_info=exc)
            if begun:
                raise
            await _error(500, f"internal error (request {request_id})")(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path_format", "other")
            metrics.count_request(route, status, seconds)
            # Probes and scrapes come every few seconds and say nothing while all is well.
            level = logging.DEBUG if scope["path"].startswith(_QUIET_PATHS) and status in (200, 503) else logging.INFO
            line = "%s %s %s %d %.1fms"
            # The path as it was sent: percent-encoded, so that it cannot end the line.
            path = scope["raw_path"].decode("ascii", "replace")[:MESSAGE_LENGTH]
            log.log(level, line, request_id, scope["method"], path, status, seconds * 1000)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": message}), status, headers, media_type="application/json")


def _serving_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServingError)  # noqa: S101  # registered for this class
    headers = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
    request_id = request.scope["state"]["request_id"]
    message = exc.for_client(request_id)
    # A probe that asks while Triton is away says so with its status.
    quiet = request.url.path.startswith(_QUIET_PATHS)
    log.log(logging.DEBUG if quiet else exc.log_level, "%s %d %s", request_id, exc.status, exc.for_log())
    return _error(exc.status, message, headers)


def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101  # registered for this class
    known = {
        404: f"no route {request.url.path[:200]}; see /docs",
        405: f"{request.method} is not allowed here; see /docs",
    }
    return _error(exc.status_code, known.get(exc.status_code, str(exc.detail)), dict(exc.headers or {}))


async def _status(request: Request) -> Response:
    return Response(await request.app.state.dataplane.synchroniser_status(), media_type="application/json")


async def _metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema.setdefault("components", {})["schemas"] = openapi.SCHEMAS
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # validation is ours, see errors.py
        app.openapi_schema = schema
    return app.openapi_schema
