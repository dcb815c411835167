"""One HTTP connection: uvicorn's, with limits that it has not, and strict about what a request is.

The limits are for heads, for requests that are sent before others are answered, and for clients that do not read.
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
_MOST_BEHIND = 100  # requests behind one that is being answered; each waits for those before it
_MOST_SPANS = 60  # an answer that is read drop by drop
# Where the server stops: as long as gRPC waits for calls on their way, so that it costs no time.
_LINGER_S = 1.0


class Parser(httptools.HttpRequestParser):
    """The parser of a server that speaks HTTP/1 alone: who asks for more is read as if not (RFC 9110, 7.8).

    llhttp takes what stands behind such a head for another protocol: a body would be lost, or read as a request.
    """

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection)
        # As uvicorn does: what is sent behind a request that closes is ignored, and the request is answered.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._connection = connection

    @property
    def upgrades(self) -> bool:
        """Whether the head that was just read asks for another protocol; CONNECT, which does too, is no such head."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: Any) -> None:
        """Parse more of a connection.

        Raises:
            HttpParserError: it is no HTTP.
        """
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            (offset,) = upgrade.args
            self._connection.read_again(data[offset:])


class Connection(HttpToolsProtocol):
    """Closes when a head takes too long or is too large, and answers in the form of every other error.

    Without a request it stays open for `TRANSFORMER_KEEP_ALIVE_S`, whether it has had one or none: balancers open some
    ahead of the requests. When the server stops, it waits a moment longer for a request that is on its way, whose
    response then says that the connection ends.

    A head is also what stands around the pieces of a chunked body, and behind it. An error is answered behind the
    requests that came before it.
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
        self._has_read_message = False  # with the last bytes that came
        self._stops = False
        self._head_bytes = 0
        self._cycles: list[RequestResponseCycle] = []
        self._ends = False  # nothing more is read; what is unanswered is answered, then come the last words
        self._last_words = b""
        self._unread_bytes = 0  # accounted for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and a request is awaited."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._head_is_here()
        self._unset_keepalive_if_required()
        self._tell_requests()
        self.resume_writing()
        self._await_reading(0)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        self._account(size)
        self._await_reading(size)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._account(0)

    def on_response_complete(self) -> None:
        """uvicorn's: an answer is written, which does not mean that it is read."""
        super().on_response_complete()
        if self._ends and not self._unanswered():
            self._end()
        self._await_reading(self.transport.get_write_buffer_size())

    def data_received(self, data: bytes) -> None:
        """More of a request, or what is left of one that was answered before its end."""
        if self._ends:
            return
        self._head_bytes += len(data)
        self._has_read_message = False
        super().data_received(data)
        if self._ends or self.transport.is_closing():
            return
        if self._is_answered():
            if self._has_read_message and not self._in_message:
                self._await_request()
            else:
                self._await_head()
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(ErrorCode.HEAD_TOO_LARGE, f"head: more than the limit of {_MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The parser's: the first byte of a head."""
        if len(self.pipeline) >= _MOST_BEHIND:
            words = f"{_MOST_BEHIND} requests are queued on this connection, which is the limit; read their responses"
            self._refuse(ErrorCode.OVERLOADED, words)
            raise ConnectionError  # ends the parser
        self._in_message, self._in_head, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's: a header, or what stands behind the last chunk; that is not kept."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The parser's: the end of a head."""
        if self.parser.upgrades:
            return  # the parser reads it once more
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if fault := find_fault(version, method, self.url, self.headers):
            self._refuse(fault.code, fault.message)
            raise ConnectionError  # ends the parser
        authority, self.url = split_target(self.url)
        if authority is not None:
            self.headers[:] = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers.append((b"host", authority))  # the field does not count beside it (RFC 9112, 3.2.2)
        self._in_head, self._head_bytes = False, 0
        self._head_is_here()
        super().on_headers_complete()
        self._cycles = self._unanswered()
        if self.cycle is not None:
            self._cycles.append(self.cycle)
            if self._stops:
                self.cycle.keep_alive = False

    def read_again(self, rest: bytes) -> None:
        """Parse the head that was just read once more without its wish for another protocol, and what follows it."""
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
        self._head_is_here()  # of one that was answered before its end, the end
        super().on_message_complete()

    def shutdown(self) -> None:
        """The server stops: what is under way is answered."""
        if self._stops:
            return
        self._stops = True
        if self._is_answered():
            self._await_request()
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no HTTP."""
        self._refuse(ErrorCode.MALFORMED_REQUEST, msg)

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_request(self) -> None:
        self._unset_keepalive_if_required()
        timeout_s = _LINGER_S if self._stops else self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(timeout_s, self.timeout_keep_alive_handler)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._timeout_s, self._give_up)

    def _head_is_here(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(ErrorCode.HEAD_TIMEOUT, f"head: not complete within {self._timeout_s:g} s")
        else:
            self.transport.close()

    def _account(self, unread_bytes: int) -> None:
        self._admission.account(unread_bytes - self._unread_bytes)
        self._unread_bytes = unread_bytes

    def _await_reading(self, left_bytes: int, spans: int = 0) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if left_bytes:
            look = self._look_at_reading
            self._unread_timer = self.loop.call_later(self._timeout_s, look, left_bytes, spans + 1)

    def _look_at_reading(self, left_bytes: int, spans: int) -> None:
        size = self.transport.get_write_buffer_size()
        if self._unread_bytes:
            self._account(size)
        if size and (size >= left_bytes or spans >= _MOST_SPANS):
            self._tell_requests()
            self.transport.abort()
        else:
            self._await_reading(size, spans)

    def _unanswered(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _tell_requests(self) -> None:
        """The client is gone; of several requests at once uvicorn tells the last one only."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _refuse(self, code: ErrorCode, message: str) -> None:
        """Answer what cannot be read, when all that came before it is answered, and close."""
        if self._ends:
            return
        self._ends = True
        metrics.count_unreadable(code.http_status)
        unanswered = self._unanswered()
        broken = unanswered[-1] if unanswered and unanswered[-1].more_body else None  # its end will never come
        if not broken or not broken.response_started:
            body = error_body(code, message)
            fields = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
            fields += b"retry-after: 1\r\n" if code.is_retryable else b""
            self._last_words = STATUS_LINE[code.http_status] + fields + b"\r\n" + body
        if self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
            self._cycles.remove(broken)
        elif not unanswered or (broken and not broken.response_started):
            self._end()

    def _end(self) -> None:
        if self._last_words:
            self.transport.write(self._last_words)
        self.transport.close()
