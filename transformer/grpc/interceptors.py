"""Interceptors of every gRPC method: API keys."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from tritonclient.grpc import service_pb2

from transformer.auth import Keys, is_keyless
from transformer.errors import ServingError
from transformer.grpc.error_status import abort
from transformer.grpc.receive import UNKNOWN_METHOD
from transformer.observability.request_record import RequestRecord, track_request
from transformer.observability.trace_context import StartTrace, Trace
from transformer.settings import TransformerSettings

_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# By the values of TRANSFORMER_KEYLESS, as over HTTP; readiness of a model always requires a key.
_METHODS = {
    "health": (f"/{_SERVICE}/ServerLive", f"/{_SERVICE}/ServerReady", f"/{health.SERVICE_NAME}/*"),
    "docs": (f"/{reflection.SERVICE_NAME}/*",),
}

# The interceptor and the method of a call run in one task.
_KEY: ContextVar[str | None] = ContextVar("key", default=None)


def shown_key() -> str | None:
    """The name of the API key of the current call; "" if the call needs none, None if no call needs one."""
    return _KEY.get()


class ApiKeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]  # grpc has no types of its own
    """Rejects calls without a valid API key in their metadata, `authorization` or `x-api-key`."""

    def __init__(self, keys: Keys, settings: TransformerSettings, *, trace: StartTrace = Trace) -> None:
        self._keys = keys
        self._trace = trace
        self._open = tuple(method for word in settings.keyless for method in _METHODS.get(word, ()))

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """grpc.aio.ServerInterceptor."""
        _KEY.set("")
        if is_keyless(handler_call_details.method, self._open):
            return await continuation(handler_call_details)
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        try:
            _KEY.set(self._keys.check(metadata))
        except ServingError as exc:
            return _rejecting_handler(await continuation(handler_call_details), handler_call_details, exc, self._trace)
        return await continuation(handler_call_details)


def _rejecting_handler(handler: Any, details: Any, error: ServingError, trace: StartTrace) -> Any:
    """A handler that aborts with the error before a message is read; for unknown methods too."""

    async def one(_: Any, context: Any) -> None:
        method = details.method
        # A method name that a client made up is kept out of metrics and log fields.
        is_known = handler not in (None, UNKNOWN_METHOD)
        name, route = (method.rpartition("/")[2], method) if is_known else ("other", "other")
        record = RequestRecord.from_headers("grpc", name, path=method, headers=details.invocation_metadata, trace=trace)
        record.route, record.key = route, shown_key()
        with track_request(record):
            await abort(context, error)

    # Always with a stream of requests: gRPC would read the message of a unary call first.
    streams = handler is not None and handler.response_streaming
    make = grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler
    return make(one)
