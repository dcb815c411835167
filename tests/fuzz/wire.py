"""Protobuf messages in every valid encoding, and in some that only some readers accept."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

_SCALAR = {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_ENUM}
_BYTES = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}


def _number(value: int, *, width: int = 0, above: int = 0) -> bytes:
    """A varint of at least `width` bytes, with bits above the 32 that a key has."""
    value = (value | above << 32) & (2**64 - 1)
    data = b""
    while True:
        data += bytes((value & 0x7F | (0x80 if value > 0x7F or len(data) + 1 < width else 0),))
        value >>= 7
        if not value and len(data) >= width:
            return data


@st.composite
def written(draw: st.DrawFn, message: Any) -> bytes:
    """The bytes of a message, in an unusual encoding."""
    parts = []
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            bodies = [draw(written(each)) for each in values]
            if not field.is_repeated and len(bodies[0]) > 2 and draw(st.integers(0, 7)) == 0:
                bodies.append(b"")  # a repeated singular field is merged
            parts += [_key(draw, field.number, 2) + _length(draw, body) + body for body in bodies]
        elif field.type in _BYTES:
            bodies = [each.encode() if isinstance(each, str) else each for each in values]
            parts += [_key(draw, field.number, 2) + _length(draw, body) + body for body in bodies]
        elif field.type in _SCALAR:
            parts += [_key(draw, field.number, 0) + _number(each, width=_width(draw)) for each in values]
        else:
            raise AssertionError(field.full_name)
    if draw(st.integers(0, 9)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(_STRANGE)))
    if draw(st.integers(0, 9)) == 0:  # a known field with another wire type: readers skip it
        number, (wire_type, body) = draw(st.integers(1, 26)), draw(st.sampled_from(_OF_ANOTHER_TYPE))
        parts.insert(draw(st.integers(0, len(parts))), _number(number << 3 | wire_type) + body)
    if draw(st.booleans()):
        parts = draw(st.permutations(parts))
    return b"".join(parts)


# Unknown fields of every wire type, deprecated groups included.
_STRANGE = [
    _number(999 << 3) + b"\x01",
    _number(999 << 3 | 1) + bytes(8),
    _number(999 << 3 | 2) + b"\x03abc",
    _number(999 << 3 | 3) + b"\x08\x01" + _number(999 << 3 | 4),
    _number(999 << 3 | 5) + bytes(4),
    _number(999 << 3 | 6),
    b"\x00",
]

_OF_ANOTHER_TYPE = [(0, b"\x07"), (1, bytes(8)), (2, b"\x01a"), (5, bytes(4))]


def _width(draw: st.DrawFn) -> int:
    return draw(st.sampled_from([0] * 12 + [2, 5, 6, 10]))


def _key(draw: st.DrawFn, number: int, wire_type: int) -> bytes:
    strange = draw(st.integers(0, 15))
    above = draw(st.sampled_from([1, 2, 7, 8])) if strange == 0 else 0
    return _number(number << 3 | wire_type, width=_width(draw) if strange == 1 else 0, above=above)


def _length(draw: st.DrawFn, body: bytes) -> bytes:
    strange = draw(st.integers(0, 15))
    return _number(
        len(body),
        width=_width(draw) if strange == 1 else 0,
        above=draw(st.sampled_from([1, 8])) if strange == 0 else 0,
    )
