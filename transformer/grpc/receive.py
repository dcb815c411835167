"""Messages on their way: waited for in time, and few at once.

gRPC keeps what has come of a message where nobody sees how much it is, up to the largest message for every one that is
waited for. So none is waited for longer than a moment, but for so few that all of them together may be as large as all
bodies; what came in that moment is no more than the network brings in it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from transformer.admission import Deadline
from transformer.errors import BodyTimeout, InvalidRequest, MemoryFull, MissingMessage, RouteNotFound, ServingError
from transformer.grpc.drain import InFlightCalls
from transformer.grpc.error_status import abort
from transformer.observability import metrics

_MOMENT_S = 1.0  # 125 MB at 1 Gbit/s
_GONE_S = 0.05
_BEFORE = "its message was here"


class Arrivals:
    """Waits for messages."""

    def __init__(self, *, timeout_s: float, max_message_bytes: int, max_bodies_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._max_slow = max(1, max_bodies_bytes // max_message_bytes)
        self._slow = 0

    async def one(self, context: Any, deadline: Deadline | None = None) -> Any:
        """The message of a call that has one.

        Args:
            context: of the call, as gRPC gives it to a method with a stream of requests.
            deadline: of the call, where it has one.

        Raises:
            MissingMessage: the call has none.
            ServingError: see `next`.
        """
        message = await self.next(context, deadline)
        if message is grpc.aio.EOF:
            # It is the same of a client that went away, and the cancellation that says so comes after it.
            await asyncio.sleep(_GONE_S)
            raise MissingMessage("message: got none, expected one")
        return message

    async def next(self, context: Any, deadline: Deadline | None = None) -> Any:
        """The next message of a call, or `grpc.aio.EOF`.

        Raises:
            InvalidRequest: it is none of the method.
            BodyTimeout: it did not come in time.
            DeadlineExceeded: the call's time was over before it was here.
            MemoryFull: it takes longer than a moment, as the most that may do so.
        """
        limit_s = self._timeout_s if deadline is None else max(min(self._timeout_s, deadline.remaining_s), 0)
        # As a task of its own it is never cancelled: what gRPC receives for one that was is lost to memory.
        reading = asyncio.create_task(context.read(), name="rpc_task: read")
        try:
            await asyncio.wait((reading,), timeout=min(_MOMENT_S, limit_s))
            if not reading.done():
                await self._wait(reading, limit_s - _MOMENT_S)
            if reading.done():
                return reading.result()
        except DecodeError as exc:
            raise InvalidRequest("message: its bytes are not a message of this method") from exc
        finally:
            reading.add_done_callback(_forget)
        if deadline is not None:
            deadline.check(_BEFORE)
        metrics.count_rejected("slow body")
        raise BodyTimeout(f"message: it did not arrive within the limit of {self._timeout_s:g} s")

    async def _wait(self, reading: asyncio.Task[Any], limit_s: float) -> None:
        if limit_s <= 0:
            return
        if self._slow >= self._max_slow:
            metrics.count_rejected("bodies full")
            raise MemoryFull(f"message: {self._slow} others take over {_MOMENT_S:g} s to arrive, which is the limit")
        self._slow += 1
        try:
            await asyncio.wait((reading,), timeout=limit_s)
        finally:
            self._slow -= 1


def _forget(reading: asyncio.Task[Any]) -> None:
    """Whoever wanted its error has it."""
    if not reading.cancelled():
        reading.exception()


async def _reject_method(_: Any, context: Any) -> None:
    await abort(context, RouteNotFound("no such method; expected one of those that reflection lists"))


UNKNOWN_METHOD: Any = grpc.stream_unary_rpc_method_handler(_reject_method)


class ArrivalInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]  # grpc has no types of its own
    """Has the messages of health and reflection waited for like those of the service, which does so itself."""

    def __init__(self, arrivals: Arrivals, calls: InFlightCalls) -> None:
        self._arrivals = arrivals
        self._calls = calls

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return UNKNOWN_METHOD
        if handler.stream_unary:
            return handler
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        behaviour = self._stream(handler) if handler.request_streaming else self._unary(handler)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _unary(self, handler: Any) -> Any:
        method = handler.unary_unary or handler.unary_stream

        async def behaviour(_: Any, context: Any) -> Any:
            self._calls.add(context)
            try:
                message = await self._arrivals.one(context)
            except ServingError as exc:
                await abort(context, exc)
            return await method(message, context)

        return behaviour

    def _stream(self, handler: Any) -> Any:
        async def messages(context: Any) -> AsyncIterator[Any]:
            while (message := await self._arrivals.next(context)) is not grpc.aio.EOF:
                yield message

        async def behaviour(_: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for reply in handler.stream_stream(messages(context), context):
                    yield reply
            except ServingError as exc:
                await abort(context, exc)

        return behaviour
