"""The FastAPI application: routes, errors, request ids, one log line for each request."""

import asyncio
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from environment.error_codes import ErrorCode
from environment.listening import HostGuard, Hosts
from transformer import __version__
from transformer.admission import Admission
from transformer.auth import Keys
from transformer.dataplane.dataplane import DataPlane
from transformer.errors import MESSAGE_LENGTH, MisdirectedRequest, ServingError
from transformer.observability.request_record import ID_HEADER, RequestRecord, track_request
from transformer.observability.trace_context import StartTrace, Trace
from transformer.rest import openapi, predict, v1, v2
from transformer.rest.middleware import FindRoute, KeyGuard, LineGuard, SecurityHeaders, TrailingSlash, route_of
from transformer.rest.responses import QUIET_PATHS, add_error_handlers, reject, write_error
from transformer.settings import TransformerSettings

log = logging.getLogger("transformer")

_DESCRIPTION = "A picture goes in, detections come out: preprocessing and post-processing in front of NVIDIA Triton."


def create_app(  # noqa: PLR0913 - one argument for each part
    settings: TransformerSettings,
    dataplane: DataPlane,
    admission: Admission,
    keys: Keys | None = None,
    *,
    hosts: Hosts | None = None,
    trace: StartTrace = Trace,
) -> FastAPI:
    """The application over a data plane.

    Args:
        settings: of the operator.
        dataplane: answers.
        admission: limits requests.
        keys: a client must show one of these; None where none must.
        hosts: that it is; None where it is every host.
        trace: makes the trace of a request.
    """
    described: dict[str, Any] = {"title": "Nereid", "description": _DESCRIPTION, "version": __version__}
    # Its spans would know nothing of gRPC, and its records of failures quote what a client sent.
    described["telemetry"] = {"tracing": False, "metrics": False, "logs": False}
    if settings.docs:
        # Like FastAPI, with the files of /docs from this server: a cluster need not reach a content delivery network.
        app = FastAPIOffline(**described, redoc_url=None, redirect_slashes=False)
    else:
        app = FastAPI(**described, openapi_url=None, redirect_slashes=False)
    app.state.settings, app.state.dataplane, app.state.admission = settings, dataplane, admission
    app.include_router(predict.router)
    app.include_router(v1.router)
    app.include_router(v2.router)
    app.add_api_route("/status", _status, summary="The model repository: versions, what serves, what was refused")
    app.add_api_route("/metrics", _metrics, methods=["GET", "HEAD"], include_in_schema=False)
    add_error_handlers(app)
    routes = [route for router in (predict.router, v1.router, v2.router, app) for route in router.routes]
    queued = [route for route in routes if isinstance(route, APIRoute) and route.methods == {"POST"}]
    others = [route for route in routes if route not in queued and hasattr(route, "path_regex")]
    # The last one stands first.
    app.add_middleware(LineGuard, admission=admission, queued=[route.path_format for route in queued], answer=reject)
    if keys is not None:
        app.add_middleware(KeyGuard, keys=keys, settings=settings, answer=reject)
    if hosts is not None and hosts.are_known:
        app.add_middleware(HostGuard, hosts=hosts, answer=lambda scope, why: reject(scope, MisdirectedRequest(why)))
    app.add_middleware(FindRoute, routes=[*queued, *others])
    app.add_middleware(TrailingSlash)
    app.add_middleware(RequestLog, trace=trace)
    app.add_middleware(SecurityHeaders)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class RequestLog:
    """Gives each request an id, returns it, counts the request and writes its line."""

    def __init__(self, app: ASGIApp, *, trace: StartTrace) -> None:
        self._app = app
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Probes and scrapes come every few seconds and say nothing while all is well.
        quiet = scope["path"].startswith(QUIET_PATHS)
        record = RequestRecord.from_headers(
            "http",
            scope["method"],
            path=scope["raw_path"].decode("ascii", "replace"),
            headers=scope["headers"],
            trace=Trace if quiet else self._trace,
        )
        with track_request(record, quiet=(200, 503) if quiet else ()):
            await self._answer(record, scope, receive, send)

    async def _answer(self, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        record.status = 500

        async def counted_receive() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                record.status, begun = message["status"], True
                message["headers"] = [*message["headers"], (ID_HEADER.encode(), record.request_id.encode())]
            record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        except asyncio.CancelledError:
            log.error("%s cancelled: the time to finish accepted requests is over", record.request_id)
            if begun:
                raise
            message = f"the server shuts down (request {record.request_id})"
            stopped = write_error(ErrorCode.SHUTTING_DOWN, message, {"Retry-After": "1"})
            await stopped(scope, receive, counted_send)
        except Exception as exc:  # uvicorn would answer in words of its own
            log.error("%s unexpected", record.request_id, exc_info=exc)
            if begun:
                raise
            failed = write_error(ErrorCode.INTERNAL_ERROR, ServingError().for_client(record.request_id))
            await failed(scope, receive, counted_send)
        finally:
            record.route = route_of(scope)
            record.model = scope.get("path_params", {}).get("model", "")[:MESSAGE_LENGTH]


async def _status(request: Request) -> Response:
    return Response(await request.app.state.dataplane.synchroniser_status(), media_type="application/json")


async def _metrics(request: Request) -> Response:
    await request.app.state.dataplane.predictor_ready()
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
