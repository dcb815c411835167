"""`multipart/form-data` out of one buffer."""

from typing import NamedTuple

import multipart as parser

from transformer.errors import InvalidRequest, PayloadTooLarge

_FORM = "multipart/form-data"


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
    boundary = parser.parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidRequest(f"{_FORM}: got no boundary in Content-Type; let the HTTP client set the header")
    parts: list[Part] = []
    pieces: list[bytes] = []
    try:
        # Latin-1 has every byte: file names are not looked at, and may be in any encoding.
        with parser.PushMultipartParser(boundary, header_charset="latin-1") as events:
            for event in events.parse(body):
                if isinstance(event, parser.MultipartSegment):
                    if len(parts) == max_parts:
                        raise PayloadTooLarge(f"{_FORM}: more than the limit of {max_parts} parts")
                    name, is_file = event.name.encode("latin-1").decode("utf-8", "replace"), event.filename is not None
                    pieces = []
                elif event is None:
                    parts.append(Part(name, pieces[0] if len(pieces) == 1 else b"".join(pieces), is_file))
                else:
                    pieces.append(event)
    except parser.MultipartError as exc:
        raise InvalidRequest(f"{_FORM}: {exc}; expected parts up to the closing boundary") from exc
    return parts
