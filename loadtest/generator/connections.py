"""Connections that send requests whose bytes are ready."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import grpc.aio
import httptools

from environment import api_key
from loadtest.generator.requests import GRPC_CHANNEL, MODEL_INFER, Request

StatusAndBody = tuple[str, bytes]  # status as in `Response`, body or error text


class Client:
    """One HTTP connection and one gRPC channel, each opened by its first request; one request at a time."""

    def __init__(self, http: str, grpc_address: str, timeout_s: float) -> None:
        """Open nothing yet.

        Args:
            http: host:port.
            grpc_address: host:port.
            timeout_s: for one request.

        Raises:
            AccessError: NEREID_API_KEY cannot be a key.
        """
        self._http, self._grpc, self._timeout_s = http, grpc_address, timeout_s
        self._key = api_key.headers()
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in self._key.items())
        self._connection: HttpConnection | None = None
        self._channel: grpc.aio.Channel | None = None
        self._infer: Any = None

    async def send(self, request: Request) -> StatusAndBody:
        """The response to a request.

        Raises:
            OSError: no connection, or it was lost (ConnectionError), or no response in time (TimeoutError).
            ValueError: the response is no HTTP.
        """
        return await (self._call(request) if request.is_grpc else self._post(request))

    async def close(self) -> None:
        """Close what is open."""
        if self._connection is not None:
            self._connection.close()
        if self._channel is not None:
            await self._channel.close()

    async def _post(self, request: Request) -> StatusAndBody:
        if self._connection is None or self._connection.is_closed:
            address = urlsplit(f"//{self._http}")
            async with asyncio.timeout(self._timeout_s):
                _, self._connection = await asyncio.get_running_loop().create_connection(
                    HttpConnection, address.hostname or "", address.port or 80
                )
        fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: {self._http}\r\n{fields}{self._headers}"
            f"Content-Length: {len(request.body)}\r\n\r\n"
        )
        return await self._connection.exchange(head.encode(), request.body, self._timeout_s)

    async def _call(self, request: Request) -> StatusAndBody:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._grpc, options=GRPC_CHANNEL)
            self._infer = self._channel.unary_unary(MODEL_INFER)  # bytes in, bytes out
        try:
            return "OK", await self._infer(request.body, timeout=self._timeout_s, metadata=tuple(self._key.items()))
        except grpc.aio.AioRpcError as exc:
            return exc.code().name, (exc.details() or "").encode()


class HttpConnection(asyncio.Protocol):
    """HTTP/1.1 over one connection that is kept; the parser is C code, because the generator shares the cores."""

    is_closed = False

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._body = bytearray()
        self._response: asyncio.Future[StatusAndBody] | None = None
        self._has_begun = False

    async def exchange(self, head: bytes, body: bytes, timeout_s: float) -> StatusAndBody:
        """Send one request and return its response; a connection without a response in time is closed."""
        loop = asyncio.get_running_loop()
        self._body, self._has_begun = bytearray(), False
        response: asyncio.Future[StatusAndBody] = loop.create_future()
        self._response = response
        timer = loop.call_later(timeout_s, self._fail, TimeoutError(f"no response within {timeout_s:g} s"))
        self._transport.writelines((head, body))
        try:
            return await response
        finally:
            timer.cancel()

    def close(self) -> None:
        """Close it now."""
        self.is_closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        self._has_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(ValueError(f"no HTTP response: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.Protocol."""
        if self._has_begun:
            self._fail(ConnectionAbortedError("closed before the end of the response"))
        else:
            self._fail(exc or ConnectionResetError("closed without a response"))

    def on_body(self, data: bytes) -> None:
        """httptools.HttpResponseParser."""
        self._body += data

    def on_message_complete(self) -> None:
        """httptools.HttpResponseParser."""
        response, self._response = self._response, None
        if not self._parser.should_keep_alive():
            self.close()
        if response is not None and not response.done():
            response.set_result((str(self._parser.get_status_code()), bytes(self._body)))

    def _fail(self, exc: Exception) -> None:
        response, self._response = self._response, None
        self.close()
        if response is not None and not response.done():
            response.set_exception(exc)
