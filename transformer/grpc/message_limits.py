"""Limits on the number of fields and values of a message, checked before protobuf makes objects of them.

Two bytes can become an object of 500 bytes: without a limit a message of 65 MB needs more memory than a machine has,
and while protobuf parses, nothing else runs. protobuf has no such limit (SECURITY.md), so its wire format is read here.

https://protobuf.dev/programming-guides/encoding: a field is a tag (number << 3 | wire type), and then a varint, four or
eight bytes, or a length and so many bytes.
"""

from typing import Any

from google.protobuf.descriptor import Descriptor

from transformer.errors import InvalidRequest, PayloadTooLarge

_MAX_FIELDS = 20_000
_MAX_NUMBERS_BYTES = 2**22  # a million FP32, as many numbers as JSON may have

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def check_message(data: bytes, descriptor: Descriptor) -> None:
    """Reject a message of too many fields or numbers.

    Args:
        data: the serialized message.
        descriptor: of its type.

    Raises:
        PayloadTooLarge: it holds too many; the contents of raw tensors count as one field each.
        InvalidRequest: it is not a message.
    """
    _Walk(data).fields(0, len(data), descriptor)


class _Walk:
    """Walks over a message field by field, and counts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0
        self._numbers_bytes = 0

    def fields(self, at: int, end: int, descriptor: Any) -> None:
        while at < end:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise PayloadTooLarge(f"message: more than {_MAX_FIELDS} fields; expected raw_input_contents")
            tag, at = self._varint(at, end)
            wire_type, length = tag & 7, 0
            if wire_type == _VARINT:
                _, at = self._varint(at, end)
            elif wire_type == _LENGTH:
                length, at = self._varint(at, end)
            elif wire_type in {_EIGHT_BYTES, _FOUR_BYTES}:
                length = 8 if wire_type == _EIGHT_BYTES else 4
            else:
                raise InvalidRequest(f"message: wire type {wire_type} at byte {at}, expected a message of the protocol")
            if length > end - at:
                raise InvalidRequest(f"message: a field of {length} bytes at byte {at}, but {end - at} are left")
            field = descriptor.fields_by_number.get(tag >> 3)
            if field is not None and wire_type == _LENGTH:
                self._content(field, at, length)
            at += length

    def _content(self, field: Any, at: int, length: int) -> None:
        if field.message_type:
            self.fields(at, at + length, field.message_type)
        elif field.is_packed:
            self._numbers_bytes += length
            if self._numbers_bytes > _MAX_NUMBERS_BYTES:
                raise PayloadTooLarge(
                    f"message: more than {_MAX_NUMBERS_BYTES} bytes of typed numbers; expected raw_input_contents"
                )

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(min(_MAX_VARINT_BYTES, end - at)):
            byte = self._data[at + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, at + index + 1
        raise InvalidRequest(f"message: a broken number at byte {at}, expected a message of the protocol")
