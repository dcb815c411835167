"""v2 requests and responses over HTTP: JSON, with the binary tensor data extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md: a tensor with
`binary_data_size` has its bytes behind the JSON, in the order of the tensors; `Inference-Header-Content-Length` says
how long the JSON is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from transformer.errors import InvalidRequest, excerpt
from transformer.protocol.v2_messages import CLASS_COUNTS, InferResponse
from transformer.rest.json_body import read_json
from transformer.triton.tensors import DTYPES, Content, Tensor, check_form, from_elements, to_array, to_elements

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Document:
    """The JSON of a request, read.

    Attributes:
        id: of the request, or "".
        inputs: its tensors.
        outputs: names of the requested outputs, and whether each is binary data; None: like the others.
        classes: number of best classes by output: Triton's classification extension.
        parameters: of the request, without those about the encoding.
        binary: whether outputs are binary data by default.
    """

    id: str = ""
    inputs: Sequence[Tensor] = ()
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False


def read_header_length(value: str | None, body: bytes) -> int:
    """Length of the JSON; of the whole body if the header is absent.

    Raises:
        InvalidRequest: the header is not a length within the body.
    """
    if value is None:
        return len(body)
    if not value.isascii() or not value.isdecimal() or len(value) > 15 or int(value) > len(body):
        raise InvalidRequest(f"{HEADER_LENGTH}: got {value[:60]!r}, expected a number from 0 to {len(body)}, the body")
    return int(value)


def read_document(body: bytes, header_length: int) -> Document:
    """Parse a request; a member that is null counts as absent.

    Raises:
        InvalidRequest: it violates the protocol.
        PayloadTooLarge: the JSON has too many values.
    """
    document = read_json(body[:header_length])
    if not isinstance(document, dict):
        raise InvalidRequest(f"body: got {_name(document)}, expected an object with 'inputs'")
    parameters = _get_parameters(document, "request")
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidRequest(f"parameter 'binary_data_output': got {_name(binary)}, expected a boolean")
    blobs = _Blobs(body, header_length)
    inputs = [_read_input(entry, index, blobs) for index, entry in enumerate(_get(document, "inputs", list, "request"))]
    blobs.close()
    outputs = [
        _read_output(entry, index) for index, entry in enumerate(_get(document, "outputs", list, "request", default=[]))
    ]
    return Document(
        id=_get(document, "id", str, "request", default=""),
        inputs=inputs,
        outputs={name: binary for name, binary, _ in outputs},
        classes={name: count for name, _, count in outputs if count},
        parameters=parameters,
        binary=binary,
    )


def write_response(response: InferResponse, document: Document) -> tuple[bytes, int | None]:
    """The body of a response, and the length of the JSON in it; None if all of it is JSON.

    Raises:
        InvalidRequest: a requested tensor cannot be written as JSON.
    """
    outputs, blobs = [], []
    for tensor in response.outputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        binary = document.outputs.get(tensor.name)
        if document.binary if binary is None else binary:
            entry["parameters"] = {"binary_data_size": len(tensor.data)}
            blobs.append(tensor.data)
        else:
            entry["data"] = _to_json(tensor)
        outputs.append(entry)
    head: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.parameters:
        head["parameters"] = response.parameters
    if document.id:
        head["id"] = document.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


class _Blobs:
    """The binary data after the JSON, consumed from its beginning."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start

    def take(self, size: int, name: str) -> Content:
        left = len(self._body) - self._at
        if size > left:
            raise InvalidRequest(f"input {name!r}: binary_data_size: got {size}, but {left} bytes are left in the body")
        self._at += size
        return memoryview(self._body)[self._at - size : self._at]

    def close(self) -> None:
        left = len(self._body) - self._at
        if left:
            raise InvalidRequest(f"body: {left} bytes after the last tensor; expected none")


def _read_input(entry: Any, index: int, blobs: _Blobs) -> Tensor:
    name = _get(entry, "name", str, f"input {index}")
    what = f"input {name[:60]!r}"
    datatype, shape = _get(entry, "datatype", str, what), _get(entry, "shape", list, what)
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in shape):
        raise InvalidRequest(f"{what}: shape: got {excerpt(shape)}, expected whole numbers")
    check_form(name, datatype, shape)
    parameters = _get_parameters(entry, what)
    _check_no_shared_memory(parameters, what, "'data' or 'binary_data_size'")
    has_data = entry.get("data") is not None
    if has_data == ("binary_data_size" in parameters):
        raise InvalidRequest(f"{what}: expected either 'data' or the parameter 'binary_data_size'")
    if has_data:
        return _from_json(name, datatype, shape, _get_data(entry, datatype, what))
    size = parameters["binary_data_size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidRequest(f"{what}: binary_data_size: got {excerpt(size)}, expected a number of bytes")
    return Tensor(name, datatype, tuple(shape), blobs.take(size, name))


def _read_output(entry: Any, index: int) -> tuple[str, bool | None, int]:
    """Name, whether it comes as binary data, and how many best classes; Triton ignores any other member."""
    name = _get(entry, "name", str, f"output {index}")
    what = f"output {name[:60]!r}"
    parameters = _get_parameters(entry, what)
    _check_no_shared_memory(parameters, what, "it in the response")
    binary, classes = parameters.get("binary_data"), parameters.get("classification", 0)
    if not isinstance(binary, bool | None):
        raise InvalidRequest(f"{what}: binary_data: got {_name(binary)}, expected a boolean")
    if not isinstance(classes, int) or isinstance(classes, bool) or classes not in CLASS_COUNTS:
        raise InvalidRequest(f"{what}: classification: got {excerpt(classes)}, expected how many of the best classes")
    return name, binary, classes


def _check_no_shared_memory(parameters: Mapping[str, Any], what: str, expected: str) -> None:
    if any(key.startswith("shared_memory_") for key in parameters):
        raise InvalidRequest(f"{what}: shared memory is not supported; expected {expected}")


def _get_data(entry: Any, datatype: str, what: str) -> list[Any]:
    """The elements; a single string counts as a list of one, as in MLServer."""
    if datatype == "BYTES" and isinstance(entry["data"], str):
        return [entry["data"]]
    return list(_get(entry, "data", list, what))


def _from_json(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    """A tensor from JSON, flat or nested."""
    what = f"input {name[:60]!r}: data"
    if datatype == "BYTES":
        elements = list(_flatten(data))
        others = [element for element in elements if not isinstance(element, str | None)]
        if others:
            raise InvalidRequest(f"{what}: got {excerpt(others[0])}, expected strings for BYTES; base64 for an image")
        texts = from_elements(name, [(element or "").encode() for element in elements], shape=shape, from_text=True)
        return replace(texts, has_null=None in elements)
    if datatype not in DTYPES:
        raise InvalidRequest(f"{what}: {datatype} cannot be JSON; expected binary data")
    dtype = DTYPES[datatype]
    values = list(_flatten(data))
    # Whether the model takes missing values is checked later; an integer cannot be missing.
    has_null = dtype.kind == "f" and None in values
    if has_null:
        missing = [value is None for value in values]
        values = [0.0 if value is None else value for value in values]
    # Before NumPy converts them: it accepts "1" and true as numbers, and gives each the size of the longest string.
    if not set(map(type, values)) <= _TYPES[dtype.kind]:
        other = next(value for value in values if type(value) not in _TYPES[dtype.kind])
        raise InvalidRequest(f"{what}: got {excerpt(other)}, expected only {_WORDS[dtype.kind]} for {datatype}")
    try:
        array = _convert(values, dtype)
    except OverflowError as exc:
        raise InvalidRequest(f"{what}: expected numbers that fit {datatype}") from exc
    if has_null:
        array[missing] = np.nan
    return Tensor(name, datatype, tuple(shape), array.tobytes(), has_null=has_null)


_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}  # by NumPy's kind
_WORDS = {"b": "true and false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


def _convert(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as an array; OverflowError if one does not fit (NumPy converts a large float to infinity)."""
    if dtype.kind != "f":
        return np.array(values, dtype)
    with np.errstate(over="ignore"):
        given = np.array(values, np.float64)
        array = given.astype(dtype)
    if not np.array_equal(np.isfinite(array), np.isfinite(given)):
        raise OverflowError
    return array


def _to_json(tensor: Tensor) -> Any:
    """Elements in row-major order; NaN and infinity become null, because JSON lacks them."""
    if tensor.datatype == "BYTES":
        try:
            return [element.decode() for element in to_elements(tensor)]
        except UnicodeDecodeError as exc:
            raise InvalidRequest(f"output {tensor.name!r} is not text; expected binary_data for it") from exc
    if tensor.datatype not in DTYPES:
        raise InvalidRequest(f"output {tensor.name!r}: {tensor.datatype} cannot be JSON; expected binary_data")
    return to_array(tensor).reshape(-1)


def _flatten(data: list[Any]) -> Iterator[Any]:
    """The leaves of nested lists of any depth."""
    levels = [iter(data)]
    while levels:
        for entry in levels[-1]:
            if isinstance(entry, list):
                levels.append(iter(entry))
                break
            yield entry
        else:
            levels.pop()


def _get(document: Any, key: str, kind: type, what: str, *, default: Any = None) -> Any:
    if not isinstance(document, dict):
        raise InvalidRequest(f"{what}: got {_name(document)}, expected an object")
    value = default if document.get(key) is None else document[key]
    if not isinstance(value, kind):
        got = _name(document[key]) if key in document else "none"
        raise InvalidRequest(f"{what}: {key}: got {got}, expected {_KIND_NAMES[kind]}")
    return value


def _get_parameters(document: Any, what: str) -> dict[str, Any]:
    parameters = _get(document, "parameters", dict, what, default={})
    return {name: value for name, value in parameters.items() if value is not None}


_KIND_NAMES: Mapping[type, str] = {dict: "an object", list: "a list", str: "a string"}


def _name(value: Any) -> str:
    return {**_KIND_NAMES, bool: "a boolean", type(None): "null"}.get(type(value), "a number")
