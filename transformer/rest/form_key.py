"""The API key of a form, for clients that send none in a header: the field `api_key`, before the image.

Every client of DeepStack's dialect that has a key sends it there, in front of the file. So it is compared before the
image is read, as a key in a header is, and of a request without a valid one no more than the head is read.
"""

import asyncio

import multipart as parser
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from transformer.errors import BodyTimeout, ClientDisconnected
from transformer.observability import metrics
from transformer.rest.responses import VISION

FIELD = "api_key"
HEAD_BYTES = 8192
PLACE = f"the form field {FIELD} before the image, in the first {HEAD_BYTES} bytes, of a form without Content-Encoding"
_FORM = "multipart/form-data"


class _FieldReader:
    """Reads a form piece by piece, up to the field."""

    def __init__(self, boundary: str) -> None:
        self._parser = parser.PushMultipartParser(boundary, header_charset="latin-1")
        self._name, self._value = "", bytearray()

    def read(self, piece: bytes) -> str | None:
        """The value of the field; "" where it is not before the first file; None where more pieces are needed."""
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, parser.MultipartSegment):
                    if event.filename is not None:
                        return ""
                    self._name = event.name
                elif event is None and self._name == FIELD:
                    return self._value.decode("utf-8", "replace").strip()
                elif event is not None and self._name == FIELD:
                    self._value += event
        except parser.MultipartError:
            return ""
        return "" if self._parser.closed else None


def takes_form_key(scope: Scope) -> bool:
    """Whether the key of a request may be a field of its form."""
    return bool(scope["method"] == "POST" and scope["path"].startswith(VISION))


async def read_form_key(scope: Scope, receive: Receive, *, timeout_s: float) -> tuple[str, Receive]:
    """The key of a form, "" without one, and what brings the whole body to who reads it next.

    Raises:
        BodyTimeout: the head of the form did not arrive in time.
        ClientDisconnected: it never will.
    """
    headers = Headers(scope=scope)
    media_type, options = parser.parse_options_header(headers.get("content-type", ""))
    is_plain = headers.get("content-encoding", "identity").strip().lower() == "identity"
    if media_type != _FORM or not options.get("boundary") or not is_plain:
        return "", receive
    try:
        async with asyncio.timeout(timeout_s):
            key, head = await _read_head(_FieldReader(options["boundary"]), receive)
    except TimeoutError as exc:
        metrics.count_rejected("slow body")
        raise BodyTimeout(f"body: no field {FIELD!r} and no file arrived within the limit of {timeout_s:g} s") from exc
    unread: list[Message] = [head]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return key, replay


async def _read_head(reader: _FieldReader, receive: Receive) -> tuple[str, Message]:
    """The key, and what was read as one message: a client may send a byte at a time, and a message takes hundreds."""
    read = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            metrics.count_rejected("client gone")
            raise ClientDisconnected(f"body: the client disconnected after {len(read)} bytes")
        piece, more = message.get("body", b""), message.get("more_body", False)
        key = reader.read(piece[: HEAD_BYTES - len(read)]) if piece else None
        read += piece
        if key is not None or not more or len(read) >= HEAD_BYTES:
            return key or "", {"type": "http.request", "body": bytes(read), "more_body": more}
