"""Reads the versions and the references of ONNX files without their weights.

The package `onnx` parses every weight: 1.5 s and 763 MB of memory for a file of 400 MB, in place of 0.4 ms and 20 MB,
while a check may take 320 MiB; and the synchroniser's image would need it.
"""

import mmap
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Field numbers of ModelProto and OperatorSetIdProto in onnx.proto.
_MODEL_IR_VERSION, _MODEL_OPSET_IMPORT = 1, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
# Where tensors and nodes are: message -> field -> message.
MESSAGES_IN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse_tensor", 23: "sparse_tensor"},
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external_data"},
}
_ENTRY = _ENTRY_KEY, _ENTRY_VALUE = 1, 2
_NODE_TYPE = 4
_ENGINE = "EPContext"  # a node of ONNX Runtime that holds, or names, code that an execution provider compiled
# ONNX Runtime's protobuf takes five bytes, and drops what is above 32 bits: it would read another field than this code.
_LARGEST_KEY = 2**32 - 1
# All fields of ModelProto (IR 13), with their wire types. A file with other fields is rejected: OpenVINO reads its own
# XML from a file that ends in .onnx.
_MODEL = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_SPAN = 2  # wire type
# Numbers and short texts of an attribute, one after the other: trees have millions. With an upper bound: re keeps each.
_SHORT = b"|".join(b"\\x%02x.{%d}" % (size, size) for size in range(64))
_RUNS = re.compile(
    rb"(?:\x3d.{4}){1,10000}|(?:\x40[\x80-\xff]{0,9}[\x00-\x7f]){1,10000}|(?:\x4a(?:%s)){1,10000}" % _SHORT, re.DOTALL
)
# OpenVINO searches the first 512 bytes for it, whatever surrounds it.
_XML, _XML_WITHIN = b"<net", 4096
_LONGEST_VARINT = 10  # of 64 bits, seven in each byte


@dataclass(frozen=True)
class Facts:
    """The references of an ONNX file.

    Attributes:
        external: files that hold its weights, relative to it.
        engines: how many of its nodes hold compiled engines.
    """

    external: frozenset[str]
    engines: int


def read_versions(path: Path) -> tuple[int, dict[str, int]]:
    """Return the IR version and the opset version of each domain of an ONNX file, without reading its graph."""
    ir_version = 0
    opsets: dict[str, int] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, value in _iterate_fields(data, range(len(data))):
            if number == _MODEL_IR_VERSION and isinstance(value, int):
                ir_version = value
            elif number == _MODEL_OPSET_IMPORT and isinstance(value, range):
                fields = dict(_iterate_fields(data, value))
                domain, version = fields.get(_OPSET_DOMAIN), fields.get(_OPSET_VERSION)
                opsets[_read_string(data, domain) or "ai.onnx"] = version if isinstance(version, int) else 0
    return ir_version, opsets


def read_facts(path: Path) -> Facts:
    """Return the references of an ONNX file, of tensors and nodes at any depth.

    Raises:
        ValueError, IndexError, KeyError, RecursionError: it is not an ONNX file.
    """
    external, engines = set(), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if _XML in data[:_XML_WITHIN]:
            raise ValueError("it begins with OpenVINO's own XML")
        for message, value in _iterate_texts(data, range(len(data)), "model"):
            if message == "external_data":
                external.add(value)
            elif value == _ENGINE:
                engines += 1
    return Facts(frozenset(external), engines)


def _iterate_texts(data: mmap.mmap, span: range, message: str) -> Iterator[tuple[str, str]]:
    """Yield the location of each external tensor, and the type of each node, with the name of their message."""
    if message == "external_data":
        entry = dict(_iterate_fields(data, span, spans=_ENTRY))
        if _read_string(data, entry.get(_ENTRY_KEY)) == "location":
            yield message, _read_string(data, entry.get(_ENTRY_VALUE))
        return
    inner = MESSAGES_IN[message]
    texts = {_NODE_TYPE} if message == "node" else set()
    known = _MODEL if message == "model" else None
    runs = _RUNS if message == "attribute" else None
    for number, value in _iterate_fields(data, span, spans=inner.keys() | texts, known=known, runs=runs):
        if number in texts:
            yield message, _read_string(data, value)
        elif number in inner and isinstance(value, range):
            yield from _iterate_texts(data, value, inner[number])


def _read_string(data: mmap.mmap, span: int | range | None) -> str:
    return data[span.start : span.stop].decode() if isinstance(span, range) else ""


def _iterate_fields(
    data: mmap.mmap,
    span: range,
    *,
    spans: Collection[int] = (),
    known: Mapping[int, int] | None = None,
    runs: re.Pattern[bytes] | None = None,
) -> Iterator[tuple[int, int | range | None]]:
    """Walk one protobuf message: yield each field's number with its integer, or with the span of its bytes.

    Args:
        data: The file.
        span: Of the message.
        spans: Fields that are spans of bytes; other readers skip one of another type, and take the one before it.
        known: All fields that exist, with their wire types; None: any.
        runs: Fields that are skipped at once.

    Raises:
        ValueError, IndexError, KeyError: it is not a valid message.
    """
    at = span.start
    while at < span.stop:
        if runs and (run := runs.match(data, at, span.stop)):
            at = run.end()
            continue
        key, at = _read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if key > _LARGEST_KEY:
            raise ValueError(f"a field's key of {key}")
        if (number in spans and wire_type != _SPAN) or (known is not None and known.get(number) != wire_type):
            raise ValueError(f"field {number} of wire type {wire_type}, which ONNX does not have")
        value, at = _read_value(data, at, span.stop, wire_type)
        yield number, value
    if at != span.stop:
        raise ValueError(f"a field that ends {at - span.stop} bytes behind its message")


def _read_value(data: mmap.mmap, at: int, stop: int, wire_type: int) -> tuple[int | range | None, int]:
    """An integer, or the span of bytes, or None for a number of fixed length; and the position after it."""
    if wire_type == 0:
        return _read_varint(data, at)
    if wire_type == _SPAN:
        size, at = _read_varint(data, at)
        if size > stop - at:
            raise ValueError(f"a field of {size} bytes where {stop - at} are left")
        return range(at, at + size), at + size
    return None, at + {1: 8, 5: 4}[wire_type]


def _read_varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f"a number of more than {_LONGEST_VARINT} bytes")
