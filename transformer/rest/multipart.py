"""`multipart/form-data` out of one buffer: python-multipart parses, the parts are slices of the body."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from transformer.errors import InvalidRequest, PayloadTooLarge


class Part(NamedTuple):
    """A field of a form.

    Attributes:
        name: of the field.
        data: what it holds.
        is_file: whether it has a file name.
    """

    name: str
    data: bytes
    is_file: bool


def read_parts(body: bytes, content_type: str, *, max_parts: int) -> list[Part]:
    """Each part, in their order.

    Raises:
        InvalidRequest: the body is not what its content type says.
        PayloadTooLarge: more parts than `max_parts`.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("multipart/form-data: got no boundary in Content-Type; let the HTTP client set the header")
    # Where a part ends, the parser takes byte for byte: a boundary that is everywhere and ends nothing takes minutes.
    if body.count(b"\r\n--" + boundary) > max_parts + 1:
        raise PayloadTooLarge(f"multipart/form-data: more than the limit of {max_parts} parts")
    parts = _Parts(max_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_end": parts.close,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as exc:
        raise InvalidRequest(f"multipart/form-data: {exc}") from exc
    if not parts.closed:
        raise InvalidRequest(
            f"multipart/form-data: {len(body)} bytes without the closing boundary; got a part of a body"
        )
    return parts.found


class _Parts:
    """Collects what the parser calls back; `data`, `start`, `end` are a buffer and a slice of it."""

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self.found: list[Part] = []
        self.closed = False
        self._name = ""
        self._is_file = False
        self._field = b""
        self._value = b""
        self._chunks: list[bytes] = []

    def begin(self) -> None:
        if len(self.found) == self._max_parts:
            raise PayloadTooLarge(f"multipart/form-data: more than the limit of {self._max_parts} parts")
        self._name, self._field, self._value, self._chunks = "", b"", b"", []
        self._is_file = False

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = b"filename" in options
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def end(self) -> None:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.found.append(Part(self._name, data, self._is_file))

    def close(self) -> None:
        self.closed = True
