"""v2 requests and responses over gRPC, with raw or typed contents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from transformer.admission import Deadline
from transformer.errors import InvalidRequest, excerpt
from transformer.protocol.v2_messages import CLASS_COUNTS, InferRequest, InferResponse
from transformer.triton.tensors import DTYPES, Tensor, check_form, from_elements, to_array, to_elements

# Field of InferTensorContents for each datatype. FP16 and BF16 have none: they are raw.
_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_CLASSES = "classification"


def read_request(message: Any, deadline: Deadline) -> InferRequest:
    """Parse a `ModelInferRequest`.

    Raises:
        InvalidRequest: contents are missing, doubled, or do not fit their datatype.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"raw_input_contents: got {len(raw)}, expected one for each of {len(message.inputs)} inputs"
        )
    for entry in (*message.inputs, *message.outputs):
        if any(key.startswith("shared_memory_") for key in entry.parameters):
            raise InvalidRequest(f"{entry.name[:60]!r}: shared memory is not supported; expected contents")
    return InferRequest(
        message.model_name,
        [_read_raw(entry, raw[index]) if raw else _read_typed(entry) for index, entry in enumerate(message.inputs)],
        deadline,
        version=message.model_version,
        outputs=[output.name for output in message.outputs],
        classes=dict(_read_classes(output) for output in message.outputs if _CLASSES in output.parameters),
        parameters={key: _value(parameter) for key, parameter in message.parameters.items()},
    )


def write_response(response: InferResponse, message: Any) -> Any:
    """A `ModelInferResponse`: raw, or typed where the request was and every output has such a form."""
    typed = not message.raw_input_contents and all(tensor.datatype in _FIELDS for tensor in response.outputs)
    result = service_pb2.ModelInferResponse(model_name=response.model, model_version=response.version, id=message.id)
    for name, value in response.parameters.items():
        result.parameters[name].string_param = value
    for tensor in response.outputs:
        output = result.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not typed:
            result.raw_output_contents.append(tensor.data)
        elif tensor.datatype == "BYTES":
            output.contents.bytes_contents.extend(to_elements(tensor))
        else:
            getattr(output.contents, _FIELDS[tensor.datatype]).extend(to_array(tensor).reshape(-1).tolist())
    return result


def _read_raw(entry: Any, data: bytes) -> Tensor:
    if entry.HasField("contents"):
        raise InvalidRequest(f"input {entry.name[:60]!r}: got contents and raw_input_contents, expected one of them")
    return Tensor(entry.name, entry.datatype, tuple(entry.shape), data)


def _read_typed(entry: Any) -> Tensor:
    check_form(entry.name, entry.datatype, entry.shape)
    what = f"input {entry.name[:60]!r}"
    if entry.datatype not in _FIELDS:
        raise InvalidRequest(f"{what}: {entry.datatype} has no typed contents; expected raw_input_contents")
    field = _FIELDS[entry.datatype]
    others = [other.name for other, _ in entry.contents.ListFields() if other.name != field]
    if others:
        raise InvalidRequest(f"{what}: got {others[0]}, expected {field} for {entry.datatype}")
    values = getattr(entry.contents, field)
    if entry.datatype == "BYTES":
        return from_elements(entry.name, values, shape=entry.shape)
    try:
        array = np.array(values, DTYPES[entry.datatype])
    except OverflowError as exc:
        raise InvalidRequest(f"{what}: expected numbers that fit {entry.datatype}") from exc
    return Tensor(entry.name, entry.datatype, tuple(entry.shape), array.tobytes())


def _read_classes(output: Any) -> tuple[str, int]:
    """Name of an output, and the requested number of its best classes; Triton ignores any other member."""
    count = _value(output.parameters[_CLASSES])
    if not isinstance(count, int) or isinstance(count, bool) or not count or count not in CLASS_COUNTS:
        got = f"{output.name[:60]!r}: classification: got {excerpt(count)}"
        raise InvalidRequest(f"output {got}, expected how many of the best classes")
    return output.name, count


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None
