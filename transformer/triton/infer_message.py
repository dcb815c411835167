"""`ModelInferRequest` as bytes, whose tensors are copied once."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from transformer.triton.tensors import Content, from_elements

# Field number, and wire type 2: length-delimited.
_RAW_INPUT_TAG = bytes([service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2])
_PARAMETER_FIELDS: Mapping[type, str] = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def compose(
    model: tuple[str, str],
    *,
    request_id: str,
    outputs: Sequence[str] = (),
    classes: Mapping[str, int] = MappingProxyType({}),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """A `ModelInferRequest` without inputs.

    Args:
        model: name and version; version "" for the one that Triton serves.
        request_id: for Triton's log and trace.
        outputs: names of the wanted ones; all where there are none.
        classes: how many best classes of an output are wanted in its place.
        parameters: of Triton: booleans, numbers, strings.
    """
    name, version = model
    request = service_pb2.ModelInferRequest(model_name=name, model_version=version, id=request_id)
    for output in outputs:
        wanted = request.outputs.add(name=output)
        if output in classes:
            wanted.parameters["classification"].int64_param = classes[output]
    for key, value in parameters.items():
        setattr(request.parameters[key], _PARAMETER_FIELDS[type(value)], value)
    return request


def content(name: str, array: NDArray[Any]) -> Content:
    """An array as on the wire; numbers are not copied."""
    if array.dtype == np.object_:
        return from_elements(name, [text.encode() for text in array.flat]).data
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def encode(request: Any, contents: Sequence[Content]) -> bytes:
    """A `ModelInferRequest` with its `raw_input_contents`, which are copied once.

    A protobuf message followed by more of its fields is the message with those fields
    (https://protobuf.dev/programming-guides/encoding, "Last One Wins"): each is its tag, its length as a varint, and
    its bytes.
    """
    parts: list[Content] = [request.SerializeToString()]
    for tensor in contents:
        head = bytearray(_RAW_INPUT_TAG)
        length = len(tensor)
        while length >= 0x80:
            head.append(length & 0x7F | 0x80)
            length >>= 7
        head.append(length)
        parts += [bytes(head), tensor]
    return b"".join(parts)
