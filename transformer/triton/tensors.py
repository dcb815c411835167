"""Tensors of the v2 protocol as they lie on the wire: bytes, whatever brought them.

https://github.com/kserve/open-inference-protocol: numbers little-endian and row-major; a BYTES element is its length
as four bytes, little-endian, and then itself.
"""

import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transformer.errors import InvalidRequest

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_BF16_BYTES = 2  # NumPy has no such type: it is only passed on
LARGEST_DIMENSION = 2**63 - 1  # INT64 in the protocol
MOST_DIMENSIONS = 64  # NumPy's limit; the product of more would take long
_MOST_ELEMENTS = 2**40  # a thousand times what any limit lets through
LONGEST_NAME = 255
_LENGTH = struct.Struct("<I")


Content = bytes | memoryview


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request or of a response.

    Attributes:
        name: as the protocol carries it.
        datatype: `BYTES`, `BF16` or one of `DTYPES`.
        shape: with the batch dimension.
        data: as on the wire; part of a larger buffer where it is a view.
        from_text: a BYTES tensor whose elements were JSON strings; an image in one is base64.
        has_null: some elements were null in JSON: they are NaN here, or empty.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Content
    from_text: bool = False
    has_null: bool = False


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name for what an array holds: numbers, or strings as objects."""
    return "BYTES" if array.dtype == np.object_ else _DATATYPES[array.dtype.newbyteorder("<")]


def item_size(datatype: str) -> int:
    """Bytes of a number."""
    return _BF16_BYTES if datatype == "BF16" else DTYPES[datatype].itemsize


def check(tensor: Tensor) -> None:
    """Check that a client's tensor is consistent.

    Raises:
        InvalidRequest: as `check_form`, or more or fewer bytes than datatype and shape need.
    """
    check_form(tensor.name, tensor.datatype, tensor.shape)
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        # One more is enough to know: there can be many in few bytes.
        found = sum(1 for _ in itertools.islice(spans(tensor), min(count, len(tensor.data)) + 1))
        if found != count:
            got = "more" if found > count else found
            raise InvalidRequest(f"input {tensor.name!r}: got {got} elements, expected {count} for {_form(tensor)}")
        return
    item_bytes = item_size(tensor.datatype)
    if len(tensor.data) != count * item_bytes:
        got = f"{len(tensor.data) / item_bytes:g} elements ({len(tensor.data)} bytes)"
        raise InvalidRequest(f"input {tensor.name!r}: got {got}, expected {count} for {_form(tensor)}")


def check_form(name: str, datatype: str, shape: Sequence[int]) -> None:
    """Reject a datatype or a shape that no data can have.

    Raises:
        InvalidRequest: either of them is invalid.
    """
    if datatype not in DTYPES and datatype not in {"BYTES", "BF16"}:
        known = ", ".join((*DTYPES, "BF16", "BYTES"))
        raise InvalidRequest(f"input {name!r}: datatype: got {datatype[:60]!r}, expected one of {known}")
    if len(name) > LONGEST_NAME:
        raise InvalidRequest(
            f"input {name[:60]!r}...: got a name of {len(name)} characters, expected at most {LONGEST_NAME}"
        )
    if len(shape) > MOST_DIMENSIONS:
        raise InvalidRequest(f"input {name!r}: shape: got {len(shape)} dimensions, expected at most {MOST_DIMENSIONS}")
    if not all(0 <= size <= LARGEST_DIMENSION for size in shape):
        raise InvalidRequest(f"input {name!r}: shape: got {list(shape)}, expected dimensions of 0 and more")
    # Also where one dimension is 0, and so there are none: NumPy has no such array.
    if math.prod(size for size in shape if size) > _MOST_ELEMENTS:
        raise InvalidRequest(f"input {name!r}: shape: got {list(shape)}, expected at most {_MOST_ELEMENTS} elements")


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A view of a numeric tensor that was checked; not writable."""
    return np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape)


def from_array(name: str, array: NDArray[Any]) -> Tensor:
    """An array as a tensor: numbers, or bytes as objects."""
    if array.dtype == np.object_:
        return from_elements(name, array.reshape(-1), shape=array.shape)
    return Tensor(name, datatype_of(array), array.shape, array.tobytes())


def to_elements(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        InvalidRequest: the lengths in it do not fit its bytes.
    """
    return [bytes(tensor.data[start:end]) for start, end in spans(tensor)]


def from_elements(
    name: str, elements: Iterable[bytes], *, shape: Sequence[int] | None = None, from_text: bool = False
) -> Tensor:
    """A BYTES tensor; one dimension where no shape is given."""
    parts: list[bytes] = []
    for element in elements:
        parts += (_LENGTH.pack(len(element)), element)
    lengths = (len(parts) // 2,) if shape is None else tuple(shape)
    return Tensor(name, "BYTES", lengths, b"".join(parts), from_text)


def _form(tensor: Tensor) -> str:
    return f"{tensor.datatype} {list(tensor.shape)}"


def spans(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Start and end of each element of a BYTES tensor, behind its length.

    Raises:
        InvalidRequest: the lengths do not fit the bytes.
    """
    data, at = tensor.data, 0
    while at < len(data):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        if end > len(data):
            raise InvalidRequest(
                f"input {tensor.name!r}: element {at} of the BYTES ends at byte {end}, but there are {len(data)};"
                " expected each element behind its length (4 bytes, little-endian)"
            )
        yield start, end
        at = end
