"""Request bodies: read within their limits, and parsed by their content type."""

import asyncio
import codecs
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from transformer.admission import Body, Deadline
from transformer.errors import (
    BodyTimeout,
    ClientDisconnected,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMedia,
    excerpt,
)
from transformer.observability import metrics
from transformer.offload import ALWAYS, offload
from transformer.rest.json_body import read_json
from transformer.rest.json_images import FORM, is_image, read_images
from transformer.rest.multipart import Part, read_parts
from transformer.settings import TransformerSettings
from transformer.tasks import parameters as task_parameters

_PIECE_BYTES, _UNPACKED_BYTES = 2**16, 2**20
_MAX_MEMBERS = 1000  # of gzip: an empty one has 20 bytes, and takes as long as a full one

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's numbers; HTTP's deflate is zlib's own form
_ENCODINGS = ("identity", *_WINDOWS)
_EXPECTED = "image/*, multipart/form-data or application/json"

_BINARY = "application/octet-stream"  # what some clients send for any body
_JSON = (b"{", b"[", codecs.BOM_UTF8)

_ITEMS = {"instances", "inputs"}  # KServe and TensorFlow Serving have both
_MEMBERS = _ITEMS | {"parameters", "signature_name"}
_SIGNATURE = "serving_default"  # TensorFlow's
_V1 = f'{{"instances": [{FORM}]}}'


@dataclass(frozen=True)
class Items:
    """The items of a request: images or rows, never both.

    Attributes:
        images: encoded.
        rows: of a table.
        many: whether the client sent a list, and so expects one.
        parameters: sent with the items.
    """

    images: list[bytes] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    many: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


async def read_body(request: Request, held: Body, deadline: Deadline) -> bytes:
    """The whole body, still compressed.

    Args:
        request: whose body.
        held: accounts for the body.
        deadline: of the request.

    Raises:
        PayloadTooLarge: the body, or its Content-Length, is over the limit; no more than the limit is read.
        UnsupportedMedia: its compression is neither gzip nor deflate.
        BodyTimeout: it stopped arriving.
        DeadlineExceeded: before all of it had arrived.
        MemoryFull: all bodies together are over their limit.
        ClientDisconnected: before all of it had arrived.
    """
    settings: TransformerSettings = request.app.state.settings
    _check_headers(request, held)
    chunks: list[bytes] = []
    stream = request.stream()
    try:
        while True:
            async with deadline.limit("its body had arrived"), asyncio.timeout(settings.body_timeout_s):
                chunk = await anext(stream, None)
            if chunk is None:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if held.size_bytes + len(chunk) > settings.max_body_bytes:
                raise PayloadTooLarge(f"body: over the limit of {settings.max_body_bytes} bytes")
            held.grow(len(chunk))
            chunks.append(chunk)
    except ClientDisconnect as exc:
        metrics.count_rejected("client gone")
        raise ClientDisconnected(f"body: the client disconnected after {held.size_bytes} bytes") from exc
    except TimeoutError as exc:
        metrics.count_rejected("slow body")
        limit = f"{settings.body_timeout_s:g} s"
        raise BodyTimeout(f"body: got {held.size_bytes} bytes, and then none for the limit of {limit}") from exc


def _check_headers(request: Request, held: Body) -> None:
    """Reject a body by its headers, before any of it is read."""
    encoding, length = _encoding(request), request.headers.get("content-length", "0")
    if encoding not in _ENCODINGS:
        raise UnsupportedMedia(f"Content-Encoding: got {encoding[:60]!r}, expected gzip, deflate or none")
    max_bytes = request.app.state.settings.max_body_bytes
    if length.isdecimal():
        if int(length) > max_bytes:
            raise PayloadTooLarge(f"body: {length} bytes is over the limit of {max_bytes}; send fewer items at once")
        held.check(int(length))


async def unpack(request: Request, body: bytes, held: Body) -> bytes:
    """The decompressed body.

    Args:
        request: whose body.
        body: as `read_body` returns it.
        held: accounts for the decompressed bytes.

    Raises:
        PayloadTooLarge: decompressed it is over the limit; hardly more than the limit is decompressed.
        InvalidRequest: it is corrupt.
        MemoryFull: all bodies together are over their limit.
    """
    encoding = _encoding(request)
    if encoding == "identity":
        return body
    pieces = decompress(body, encoding, max_bytes=request.app.state.settings.max_body_bytes)
    unpacked: list[bytes] = []
    while piece := await offload(lambda: next(pieces, b""), cost=ALWAYS):
        held.grow(len(piece))
        unpacked.append(piece)
    return b"".join(unpacked)


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


def decompress(body: bytes, encoding: str = "gzip", *, max_bytes: int) -> Iterator[bytes]:
    """The decompressed body, of several gzip members too, in pieces of at most a megabyte.

    Raises:
        PayloadTooLarge: decompressed it is over `max_bytes`, or it has too many members.
        InvalidRequest: it is corrupt.
    """
    rest, size_bytes = memoryview(body), 0
    try:
        for _ in range(_MAX_MEMBERS):
            member = zlib.decompressobj(wbits=_WINDOWS[encoding])
            while not member.eof:
                piece = rest[:_PIECE_BYTES]
                unpacked = member.decompress(piece, _UNPACKED_BYTES)
                if not piece and not unpacked:
                    raise InvalidRequest(f"body: broken {encoding}: {len(body)} bytes end before its end")
                rest = rest[len(piece) - len(member.unconsumed_tail) - len(member.unused_data) :]
                size_bytes += len(unpacked)
                if size_bytes > max_bytes:
                    raise PayloadTooLarge(f"body: decompressed it is over the limit of {max_bytes} bytes")
                if unpacked:
                    yield unpacked
            if not rest:
                return
    except zlib.error as exc:
        raise InvalidRequest(f"body: broken {encoding}: {exc}") from exc
    raise PayloadTooLarge(f"body: {encoding} of more than the limit of {_MAX_MEMBERS} members")


def read_items(body: bytes, content_type: str, *, max_items: int, images: bool, max_bytes: int) -> Items:
    """Images or rows of `/predict`.

    Args:
        body: of the request.
        content_type: of the body.
        max_items: maximum number of images in a form.
        images: whether the model takes images; otherwise JSON holds rows.
        max_bytes: maximum size of an image in JSON.

    Raises:
        InvalidRequest: the body is empty or not what its content type says.
        UnsupportedMedia: another content type.
        PayloadTooLarge: too many images, or an image in JSON is over its limit.
    """
    media_type = _media_type(content_type)
    if not body:
        raise InvalidRequest(f"body: got 0 bytes, expected {_EXPECTED}")
    if media_type == "multipart/form-data":
        return _read_form(read_parts(body, content_type, max_parts=max_items))
    if media_type.startswith("image/") or media_type == _BINARY:
        return Items(images=[body])
    if media_type == "application/json":
        document = read_json(body)
        many = isinstance(document, list)
        instances = document if many else [document]
        if _hold_images(instances, expected=images):
            return Items(images=read_images(instances, max_bytes=max_bytes), many=many)
        return _read_rows(document)
    raise UnsupportedMedia(f"Content-Type: got {media_type[:60] or 'none'!r}, expected {_EXPECTED}")


def read_instances(body: bytes, content_type: str, *, images: bool, max_bytes: int) -> Items:
    """Items of v1: `{"instances": [...], "parameters": {...}}`, or one encoded image as the body.

    Args:
        body: of the request.
        content_type: `image/*` for an image; any other is JSON, except binary that does not look like it.
        images: whether the model takes images; otherwise rows.
        max_bytes: maximum size of an image in JSON.

    Raises:
        InvalidRequest: the body is neither.
        UnsupportedMedia: it is a form.
        PayloadTooLarge: an image is over its limit.
    """
    media_type = _media_type(content_type)
    if media_type.startswith("image/") or (media_type == _BINARY and not body.lstrip().startswith(_JSON)):
        return Items(images=[body], many=True)
    if media_type.startswith("multipart/"):
        raise UnsupportedMedia(f"Content-Type: got {media_type[:60]!r}, expected application/json or image/*")
    document = read_json(body)
    document = (
        {name: value for name, value in document.items() if value is not None} if isinstance(document, dict) else {}
    )
    if not _ITEMS & document.keys():
        raise InvalidRequest(f"body: expected {_V1}, one entry for each image or row")
    parameters = _read_members(document)
    instances = _read_columns(document["inputs"]) if "inputs" in document else document["instances"]
    if not isinstance(instances, list):
        raise InvalidRequest(f"instances: got {type(instances).__name__}, expected a list: {_V1}")
    if not instances:
        raise InvalidRequest("instances: got none, expected at least one")
    if _hold_images(instances, expected=images):
        return Items(images=read_images(instances, max_bytes=max_bytes), many=True, parameters=parameters)
    return Items(rows=instances, many=True, parameters=parameters)


def _read_members(document: dict[str, Any]) -> Mapping[str, Any]:
    """The parameters of a v1 request, after a check of its other members."""
    unknown = sorted(document.keys() - _MEMBERS)
    if unknown:
        raise InvalidRequest(f"body: got {unknown} beside 'instances', expected 'parameters' or nothing")
    if document.keys() >= _ITEMS:
        raise InvalidRequest("body: got 'instances' and 'inputs', expected one of them")
    signature = document.get("signature_name", _SIGNATURE)
    if signature != _SIGNATURE:
        raise InvalidRequest(f"signature_name: got {excerpt(signature)}, expected {_SIGNATURE!r}: models have one here")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"parameters: got {type(parameters).__name__}, expected an object")
    return {name: value for name, value in parameters.items() if value is not None}


def _read_columns(inputs: Any) -> Any:
    """Instances from `inputs`: a list like `instances`, a string, or TensorFlow Serving's columns by name."""
    if not isinstance(inputs, dict):
        return [inputs] if isinstance(inputs, str) else inputs
    columns = {name: column if isinstance(column, list) else [column] for name, column in inputs.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InvalidRequest(f"inputs: got columns of {sorted(lengths)[:5]} entries, expected the same number in each")
    return [dict(zip(columns, entries, strict=True)) for entries in zip(*columns.values(), strict=True)]


def _hold_images(instances: list[Any], *, expected: bool) -> bool:
    """Whether instances are images: for a model of images any object or string, otherwise only what cannot be a row."""
    if expected:
        return any(isinstance(instance, dict | str) for instance in instances)
    images = [is_image(instance) for instance in instances]
    if any(images) and not all(images):
        raise InvalidRequest("instances: got images and rows together, expected one kind")
    return any(images)


def _read_form(parts: list[Part]) -> Items:
    """Images: the fields named `image`, or all files if they share one name; parameters: the fields named like one."""
    files = {part.name for part in parts if part.is_file}
    wanted = "image" if any(part.name == "image" for part in parts) else min(files) if len(files) == 1 else None
    if wanted is None:
        got = ", ".join(sorted({repr(part.name) for part in parts})) or "none"
        raise InvalidRequest(f"multipart/form-data: got fields {got}, expected one or more files named 'image'")
    images = [part.data for part in parts if part.name == wanted]
    known = {*task_parameters(), "format"}
    parameters = {part.name: part.data.decode("utf-8", "replace") for part in parts if part.name in known}
    return Items(images=images, many=len(images) > 1, parameters=parameters)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _read_rows(document: Any) -> Items:
    """`[...]` or `{...}` is one row, `[[...]]` and `[{...}]` are many."""
    if isinstance(document, dict):
        return Items(rows=[document])
    if isinstance(document, list) and document:
        many = isinstance(document[0], list | dict)
        return Items(rows=document if many else [document], many=many)
    raise InvalidRequest(f'body: expected a row ([5.1, ...] or {{"name": 5.1, ...}}), an image ({FORM}), or a list')
