"""JSON of every route: results, and errors with their code."""

import logging
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from environment.error_codes import ErrorCode
from transformer.errors import BodyTimeout, OutOfMemory, ServingError, Unauthenticated
from transformer.observability.request_record import current_request
from transformer.offload import offload

log = logging.getLogger("transformer")

VISION = "/v1/vision/"  # DeepStack's clients read `success` of every response
QUIET_PATHS = ("/v2/health/", "/metrics", "/status", "/ping")  # probes and scrapes come every few seconds


async def write_json(result: Callable[[], Any], *, cost: float) -> Response:
    """A result as JSON; `cost` of making it, in the unit of `offload`."""
    return Response(await offload(lambda: orjson.dumps(result()), cost=cost), media_type="application/json")


def error_body(code: ErrorCode, message: str) -> bytes:
    """The body of every error."""
    return orjson.dumps({"error": message, "code": code})


def write_error(code: ErrorCode, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON; the record of the request notes its code."""
    record = current_request()
    record.code = code
    body = orjson.dumps({"success": False, "error": message, "code": code}) if record.path.startswith(VISION) else None
    return Response(body or error_body(code, message), code.http_status, headers, media_type="application/json")


def reject(scope: Scope, exc: ServingError) -> Response:
    """The response to a request that failed; its detail goes to the log."""
    headers = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
    if isinstance(exc, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(exc, BodyTimeout):
        headers["Connection"] = "close"  # otherwise the rest of the body would be read as the next request
    request_id = current_request().request_id
    # The status says it all to a probe that comes while Triton is away.
    level = logging.DEBUG if scope["path"].startswith(QUIET_PATHS) else exc.log_level
    if log.isEnabledFor(level):
        log.log(level, "%s %d %s", request_id, exc.status, exc.for_log())
    return write_error(exc.code, exc.for_client(request_id), headers)


def add_error_handlers(app: FastAPI) -> None:
    """Have every error that a route raises, and Starlette's own, become such a response."""
    app.add_exception_handler(ServingError, _on_serving_error)
    app.add_exception_handler(MemoryError, _on_memory_error)
    app.add_exception_handler(HTTPException, _on_http_error)


# Handlers of errors are coroutines: others would run in a thread.
async def _on_serving_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServingError)  # noqa: S101  # registered for this class
    return reject(request.scope, exc)


async def _on_memory_error(request: Request, _: Exception) -> Response:
    return reject(request.scope, OutOfMemory())


async def _on_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101  # registered for this class
    headers = dict(exc.headers or {})
    if exc.status_code == ErrorCode.METHOD_NOT_ALLOWED.http_status:
        return write_error(ErrorCode.METHOD_NOT_ALLOWED, f"{request.method} is not allowed here; see /docs", headers)
    if exc.status_code == ErrorCode.ROUTE_NOT_FOUND.http_status:
        return write_error(ErrorCode.ROUTE_NOT_FOUND, f"no route {request.url.path[:200]}; see /docs", headers)
    return reject(request.scope, ServingError(str(exc)))
