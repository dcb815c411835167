"""ONNX files, read where the package `onnx` would parse every weight: versions, and which other files they read."""

import mmap
from collections.abc import Iterator, Mapping
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
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_NODE_TYPE = 4
_ENGINE = "EPContext"  # a node of ONNX Runtime's that holds, or names, what an execution provider compiled
# ONNX Runtime's protobuf takes five bytes, and drops what is above 32 bits: it would read another field than we.
_LARGEST_KEY = 2**32 - 1
_LONGEST_VARINT = 10  # of 64 bits, seven in each byte


@dataclass(frozen=True)
class Facts:
    """What an ONNX file refers to.

    Attributes:
        external: files that hold its weights, relative to it.
        engines: how many of its nodes hold compiled engines.
    """

    external: frozenset[str]
    engines: int


def read_versions(path: Path) -> tuple[int, dict[str, int]]:
    """Return the IR version and the opset version of each domain of an ONNX file, without reading its graph.

    The package `onnx` could do this, and would parse every weight.
    """
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
    """Return what an ONNX file refers to, wherever in it a tensor or a node is.

    Raises:
        ValueError, IndexError, KeyError, RecursionError: it is no ONNX file.
    """
    external, engines = set(), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for message, value in _iterate_texts(data, range(len(data)), "model"):
            if message == "external_data":
                external.add(value)
            elif value == _ENGINE:
                engines += 1
    return Facts(frozenset(external), engines)


def _iterate_texts(data: mmap.mmap, span: range, message: str) -> Iterator[tuple[str, str]]:
    """Yield the location of each tensor that is elsewhere, and the type of each node, with the message that has it."""
    if message == "external_data":
        entry = dict(_iterate_fields(data, span))
        if _read_string(data, entry.get(_ENTRY_KEY)) == "location":
            yield message, _read_string(data, entry.get(_ENTRY_VALUE))
        return
    for number, value in _iterate_fields(data, span):
        if message == "node" and number == _NODE_TYPE:
            yield message, _read_string(data, value)
        inner = MESSAGES_IN[message].get(number)
        if inner and isinstance(value, range):
            yield from _iterate_texts(data, value, inner)


def _read_string(data: mmap.mmap, span: int | range | None) -> str:
    return data[span.start : span.stop].decode() if isinstance(span, range) else ""


def _iterate_fields(data: mmap.mmap, span: range) -> Iterator[tuple[int, int | range]]:
    """Walk one protobuf message: yield each field's number with its integer, or with the span of its bytes."""
    at = span.start
    while at < span.stop:
        key, at = _read_varint(data, at)
        if key > _LARGEST_KEY:
            raise ValueError(f"a field's key of {key}")
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _read_varint(data, at)
            yield number, value
        elif wire_type == 2:
            size, at = _read_varint(data, at)
            if size > span.stop - at:
                raise ValueError(f"a field of {size} bytes where {span.stop - at} are left")
            yield number, range(at, at + size)
            at += size
        else:
            at += {1: 8, 5: 4}[wire_type]


def _read_varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f"a number of more than {_LONGEST_VARINT} bytes")
