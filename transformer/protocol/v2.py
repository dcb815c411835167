"""The v2 protocol's ModelInfer, whatever the transport: tensors in, tensors out, over the data plane.

What a request holds follows from its tensors:

    BYTES `image`                                          images
    the input of a rows model, or one input per column     rows, FP32 or FP64, whichever the model takes
    anything else                                          goes to Triton unchanged
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from transformer.admission import Deadline, hold
from transformer.dataplane.dataplane import DataPlane
from transformer.errors import InvalidRequest, PayloadTooLarge, excerpt
from transformer.offload import ELEMENT, offload
from transformer.protocol import json_responses, v2_second_step
from transformer.protocol.base64_text import read_image
from transformer.protocol.v2_messages import InferRequest, InferResponse
from transformer.protocol.v2_rows import holds_rows, read_rows
from transformer.tasks import interface, rows_task, task_of
from transformer.tasks.task import IMAGES, RowsTask, Write
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model, TensorMetadata
from transformer.triton.tensors import Tensor, check, check_form, from_array, from_elements, to_elements

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters")

LIMITS_REACHED = "limits_reached"  # parameter of a response

# Parameters that a client of Triton may add to any request, for Triton's scheduler.
_SCHEDULING = ("priority", "timeout")
# Parameter that MLServer's clients add wherever there are parameters: how a tensor was made. Ignored here.
_CODEC = "content_type"
MAX_ENTRIES = 256  # inputs, outputs or parameters
_MAX_ELEMENTS = 2**20
_INT64 = range(-(2**63), 2**63)


async def infer(dataplane: DataPlane, request: InferRequest) -> InferResponse:
    """Run a request.

    Raises:
        ServingError: see `errors.py`.
    """
    await _check_inputs(request)
    model = await dataplane.model(request.model, request.version, request.deadline)
    request = _with_known_name(request, model)
    task = task_of(model)
    if isinstance(task, RowsTask) and holds_rows(request, model, task):
        return await _infer_rows(dataplane, request, model)
    # Also for a model of rows: the data plane reports what is wrong.
    if task and [(tensor.name, tensor.datatype) for tensor in request.inputs] == [(IMAGES.name, IMAGES.datatype)]:
        return await _infer_images(dataplane, request, model)
    for tensor in request.inputs:
        if tensor.has_null:
            raise InvalidRequest(f"input {tensor.name!r}: data: got null; only the columns of a table may miss a value")
    return await _infer_tensors(dataplane, request, model)


async def _check_inputs(request: InferRequest) -> None:
    for what in ("inputs", "outputs", "parameters"):
        if len(getattr(request, what)) > MAX_ENTRIES:
            raise InvalidRequest(f"{what}: got {len(getattr(request, what))}, expected at most {MAX_ENTRIES}")
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"inputs: got {names}, expected each name once")
    for tensor in request.inputs:
        check_form(tensor.name, tensor.datatype, tensor.shape)
        elements = math.prod(tensor.shape) if tensor.datatype == "BYTES" else 0
        if elements > _MAX_ELEMENTS:
            raise PayloadTooLarge(f"input {tensor.name!r}: {elements} elements are over the limit of {_MAX_ELEMENTS}")
        await offload(partial(check, tensor), cost=elements * ELEMENT)


def _with_known_name(request: InferRequest, model: Model) -> InferRequest:
    """The request with its input under the model's name, where a codec of MLServer has named it.

    A codec that makes a request of one array or list calls it `input-1`: the first input is meant, whatever its name.
    """
    if _CODEC not in request.parameters or len(request.inputs) != 1:
        return request
    (tensor,) = request.inputs
    inputs, _ = interface(model)
    if len(inputs) != 1 or tensor.name in {known.name for known in (*inputs, *model.inputs)}:
        return request
    return replace(request, inputs=[replace(tensor, name=inputs[0].name)])


async def _infer_images(dataplane: DataPlane, request: InferRequest, model: Model) -> InferResponse:
    (tensor,) = request.inputs
    if math.prod(tensor.shape[1:]) != 1 or not tensor.shape:
        raise InvalidRequest(f"input 'image': shape: got {list(tensor.shape)}, expected [n], one element an image")
    if tensor.has_null:
        raise InvalidRequest("input 'image': data: got null, expected an image in each element")
    _check_outputs(request, model)
    dataplane.check_count(math.prod(tensor.shape))
    read = partial(_read_base64, max_bytes=dataplane.max_image_bytes) if tensor.from_text else to_elements
    images = await offload(partial(read, tensor), cost=len(tensor.data) if tensor.from_text else 0)
    results = await dataplane.infer_images(model, _options(request), images)
    predictions, model = [result.prediction for result in results], results[0].model
    response = await _respond(
        request,
        model,
        partial(json_responses.image_texts, results, _deadline(request)),
        {**predictions[0].to_tensors(predictions, model), **v2_second_step.to_tensors(results)},
        cost=json_responses.cost(results),
    )
    hold(sum(len(output.data) for output in response.outputs))  # maps of many images are large, rows are not
    reached = json_responses.limits_reached(results)
    limits = {LIMITS_REACHED: reached} if reached else {}
    return replace(response, parameters={**limits, **v2_second_step.to_parameters(results)})


async def _infer_rows(dataplane: DataPlane, request: InferRequest, model: Model) -> InferResponse:
    _check_outputs(request, model)
    cost = sum(len(tensor.data) for tensor in request.inputs)
    rows = await offload(partial(read_rows, request, model, rows_task(model)), cost=cost)
    result = await dataplane.infer_rows(model, _options(request), rows)
    return await _respond(
        request,
        result.model,
        lambda: list(map(orjson.dumps, result.prediction.to_json(result.model))),
        result.prediction.to_tensors(result.model),
        cost=json_responses.cost([result]),
    )


async def _infer_tensors(dataplane: DataPlane, request: InferRequest, model: Model) -> InferResponse:
    for name, value in request.parameters.items():
        if not isinstance(value, bool | int | float | str) or (isinstance(value, int) and value not in _INT64):
            raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a boolean, a number or a string")
    options = InferOptions(_deadline(request), request.version, request.parameters)
    try:
        outputs, version = await dataplane.infer_tensors(
            model, options, request.inputs, outputs=request.outputs, classes=request.classes
        )
    except InvalidRequest as exc:
        model = await dataplane.model(request.model, request.version, request.deadline)
        ways = dict.fromkeys([_describe(*interface(model)), _describe(model.inputs, model.outputs)])
        raise InvalidRequest(f"{exc.args[0].rstrip('.')}; {model.name} takes {', or '.join(ways)}") from exc
    return InferResponse(request.model, version, outputs)


def _options(request: InferRequest) -> InferOptions:
    """Everything but the tensors; parameters of the task are separated from those of Triton's scheduler."""
    given = dict(request.query) | dict(request.parameters)
    scheduling = {name: request.parameters[name] for name in _SCHEDULING if name in request.parameters}
    for name, value in scheduling.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _INT64.stop:
            raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a whole number")
    parameters = {name: value for name, value in given.items() if name not in (*scheduling, _CODEC)}
    return InferOptions(_deadline(request), request.version, parameters, scheduling)


def _deadline(request: InferRequest) -> Deadline:
    """The earlier one of the request's and of its parameter `timeout`, in microseconds as in Triton; 0 is none."""
    timeout_us = request.parameters.get("timeout")
    if isinstance(timeout_us, int) and not isinstance(timeout_us, bool) and timeout_us > 0:
        return request.deadline.sooner(timeout_us / 1e6)
    return request.deadline


def _describe(inputs: Sequence[TensorMetadata], outputs: Sequence[TensorMetadata]) -> str:
    taken = ", ".join(f"{tensor.name!r} {tensor.datatype} {list(tensor.shape)}" for tensor in inputs)
    return f"{taken} and gives {', '.join(tensor.name for tensor in outputs)}"


async def _respond(
    request: InferRequest,
    model: Model,
    write_json: Callable[[], list[bytes]],
    write: Mapping[str, Write],
    *,
    cost: float,
) -> InferResponse:
    """The wanted outputs; the JSON of each item is one of them."""
    # Checked again: the version that responded may have other outputs than the one that was described before.
    _check_outputs(request, model)
    known = _output_names(request, model)
    writers = {known[0]: write_json, **write}
    wanted = dict.fromkeys(request.outputs or known)
    outputs = await offload(lambda: [_tensor(name, writers[name]()) for name in wanted], cost=cost)
    return InferResponse(model.name, model.version, outputs)


def _tensor(name: str, values: Any) -> Tensor:
    return from_elements(name, values) if isinstance(values, list) else from_array(name, values)


def _output_names(request: InferRequest, model: Model) -> list[str]:
    """Outputs for items, the JSON of each item first."""
    then = v2_second_step.OUTPUTS if "then" in {**request.query, **request.parameters} else ()
    return [output.name for output in (*interface(model)[1], *then)]


def _check_outputs(request: InferRequest, model: Model) -> None:
    known = _output_names(request, model)
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
        read_image(element, what=f"input {tensor.name!r}: element {index}", max_bytes=max_bytes)
        for index, element in enumerate(to_elements(tensor))
    ]
