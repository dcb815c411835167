"""Compares the tensors of an OpenVINO model with those of its `config.pbtxt`.

Accepts, converts and completes what the C++ backend does (triton-inference-server/openvino_backend: `ValidateInputs`,
`ValidateOutputs`, `CompareDimsSupported`, `AutoCompleteConfig`); the messages are ours. "Config" is Triton's
ModelConfig as JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openvino
from openvino import layout_helpers
from openvino.preprocess import PrePostProcessor

from predictor.backends.errors import ModelRejectedError
from predictor.backends.signature import DEFAULT_MAX_BATCH_SIZE, read_dims

_TYPES = {
    "TYPE_BOOL": openvino.Type.boolean,
    "TYPE_UINT8": openvino.Type.u8,
    "TYPE_UINT16": openvino.Type.u16,
    "TYPE_UINT32": openvino.Type.u32,
    "TYPE_UINT64": openvino.Type.u64,
    "TYPE_INT8": openvino.Type.i8,
    "TYPE_INT16": openvino.Type.i16,
    "TYPE_INT32": openvino.Type.i32,
    "TYPE_INT64": openvino.Type.i64,
    "TYPE_FP16": openvino.Type.f16,
    "TYPE_FP32": openvino.Type.f32,
}
_DATATYPES = {element.get_type_name(): datatype for datatype, element in _TYPES.items()}


def configure(model: Any, config: Mapping[str, Any], *, reshapes: bool, any_batch: bool = False) -> Any:
    """Return the model with the datatypes of its config, and a fixed batch size.

    Args:
        model: `openvino.Model`; it is changed.
        config: ModelConfig.
        reshapes: Whether inputs get the dims of the config, in place of their own.
        any_batch: Whether the batch size stays variable: the embedded backend's alone.

    Raises:
        ModelRejectedError: a name, a datatype or dims do not fit.
    """
    inputs = {tensor.get_any_name(): tensor for tensor in model.inputs}
    if len(inputs) != len(config["input"]):
        raise ModelRejectedError(
            f"the configuration has {len(config['input'])} inputs, the model takes {len(inputs)}: {', '.join(inputs)}"
        )
    before = PrePostProcessor(model)
    for io in config["input"]:
        tensor = _find(inputs, io["name"])
        adapter = before.input(io["name"]).tensor()
        adapter.set_element_type(_read_type(io))
        if reshapes:
            first = list(tensor.get_partial_shape())[: 1 if config["max_batch_size"] else 0]
            adapter.set_shape(openvino.PartialShape([*first, *map(openvino.Dimension, read_dims(io))]))
        else:
            _compare(config, io, tensor.get_partial_shape(), exact=False)
        if config["max_batch_size"]:
            adapter.set_layout(openvino.Layout("N..."))
    model = _run(before.build)
    if config["max_batch_size"]:
        _run(lambda: openvino.set_batch(model, -1 if any_batch else config["max_batch_size"]))
    outputs = {tensor.get_any_name(): tensor for tensor in model.outputs}
    after = PrePostProcessor(model)
    for io in config["output"]:
        shape = _find(outputs, io["name"]).get_partial_shape()
        after.output(io["name"]).tensor().set_element_type(_read_type(io))
        _compare(config, io, shape, exact=not any_batch)
    return _run(after.build)


def complete_config(config: dict[str, Any], model: Any) -> None:
    """Fill in missing `max_batch_size`, `dynamic_batching`, inputs and outputs, in place.

    A model supports batches if the layouts of all its tensors have a batch dimension.
    """
    tensors = [*model.inputs, *model.outputs]
    if all(layout_helpers.has_batch(layout_helpers.get_layout(tensor)) for tensor in tensors):
        config["max_batch_size"] = config["max_batch_size"] or DEFAULT_MAX_BATCH_SIZE
        if config["max_batch_size"] > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    for key, found in (("input", model.inputs), ("output", model.outputs)):
        if not config[key]:
            config[key] = [_describe(tensor, batched=config["max_batch_size"] > 0) for tensor in found]


def _describe(tensor: Any, *, batched: bool) -> dict[str, Any]:
    # The C++ backend writes all dims as variable where one is, and then rejects its own config.
    dims = _to_list(list(tensor.get_partial_shape()))
    return {
        "name": tensor.get_any_name(),
        "data_type": _DATATYPES.get(tensor.get_element_type().get_type_name(), "TYPE_INVALID"),
        "dims": dims[1 if batched else 0 :],
    }


def _find(tensors: Mapping[str, Any], name: str) -> Any:
    if name not in tensors:
        raise ModelRejectedError(f"the model has no tensor '{name}', it has: {', '.join(tensors)}")
    return tensors[name]


def _read_type(io: Mapping[str, Any]) -> Any:
    if io["data_type"] not in _TYPES:
        raise ModelRejectedError(
            f"tensor '{io['name']}': datatype {io['data_type']} is not supported by OpenVINO in Triton"
        )
    return _TYPES[io["data_type"]]


def _compare(config: Mapping[str, Any], io: Mapping[str, Any], shape: Any, *, exact: bool) -> None:
    """Reject dims that differ from the model's; with `exact` batch dimension and variable dims must be the same too."""
    batch = config["max_batch_size"]
    dims = read_dims(io)
    if batch:
        dims = [batch, *dims]
    model_dims = list(shape)
    checked = list(zip(model_dims, dims, strict=False))
    if batch and not exact:
        checked = [(theirs, ours) for theirs, ours in checked[1:] if ours != -1]
    if len(model_dims) != len(dims) or not all(_fits(theirs, ours) for theirs, ours in checked):
        raise ModelRejectedError(
            f"tensor '{io['name']}': the model has shape {_to_list(model_dims)}, the configuration makes it {dims}"
        )


def _fits(theirs: Any, ours: int) -> bool:
    if theirs.is_static:
        return bool(theirs.get_length() == ours)
    upper = theirs.get_max_length()
    return bool(upper < 0 or theirs.get_min_length() < ours < upper)


def _to_list(dims: Sequence[Any]) -> list[int]:
    return [dim.get_length() if dim.is_static else -1 for dim in dims]


def _run(step: Callable[[], Any]) -> Any:
    """Call OpenVINO, and put the message of its error on one line."""
    try:
        return step()
    except RuntimeError as exc:
        raise ModelRejectedError(f"OpenVINO: {' '.join(str(exc).split())}") from exc
