"""JSON of requests."""

import codecs
import json
from typing import Any

import orjson

from transformer.errors import InvalidRequest, PayloadTooLarge

# A million numbers parse in some 50 ms; a list or an object costs as much as several.
_MAX_VALUES = 2**20
_LIST_WEIGHT = 8
_MAX_DIGITS = 20  # of 64 bits


def read_json(body: bytes) -> Any:
    """Parse JSON, in UTF-8; NaN and Infinity, which Python writes and Triton takes, are numbers.

    Raises:
        InvalidRequest: it is not JSON.
        PayloadTooLarge: it has too many values: parsing blocks the interpreter, and so every other request.
    """
    values = body.count(b",") + body.count(b"[") * _LIST_WEIGHT + body.count(b"{") * _LIST_WEIGHT
    if values > _MAX_VALUES:
        raise PayloadTooLarge(f"body: JSON of about {values} values is over the limit of {_MAX_VALUES}")
    text = memoryview(body)[len(codecs.BOM_UTF8) :] if body.startswith(codecs.BOM_UTF8) else body
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        if b"NaN" in body or b"Infinity" in body:
            return _read_not_finite(bytes(text))
        raise InvalidRequest(f"body: {_why(body, exc)}") from exc


def _read_not_finite(text: bytes) -> Any:
    try:
        decoded = text.decode()
        document = json.loads(decoded, parse_int=_whole)
        if "\\u" in decoded:
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is not text
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"body: {_why(text, exc)}") from exc
    return document


def _whole(digits: str) -> int | float:
    """An integer as orjson reads it: a number that does not fit 64 bits is a float."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _why(body: bytes, exc: Exception) -> str:
    # JSON begins with an ASCII character: a zero byte beside it, or a byte order mark, shows UTF-16 and its byte order.
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:2]:
        return "broken JSON: got UTF-16 or UTF-32, expected UTF-8"
    try:
        body.decode()
    except UnicodeDecodeError as broken:
        return f"broken JSON: byte {broken.start} is not UTF-8, expected UTF-8"
    return f"broken JSON: {exc}"
