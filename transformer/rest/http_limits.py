"""Patches uvicorn's protocol: limits that uvicorn does not have, and strictness about what a request is.

It overrides methods of uvicorn's `HttpToolsProtocol` and of httptools' parser and reads their private fields, so a test
holds both versions: after an upgrade compare the overridden methods, then raise the versions there.

The limits are for the time and size of heads, for requests that are sent before others got their response, and for
clients that do not read responses (SECURITY.md). Granian 2.8.9, tried in its place, has one timeout for heads and idle
connections alike, so that 10 s and 75 s cannot be had; it takes 5000 pipelined requests, 3000 whose responses nothing
reads, two `Host`, bare line feeds and repeated `Content-Length`, and rejects without a body. Both
need as much CPU for a request (165 and 175 µs).
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from environment.error_codes import ErrorCode
from environment.listening import split_target
from transformer.admission import Admission
from transformer.observability import metrics
from transformer.rest.request_head import find_fault
from transformer.rest.responses import error_body

_MAX_HEAD_BYTES = 2**16  # beyond what came in one piece, 256 KiB at most
_MAX_PIPELINED = 100  # requests that wait on one connection for those before them
_MAX_READ_TIMEOUTS = 60  # for a response that its client reads slowly
# When the server shuts down: as long as gRPC waits for calls to arrive, so that it costs no time.
_LINGER_S = 1.0


class Parser(httptools.HttpRequestParser):
    """The parser of a server that speaks HTTP/1 alone: `Upgrade` is ignored (RFC 9110, 7.8).

    llhttp takes what follows a head with `Upgrade` for another protocol: a body would be lost, or read as a request.
    """

    def __init__(self, connection: "LimitedHttpProtocol") -> None:
        super().__init__(connection)
        # Like uvicorn: ignore bytes after a request that closes the connection.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._connection = connection

    @property
    def upgrades(self) -> bool:
        """Whether the head that was just read has `Upgrade`; CONNECT, which llhttp counts too, does not."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: Any) -> None:
        """Parse more of a connection.

        Raises:
            HttpParserError: it is not HTTP.
        """
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            (offset,) = upgrade.args
            self._connection.read_again(data[offset:])


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection; it closes when a head takes too long or is too large, with an error like every other.

    Without a request it stays open for `TRANSFORMER_KEEP_ALIVE_S`, also before its first one: load balancers open
    connections ahead of the requests. When the server shuts down, it waits a moment longer for a request that is
    arriving, whose response then says that the connection ends.

    What surrounds the chunks of a chunked body, and follows the last one, counts as a head. An error is sent after the
    responses to the requests before it.
    """

    parser: Parser

    def __init__(self, *args: Any, timeout_s: float, admission: Admission, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = Parser(self)
        self._timeout_s = timeout_s
        self._admission = admission
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_message = False
        self._has_read_message = False  # with the last bytes that arrived
        self._is_shutting_down = False
        self._head_bytes = 0
        self._cycles: list[RequestResponseCycle] = []
        self._is_ending = False  # reads no more; sends the responses that are due, then `_last_response`
        self._last_response = b""
        self._unread_bytes = 0  # accounted for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: wait for its request."""
        super().connection_made(transport)
        self._start_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client disconnected."""
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        self._disconnect_requests()
        self.resume_writing()
        self._start_read_timer(0)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than responses are written."""
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        self._account(size)
        self._start_read_timer(size)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._account(0)

    def on_response_complete(self) -> None:
        """uvicorn's: a response is written, which does not mean that it is read."""
        super().on_response_complete()
        if self._is_ending and not self._pending():
            self._end()
        self._start_read_timer(self.transport.get_write_buffer_size())

    def data_received(self, data: bytes) -> None:
        """More of a request, or the rest of one that got its response before its end."""
        if self._is_ending:
            return
        self._head_bytes += len(data)
        self._has_read_message = False
        super().data_received(data)
        if self._is_ending or self.transport.is_closing():
            return
        if self._is_idle():
            if self._has_read_message and not self._in_message:
                self._start_idle_timer()
            else:
                self._start_head_timer()
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._reject(ErrorCode.HEAD_TOO_LARGE, f"head: more than the limit of {_MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The parser's: the first byte of a head."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            words = f"{_MAX_PIPELINED} requests are queued on this connection, which is the limit; read their responses"
            self._reject(ErrorCode.OVERLOADED, words)
            raise ConnectionError  # ends the parser
        self._in_message, self._in_head, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's: a header, or a trailer, which is not kept."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The parser's: the end of a head."""
        if self.parser.upgrades:
            return  # the parser reads it again
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if fault := find_fault(version, method, self.url, self.headers):
            self._reject(fault.code, fault.message)
            raise ConnectionError  # ends the parser
        authority, self.url = split_target(self.url)
        if authority is not None:
            self.headers[:] = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers.append((b"host", authority))  # it replaces the field (RFC 9112, 3.2.2)
        self._in_head, self._head_bytes = False, 0
        self._stop_head_timer()
        super().on_headers_complete()
        self._cycles = self._pending()
        if self.cycle is not None:
            self._cycles.append(self.cycle)
            if self._is_shutting_down:
                self.cycle.keep_alive = False

    def read_again(self, rest: bytes) -> None:
        """Parse the head that was just read again, without `Upgrade`, and what follows it."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = Parser(self)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_body(self, body: bytes) -> None:
        """The parser's: a piece of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser's: the end of a request."""
        if self.parser.upgrades:
            return
        self._head_bytes = 0
        self._in_message, self._has_read_message = False, True
        self._stop_head_timer()  # the end of a request that got its response earlier
        super().on_message_complete()

    def shutdown(self) -> None:
        """The server shuts down: requests in progress get their response."""
        if self._is_shutting_down:
            return
        self._is_shutting_down = True
        if self._is_idle():
            self._start_idle_timer()
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are not HTTP."""
        self._reject(ErrorCode.MALFORMED_REQUEST, msg)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_idle_timer(self) -> None:
        self._unset_keepalive_if_required()
        timeout_s = _LINGER_S if self._is_shutting_down else self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(timeout_s, self.timeout_keep_alive_handler)

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._timeout_s, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._reject(ErrorCode.HEAD_TIMEOUT, f"head: not complete within {self._timeout_s:g} s")
        else:
            self.transport.close()

    def _account(self, unread_bytes: int) -> None:
        self._admission.account(unread_bytes - self._unread_bytes)
        self._unread_bytes = unread_bytes

    def _start_read_timer(self, left_bytes: int, timeouts: int = 0) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if left_bytes:
            on_timeout = self._on_read_timeout
            self._unread_timer = self.loop.call_later(self._timeout_s, on_timeout, left_bytes, timeouts + 1)

    def _on_read_timeout(self, left_bytes: int, timeouts: int) -> None:
        size = self.transport.get_write_buffer_size()
        if self._unread_bytes:
            self._account(size)
        if size and (size >= left_bytes or timeouts >= _MAX_READ_TIMEOUTS):
            self._disconnect_requests()
            self.transport.abort()
        else:
            self._start_read_timer(size, timeouts)

    def _pending(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _disconnect_requests(self) -> None:
        """The client disconnected; of several pipelined requests uvicorn notifies the last one only."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _reject(self, code: ErrorCode, message: str) -> None:
        """Send an error after the responses that are due, and close."""
        if self._is_ending:
            return
        self._is_ending = True
        metrics.count_unreadable(code.http_status)
        pending = self._pending()
        broken = pending[-1] if pending and pending[-1].more_body else None  # its end will never arrive
        if not broken or not broken.response_started:
            body = error_body(code, message)
            fields = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
            fields += b"retry-after: 1\r\n" if code.is_retryable else b""
            self._last_response = STATUS_LINE[code.http_status] + fields + b"\r\n" + body
        if self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
            self._cycles.remove(broken)
        elif not pending or (broken and not broken.response_started):
            self._end()

    def _end(self) -> None:
        if self._last_response:
            self.transport.write(self._last_response)
        self.transport.close()
