"""What stands before every gRPC method: API keys."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health

from transformer.errors import ServingError
from transformer.keys import Keys
from transformer.record import ID_HEADER, Record, recorded
from transformer.settings import TransformerSettings

_HEALTH = ("ServerLive", "ServerReady", "ModelReady")


class KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]  # grpc has no types of its own
    """Lets in who shows a key, as metadata `authorization` or `x-api-key`."""

    def __init__(self, keys: Keys, settings: TransformerSettings) -> None:
        self._keys = keys
        self._health_is_open = "health" in settings.keyless

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """grpc.aio.ServerInterceptor."""
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if self._health_is_open and (service == health.SERVICE_NAME or method in _HEALTH):
            return await continuation(handler_call_details)
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        try:
            self._keys.check(metadata)
        except ServingError as exc:
            return _refuse(await continuation(handler_call_details), handler_call_details, exc)
        return await continuation(handler_call_details)


def _refuse(handler: Any, details: Any, error: ServingError) -> Any:
    """A handler that only says why, before a message is read."""

    async def one(_: Any, context: Any) -> None:
        method = details.method
        name = method.rpartition("/")[2]
        record = Record.begin("grpc", name, path=method, headers=details.invocation_metadata)
        record.route, record.status = method, error.code.name
        with recorded(record):
            context.set_trailing_metadata(((ID_HEADER, record.request_id),))
            await context.abort(error.code, str(error))

    if handler is None:  # no such method: everybody may know
        return None
    # With a stream of requests, whatever it has: gRPC would read the one message first.
    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(one)
