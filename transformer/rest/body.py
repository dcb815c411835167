"""Request bodies: read within the limit, and taken apart by their content type."""

import asyncio
import binascii
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from transformer import metrics
from transformer.admission import Body, Deadline
from transformer.errors import BodyTimeout, ClientGone, InvalidRequest, PayloadTooLarge, UnsupportedMedia
from transformer.rest.multipart import read_parts
from transformer.settings import TransformerSettings
from transformer.work import run

# A million numbers parse in some 50 ms; a list or an object costs as much as several.
_MAX_VALUES = 2**20
_LIST_WEIGHT = 8

_GZIP = 31  # zlib's number for it
_PIECE_BYTES, _UNPACKED_BYTES = 2**16, 2**20
_MOST_MEMBERS = 1000  # of gzip: an empty one has 20 bytes, and takes as long as a full one

_ENCODINGS = ("identity", "gzip", "x-gzip")
_EXPECTED = "image/*, multipart/form-data or application/json"


@dataclass(frozen=True)
class Items:
    """What a client asks about: pictures or rows, never both.

    Attributes:
        images: encoded pictures.
        rows: of a table.
        many: whether the client sent a list, and so expects one.
        parameters: that came with the items.
    """

    images: list[bytes] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    many: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


async def read_body(request: Request, held: Body, deadline: Deadline) -> bytes:
    """The whole body, as it came.

    Args:
        request: whose body.
        held: accounts for it.
        deadline: of the request.

    Raises:
        PayloadTooLarge: it is, or says that it is, longer than the limit; no more than that is read.
        UnsupportedMedia: it is compressed otherwise than by gzip.
        BodyTimeout: it stopped coming.
        DeadlineExceeded: the request's time was over before it was here.
        Overloaded: all bodies together are too large.
        ClientGone: its client went away.
    """
    settings: TransformerSettings = request.app.state.settings
    max_bytes = settings.max_body_bytes
    encoding = _encoding(request)
    if encoding not in _ENCODINGS:
        raise UnsupportedMedia(f"Content-Encoding: got {encoding[:60]!r}, expected gzip or none")
    length = request.headers.get("content-length", "0")
    if length.isdecimal():
        if int(length) > max_bytes:
            raise PayloadTooLarge(f"body: {length} bytes is over the limit of {max_bytes}")
        held.check(int(length))
    chunks: list[bytes] = []
    stream = request.stream()
    try:
        while True:
            async with deadline.limit("its body was here"), asyncio.timeout(settings.body_timeout_s):
                chunk = await anext(stream, None)
            if chunk is None:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if held.size_bytes + len(chunk) > max_bytes:
                raise PayloadTooLarge(f"body: more than the limit of {max_bytes} bytes")
            held.grow(len(chunk))
            chunks.append(chunk)
    except ClientDisconnect as exc:
        metrics.refuse("client gone")
        raise ClientGone(f"body: the client went away after {held.size_bytes} bytes") from exc
    except TimeoutError as exc:
        metrics.refuse("slow body")
        limit = f"{settings.body_timeout_s:g} s without more"
        raise BodyTimeout(f"body: no more came in time after {held.size_bytes} bytes; the limit is {limit}") from exc


async def unpack(request: Request, body: bytes, held: Body) -> bytes:
    """The body without its compression.

    Args:
        request: whose body.
        body: as it came.
        held: accounts for what it becomes.

    Raises:
        PayloadTooLarge: it becomes longer than the limit; hardly more than that is unpacked.
        InvalidRequest: it is broken gzip.
        Overloaded: all bodies together become too large.
    """
    if _encoding(request) == "identity":
        return body
    pieces = _unpack(body, max_bytes=request.app.state.settings.max_body_bytes)
    unpacked: list[bytes] = []
    while piece := await run(lambda: next(pieces, b""), little=False):
        held.grow(len(piece))
        unpacked.append(piece)
    return b"".join(unpacked)


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


def _unpack(body: bytes, *, max_bytes: int) -> Iterator[bytes]:
    """What gzip holds, of several members where it is, in pieces of at most a megabyte."""
    rest, size_bytes = memoryview(body), 0
    try:
        for _ in range(_MOST_MEMBERS):
            member = zlib.decompressobj(wbits=_GZIP)
            while not member.eof:
                piece = rest[:_PIECE_BYTES]
                unpacked = member.decompress(piece, _UNPACKED_BYTES)
                if not piece and not unpacked:
                    raise InvalidRequest(f"body: broken gzip: {len(body)} bytes end before its end")
                rest = rest[len(piece) - len(member.unconsumed_tail) - len(member.unused_data) :]
                size_bytes += len(unpacked)
                if size_bytes > max_bytes:
                    raise PayloadTooLarge(f"body: unpacked it is more than the limit of {max_bytes} bytes")
                if unpacked:
                    yield unpacked
            if not rest:
                return
    except zlib.error as exc:
        raise InvalidRequest(f"body: broken gzip: {exc}") from exc
    raise PayloadTooLarge(f"body: gzip of more than the limit of {_MOST_MEMBERS} members")


def read_items(body: bytes, content_type: str, *, max_items: int) -> Items:
    """Pictures or rows of `/predict`.

    Raises:
        InvalidRequest: the body is empty or not what its content type says.
        UnsupportedMedia: another content type.
    """
    media_type = _media_type(content_type)
    if not body:
        raise InvalidRequest(f"body: got 0 bytes, expected {_EXPECTED}")
    if media_type == "multipart/form-data":
        parts = read_parts(body, content_type, max_parts=max_items)
        images = [data for name, data in parts if name == "image"]
        if not images:
            got = ", ".join(sorted({repr(name) for name, _ in parts})) or "none"
            raise InvalidRequest(f"multipart/form-data: got fields {got}, expected one or more files named 'image'")
        return Items(images=images, many=len(images) > 1)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return Items(images=[body])
    if media_type == "application/json":
        return _read_rows(read_json(body))
    raise UnsupportedMedia(f"Content-Type: got {media_type[:60] or 'none'!r}, expected {_EXPECTED}")


def read_instances(body: bytes, content_type: str) -> Items:
    """What v1 asks about: `{"instances": [...], "parameters": {...}}`, or one encoded picture as the body.

    Raises:
        InvalidRequest: the body is neither.
    """
    if _media_type(content_type).startswith("image/"):
        return Items(images=[body], many=True)
    document = read_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise InvalidRequest('body: expected {"instances": [...]}, one entry for each picture or row')
    unknown = set(document) - {"instances", "parameters"}
    if unknown:
        raise InvalidRequest(f"body: got {sorted(unknown)} beside 'instances', expected 'parameters' or nothing")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"parameters: got {type(parameters).__name__}, expected an object")
    instances = document["instances"]
    if not instances:
        raise InvalidRequest("instances: got none, expected at least one")
    pictures = [isinstance(instance, dict) and "image" in instance for instance in instances]
    if all(pictures):
        images = [_read_base64(instance["image"], index) for index, instance in enumerate(instances)]
        return Items(images=images, many=True, parameters=parameters)
    if any(pictures):
        raise InvalidRequest("instances: got pictures and rows together, expected one kind")
    return Items(rows=instances, many=True, parameters=parameters)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def read_json(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        InvalidRequest: it is none.
        PayloadTooLarge: it has too many values; parsing holds the interpreter, and so every other request.
    """
    values = body.count(b",") + body.count(b"[") * _LIST_WEIGHT + body.count(b"{") * _LIST_WEIGHT
    if values > _MAX_VALUES:
        raise PayloadTooLarge(f"body: JSON of about {values} values is over the limit of {_MAX_VALUES}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"body: broken JSON: {exc}") from exc


def _read_rows(document: Any) -> Items:
    """`[...]` or `{...}` is one row, `[[...]]` and `[{...}]` are many."""
    if isinstance(document, dict):
        return Items(rows=[document])
    if isinstance(document, list) and document:
        many = isinstance(document[0], list | dict)
        return Items(rows=document if many else [document], many=many)
    raise InvalidRequest('body: expected a row ([5.1, ...] or {"name": 5.1, ...}) or a list of rows')


def _read_base64(value: Any, index: int) -> bytes:
    text = value.get("b64") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise InvalidRequest(f'instance {index}: image: expected {{"b64": "<base64 of the file>"}}')
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest(f"instance {index}: image: broken base64: {exc}") from exc
