"""Patches how grpcio receives messages: with a timeout, and with a limit of how many slow ones arrive at once.

gRPC buffers a message while it arrives, where a server cannot see its size: up to the largest message for each call,
and without a timeout (SECURITY.md). So unary methods are registered as streams of one message, which is the same on the
wire, and the message is read here. Every call gets a second for its message, in which the network delivers little;
longer only as many calls that all of their messages fit the limit of all bodies. A test pins the version of grpcio.
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
_CANCELLATION_S = 0.05
_BEFORE = "its message had arrived"


class MessageReceiver:
    """Receives messages."""

    def __init__(self, *, timeout_s: float, max_message_bytes: int, max_bodies_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._max_slow = max(1, max_bodies_bytes // max_message_bytes)
        self._slow = 0

    async def receive_one(self, context: Any, deadline: Deadline | None = None) -> Any:
        """The message of a unary call.

        Args:
            context: of the call, as gRPC passes it to a method with a stream of requests.
            deadline: of the call, if it has one.

        Raises:
            MissingMessage: the call has no message.
            ServingError: see `receive`.
        """
        message = await self.receive(context, deadline)
        if message is grpc.aio.EOF:
            # A client that disconnects looks the same; the cancellation that tells them apart comes a moment later.
            await asyncio.sleep(_CANCELLATION_S)
            raise MissingMessage("message: got none, expected one")
        return message

    async def receive(self, context: Any, deadline: Deadline | None = None) -> Any:
        """The next message of a call, or `grpc.aio.EOF`.

        Raises:
            InvalidRequest: it is not a message of the method.
            BodyTimeout: it did not arrive in time.
            DeadlineExceeded: the call's deadline was exceeded before it had arrived.
            MemoryFull: it takes longer than a second, and so do as many others as the limit allows.
        """
        # Which of the two limits holds is decided here: a timer may end a moment before the deadline.
        sooner = deadline if deadline is not None and deadline.remaining_s <= self._timeout_s else None
        limit_s = self._timeout_s if sooner is None else max(sooner.remaining_s, 0)
        # A task of its own is never cancelled: what gRPC receives for a cancelled one is lost to memory.
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
            reading.add_done_callback(_retrieve_exception)
        if sooner is not None:
            raise sooner.exceeded(_BEFORE)
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


def _retrieve_exception(reading: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a finished read; asyncio would log it as never retrieved."""
    if not reading.cancelled():
        reading.exception()


async def _reject_method(_: Any, context: Any) -> None:
    await abort(context, RouteNotFound("no such method; expected one of those that reflection lists"))


UNKNOWN_METHOD: Any = grpc.stream_unary_rpc_method_handler(_reject_method)


class ReceiveInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]  # grpc has no types of its own
    """Applies the limits of `receive` to health and reflection; the inference service calls it itself."""

    def __init__(self, receiver: MessageReceiver, calls: InFlightCalls) -> None:
        self._receiver = receiver
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
                message = await self._receiver.receive_one(context)
            except ServingError as exc:
                await abort(context, exc)
            return await method(message, context)

        return behaviour

    def _stream(self, handler: Any) -> Any:
        async def messages(context: Any) -> AsyncIterator[Any]:
            while (message := await self._receiver.receive(context)) is not grpc.aio.EOF:
                yield message

        async def behaviour(_: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for response in handler.stream_stream(messages(context), context):
                    yield response
            except ServingError as exc:
                await abort(context, exc)

        return behaviour
