"""ASGI middleware around all others: id, log line, metrics and trace of each request, and its last errors."""

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from environment.error_codes import ErrorCode
from transformer.errors import MESSAGE_LENGTH, ServingError
from transformer.observability.request_record import ID_HEADER, RequestRecord, track_request
from transformer.observability.trace_context import StartTrace, Trace
from transformer.rest.middleware import route_of
from transformer.rest.responses import QUIET_PATHS, write_error

log = logging.getLogger("transformer")


class RequestLogMiddleware:
    """Gives each request an id, returns it, counts the request and writes its log line."""

    def __init__(self, app: ASGIApp, *, trace: StartTrace) -> None:
        self._app = app
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Probes and scrapes come every few seconds; logged only if something is wrong.
        quiet = scope["path"].startswith(QUIET_PATHS)
        record = RequestRecord.from_headers(
            "http",
            scope["method"],
            path=scope["raw_path"].decode("ascii", "replace"),
            headers=scope["headers"],
            trace=Trace if quiet else self._trace,
        )
        with track_request(record, quiet=(200, 503) if quiet else ()):
            await self._respond(record, scope, receive, send)

    async def _respond(self, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        record.status = 500

        async def counted_receive() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                record.status, started = message["status"], True
                message["headers"] = [*message["headers"], (ID_HEADER.encode(), record.request_id.encode())]
            record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        except asyncio.CancelledError:
            log.error("%s cancelled: the time to finish accepted requests is over", record.request_id)
            if started:
                raise
            message = f"the server shuts down (request {record.request_id})"
            await write_error(ErrorCode.SHUTTING_DOWN, message, {"Retry-After": "1"})(scope, receive, counted_send)
        except Exception as exc:  # uvicorn would respond with a text of its own
            log.error("%s unexpected", record.request_id, exc_info=exc)
            if started:
                raise
            message = ServingError().for_client(record.request_id)
            await write_error(ErrorCode.INTERNAL_ERROR, message)(scope, receive, counted_send)
        finally:
            record.route = route_of(scope)
            record.model = scope.get("path_params", {}).get("model", "")[:MESSAGE_LENGTH]
