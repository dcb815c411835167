"""The v2 protocol's ModelInfer, whatever carried it: tensors in, tensors out, over the data plane.

The tensors say what a request is: a BYTES tensor `image` holds pictures, the input of a tabular model holds
rows (FP32 or FP64, whichever of them the model takes), and so do its inputs where each is a column; anything else goes
to Triton as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import orjson

from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane, ImageResult, TableResult
from transformer.errors import InvalidRequest, PayloadTooLarge, excerpt
from transformer.offload import FEW_PREDICTIONS, LITTLE_JSON_BYTES, run
from transformer.protocol import json_responses as replies
from transformer.protocol.base64_text import read_picture
from transformer.tasks import tabular
from transformer.triton.infer_options import Asked
from transformer.triton.model import Model, TensorMetadata
from transformer.triton.tensors import (
    DTYPES,
    Tensor,
    check,
    check_form,
    from_array,
    from_elements,
    item_size,
    to_array,
    to_elements,
)

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters")

LIMITS_REACHED = "limits_reached"  # parameter of a response
PICTURES = TensorMetadata("image", "BYTES", (-1,))
_ROW_DATATYPES = ("FP32", "FP64")
_COLUMN_DATATYPES = frozenset(DTYPES) - {"BOOL"}
_NO_CLASS = -1  # pads class_ids; 0 is a class

# What a client of Triton may say of any request, and Triton's scheduler reads.
_SCHEDULING = ("priority", "timeout")
# What MLServer's clients say of how their tensors were made, in every place that has parameters: of no use here.
_CODEC = "content_type"
CLASS_COUNTS = range(2**31)  # of best classes, in the classification extension; 0 is none
_MOST = 256  # inputs, outputs or parameters
_MANY_ELEMENTS = 10_000  # of BYTES are counted in a millisecond; more would hold up the event loop
_MOST_ELEMENTS = 2**20
_NOT_RAW = "Inference-Header-Content-Length over 0"
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class InferRequest:
    """What ModelInfer asks.

    Attributes:
        model: name of the model.
        version: a certain one, or "" for what serves.
        inputs: the tensors.
        deadline: when the answer is of no use any more.
        outputs: names of those that are wanted; all where there are none.
        classes: of outputs of the model itself that are wanted as so many best classes.
        parameters: of the request.
        query: parameters of a task in the URL, which the request's own go before; Triton reads none there.
    """

    model: str
    inputs: Sequence[Tensor]
    deadline: Deadline
    version: str = ""
    outputs: Sequence[str] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InferResponse:
    """What ModelInfer answers.

    Attributes:
        model: name of the model.
        version: the version that answered.
        outputs: the tensors, in the order they were asked for.
        parameters: of the response.
    """

    model: str
    version: str
    outputs: list[Tensor]
    parameters: Mapping[str, str] = field(default_factory=dict)


async def infer(dataplane: DataPlane, request: InferRequest) -> InferResponse:
    """Answer a request.

    Raises:
        ServingError: see `errors.py`.
    """
    for what in ("inputs", "outputs", "parameters"):
        if len(getattr(request, what)) > _MOST:
            raise InvalidRequest(f"{what}: got {len(getattr(request, what))}, expected at most {_MOST}")
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"inputs: got {names}, expected each name once")
    for tensor in request.inputs:
        check_form(tensor.name, tensor.datatype, tensor.shape)
        elements = math.prod(tensor.shape) if tensor.datatype == "BYTES" else 0
        if elements > _MOST_ELEMENTS:
            raise PayloadTooLarge(f"input {tensor.name!r}: {elements} elements are over the limit of {_MOST_ELEMENTS}")
        await run(partial(check, tensor), little=elements <= _MANY_ELEMENTS)
    model = await dataplane.model(request.model, request.version, request.deadline)
    request = _with_known_name(request, model)
    if _holds_rows(request, model):
        return await _infer_rows(dataplane, request, model)
    if _holds_pictures(request, model):
        return await _infer_pictures(dataplane, request, model)
    for tensor in request.inputs:
        if tensor.has_null:
            raise InvalidRequest(f"input {tensor.name!r}: data: got null; only the columns of a table may miss a value")
    return await _infer_tensors(dataplane, request)


def interface(model: Model) -> tuple[Sequence[TensorMetadata], Sequence[TensorMetadata]]:
    """The inputs and outputs that this server takes and gives for a model; its own where it has no task."""
    if model.task is None:
        return model.inputs, model.outputs
    if model.task == "tabular":
        values = TensorMetadata("values", "FP32", (-1,))
        columns = [TensorMetadata(tensor.name, tensor.datatype, (-1,)) for tensor in model.inputs]
        return columns if tabular.is_split(model) else model.inputs, [
            _texts("predictions"),
            *(_classes(model) if model.names else [values]),
        ]
    if model.task == "classify":
        return [PICTURES], [_texts("predictions"), *_classes(model)]
    return [PICTURES], [
        _texts("detections"),
        TensorMetadata("num_detections", "INT32", (-1,)),
        TensorMetadata("boxes", "FP32", (-1, -1, 4)),
        TensorMetadata("scores", "FP32", (-1, -1)),
        TensorMetadata("class_ids", "INT32", (-1, -1)),
    ]


async def read_raw_input(dataplane: DataPlane, name: str, version: str, data: bytes, deadline: Deadline) -> Tensor:
    """The only input of a model from nothing but its bytes: one encoded picture, or one item of the model's own.

    Its shape is what Triton makes of it (core's `InferenceRequest::Normalize`): a batch dimension of 1 where the model
    has one, and one free dimension by the number of bytes.

    Raises:
        InvalidRequest: the model has several inputs, or the bytes do not say its shape.
    """
    model = await dataplane.model(name, version, deadline)
    inputs, _ = interface(model)
    if len(inputs) != 1:
        raise InvalidRequest(f"{name} has {len(inputs)} inputs: expected {_NOT_RAW}")
    (only,) = inputs
    batched = model.is_batched or only is PICTURES
    batch, dims = ((1,), only.dims) if batched else ((), only.shape)
    if only.datatype == "BYTES":
        if any(size != 1 for size in dims):
            raise InvalidRequest(
                f"body: one element for input {only.name!r} BYTES {list(only.shape)}: expected {_NOT_RAW}"
            )
        return from_elements(only.name, [data], shape=(*batch, *dims))
    what = f"input {only.name!r} {only.datatype} {list(only.shape)}"
    free = dims.count(-1)
    if free > 1:
        raise InvalidRequest(f"body: {len(data)} bytes do not say the shape of {what}: expected {_NOT_RAW}")
    fixed = math.prod(size for size in dims if size >= 0) * item_size(only.datatype)
    count = len(data) // fixed if free and fixed else 1
    if count * fixed != len(data):
        expected = f"{'a multiple of ' if free else ''}{fixed} for one item"
        raise InvalidRequest(f"body: {len(data)} bytes for {what}: expected {expected}, or {_NOT_RAW}")
    return Tensor(only.name, only.datatype, (*batch, *(count if size < 0 else size for size in dims)), data)


def _with_known_name(request: InferRequest, model: Model) -> InferRequest:
    """The request with its input under the model's name, where a codec of MLServer has named it.

    What codes a request as one array or list calls it `input-1`: what such a request has is the first input, whatever
    its name.
    """
    if _CODEC not in request.parameters or len(request.inputs) != 1:
        return request
    (tensor,) = request.inputs
    inputs, _ = interface(model)
    if len(inputs) != 1 or tensor.name in {known.name for known in (*inputs, *model.inputs)}:
        return request
    return replace(request, inputs=[replace(tensor, name=inputs[0].name)])


def _holds_pictures(request: InferRequest, model: Model) -> bool:
    forms = [(tensor.name, tensor.datatype) for tensor in request.inputs]
    # Of a model for rows too: the data plane says what is wrong.
    return model.task is not None and forms == [(PICTURES.name, PICTURES.datatype)]


def _holds_rows(request: InferRequest, model: Model) -> bool:
    if model.task != "tabular" or {tensor.name for tensor in request.inputs} != {own.name for own in model.inputs}:
        return False
    ours = {output.name for output in interface(model)[1]}
    own = {output.name for output in model.outputs}
    # Who asks for what only the model has, asks the model.
    if request.classes or (set(request.outputs) - ours) & own:
        return False
    if not tabular.is_split(model):
        return request.inputs[0].datatype in _ROW_DATATYPES
    texts = {tensor.name: tensor.datatype == "BYTES" for tensor in model.inputs}
    return all(
        tensor.datatype == "BYTES" if texts[tensor.name] else tensor.datatype in _COLUMN_DATATYPES
        for tensor in request.inputs
    )


async def _infer_pictures(dataplane: DataPlane, request: InferRequest, model: Model) -> InferResponse:
    (tensor,) = request.inputs
    if math.prod(tensor.shape[1:]) != 1 or not tensor.shape:
        raise InvalidRequest(f"input 'image': shape: got {list(tensor.shape)}, expected [n], one element for a picture")
    if tensor.has_null:
        raise InvalidRequest("input 'image': data: got null, expected a picture for each element")
    _check_outputs(request, model)
    dataplane.check_count(math.prod(tensor.shape))
    read = partial(_read_base64, max_bytes=dataplane.max_image_bytes) if tensor.from_text else to_elements
    images = await run(lambda: read(tensor), little=not tensor.from_text or len(tensor.data) <= LITTLE_JSON_BYTES)
    results = await dataplane.infer_images(_asked(request), images)
    write = _write_detections if results[0].detections is not None else _write_classes
    little = sum(result.count for result in results) <= FEW_PREDICTIONS
    response = await _respond(request, results[0].model, write(results, _deadline(request)), little=little)
    reached = replies.limits_reached(results)
    return replace(response, parameters={LIMITS_REACHED: reached}) if reached else response


async def _infer_rows(dataplane: DataPlane, request: InferRequest, model: Model) -> InferResponse:
    _check_outputs(request, model)
    for tensor in request.inputs:
        if not tensor.shape:
            raise InvalidRequest(f"input {tensor.name!r}: shape: got [], expected {list(model.input.shape)}")
    little = sum(len(tensor.data) for tensor in request.inputs) <= LITTLE_JSON_BYTES
    result = await dataplane.infer_rows(_asked(request), await run(lambda: _read_rows(request, model), little=little))
    little = result.values.size <= FEW_PREDICTIONS
    return await _respond(request, result.model, _write_rows(result), little=little)


def _read_rows(request: InferRequest, model: Model) -> tabular.Rows:
    """The rows of a table, or each of its columns, in the model's order."""
    if not tabular.is_split(model):
        return to_array(request.inputs[0])
    given = {tensor.name: tensor for tensor in request.inputs}
    columns = {own.name: _read_column(given[own.name], model) for own in model.inputs}
    counts = {len(column) for column in columns.values()}
    if len(counts) != 1:
        lengths = ", ".join(f"{name!r} {len(column)}" for name, column in list(columns.items())[:5])
        raise InvalidRequest(f"inputs: got columns of different lengths ({lengths}), expected one value for each row")
    return columns


def _read_column(tensor: Tensor, model: Model) -> Any:
    if len(tensor.shape) > 2 or tensor.shape[1:] not in {(), (1,)}:
        raise InvalidRequest(f"input {tensor.name!r}: shape: got {list(tensor.shape)}, expected [n] or [n, 1]")
    if tensor.has_null and tensor.name not in model.missing:
        raise InvalidRequest(f"input {tensor.name!r}: data: got null; this model takes no missing value there")
    if tensor.datatype != "BYTES":
        return to_array(tensor).reshape(-1, 1).astype(DTYPES[_datatype(tensor.name, model)])
    try:
        texts = [element.decode() for element in to_elements(tensor)]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"input {tensor.name!r}: got bytes that are no UTF-8, expected strings") from exc
    return np.array(texts, np.object_).reshape(-1, 1)


def _datatype(name: str, model: Model) -> str:
    return next(tensor.datatype for tensor in model.inputs if tensor.name == name)


async def _infer_tensors(dataplane: DataPlane, request: InferRequest) -> InferResponse:
    for name, value in request.parameters.items():
        if not isinstance(value, bool | int | float | str) or (isinstance(value, int) and value not in _INT64):
            raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a boolean, a number or a string")
    try:
        asked = Asked(request.model, _deadline(request), request.version, request.parameters)
        outputs, version = await dataplane.infer_tensors(
            asked, request.inputs, outputs=request.outputs, classes=request.classes
        )
    except InvalidRequest as exc:
        model = await dataplane.model(request.model, request.version, request.deadline)
        ways = dict.fromkeys([_describe(*interface(model)), _describe(model.inputs, model.outputs)])
        raise InvalidRequest(f"{exc.args[0].rstrip('.')}; {model.name} takes {', or '.join(ways)}") from exc
    return InferResponse(request.model, version, outputs)


def _asked(request: InferRequest) -> Asked:
    """The request without its tensors; parameters of the task and of Triton's scheduler apart."""
    given = dict(request.query) | dict(request.parameters)
    scheduling = {name: request.parameters[name] for name in _SCHEDULING if name in request.parameters}
    for name, value in scheduling.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _INT64.stop:
            raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a whole number")
    parameters = {name: value for name, value in given.items() if name not in (*scheduling, _CODEC)}
    return Asked(request.model, _deadline(request), request.version, parameters, scheduling)


def _deadline(request: InferRequest) -> Deadline:
    """The request's own, or what its parameter `timeout` says, in microseconds as Triton reads it; 0 is none."""
    timeout_us = request.parameters.get("timeout")
    if isinstance(timeout_us, int) and not isinstance(timeout_us, bool) and timeout_us > 0:
        return request.deadline.sooner(timeout_us / 1e6)
    return request.deadline


def _describe(inputs: Sequence[TensorMetadata], outputs: Sequence[TensorMetadata]) -> str:
    taken = ", ".join(f"{tensor.name!r} {tensor.datatype} {list(tensor.shape)}" for tensor in inputs)
    return f"{taken} and gives {', '.join(tensor.name for tensor in outputs)}"


async def _respond(
    request: InferRequest, model: Model, write: Mapping[str, Callable[[], Tensor]], *, little: bool
) -> InferResponse:
    """The outputs that were asked for."""
    # Once more: the version that answered may give others than the one that was described before.
    _check_outputs(request, model)
    wanted = dict.fromkeys(request.outputs or write)
    outputs = await run(lambda: [write[name]() for name in wanted], little=little)
    return InferResponse(model.name, model.version, outputs)


def _check_outputs(request: InferRequest, model: Model) -> None:
    known = [output.name for output in interface(model)[1]]
    for name in request.outputs:
        if name not in known:
            raise InvalidRequest(
                f"output {name[:60]!r} is unknown; {model.name} gives {', '.join(known)} for this input"
            )
    if request.classes:
        raise InvalidRequest(
            f"output {min(request.classes)[:60]!r}: classification is of a model's own outputs; see {known[0]!r}"
        )


def _read_base64(tensor: Tensor, *, max_bytes: int) -> list[bytes]:
    return [
        read_picture(element, what=f"input {tensor.name!r}: element {index}", max_bytes=max_bytes)
        for index, element in enumerate(to_elements(tensor))
    ]


def _write_detections(results: Sequence[ImageResult], deadline: Deadline) -> dict[str, Callable[[], Tensor]]:
    found = [result.detections for result in results if result.detections is not None]
    longest = max(len(detections.scores) for detections in found)

    def padded(name: str, rows: Sequence[Any], dtype: Any, tail: tuple[int, ...] = (), fill: int = 0) -> Tensor:
        table = np.full((len(rows), longest, *tail), fill, dtype)
        for index, row in enumerate(rows):
            table[index, : len(row)] = row
        return from_array(name, table)

    return {
        "detections": lambda: from_elements("detections", replies.image_texts(results, deadline)),
        "num_detections": lambda: from_array("num_detections", np.array([len(d.scores) for d in found], np.int32)),
        "boxes": lambda: padded("boxes", [d.boxes_xyxy for d in found], np.float32, tail=(4,)),
        "scores": lambda: padded("scores", [d.scores for d in found], np.float32),
        "class_ids": lambda: padded("class_ids", [d.class_ids for d in found], np.int32, fill=_NO_CLASS),
    }


def _write_classes(results: Sequence[ImageResult], deadline: Deadline) -> dict[str, Callable[[], Tensor]]:
    probabilities = np.stack([result.probabilities for result in results if result.probabilities is not None])
    return {
        "predictions": lambda: from_elements("predictions", replies.image_texts(results, deadline)),
        **_write_probabilities(probabilities),
    }


def _write_rows(result: TableResult) -> dict[str, Callable[[], Tensor]]:
    values = {"values": lambda: from_array("values", result.values[:, 0])}
    return {
        "predictions": lambda: from_elements("predictions", list(map(orjson.dumps, replies.row_predictions(result)))),
        **(_write_probabilities(result.values) if result.model.names else values),
    }


def _write_probabilities(probabilities: Any) -> dict[str, Callable[[], Tensor]]:
    return {
        "probabilities": lambda: from_array("probabilities", probabilities),
        "class_id": lambda: from_array("class_id", probabilities.argmax(axis=1).astype(np.int32)),
    }


def _texts(name: str) -> TensorMetadata:
    return TensorMetadata(name, "BYTES", (-1,))


def _classes(model: Model) -> list[TensorMetadata]:
    return [
        TensorMetadata("probabilities", "FP32", (-1, model.classes)),
        TensorMetadata("class_id", "INT32", (-1,)),
    ]
