"""Compares the tensors of an ONNX model with those of its `config.pbtxt`.

Accepts and rejects what the C++ backend does (triton-inference-server/onnxruntime_backend r24.10, `ValidateInputs`,
`ValidateOutputs`, `AutoCompleteConfig`); the messages are ours. "Config" is Triton's ModelConfig as JSON.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from predictor.backends.errors import IncompleteConfigError, ModelRejectedError

# BF16 and the 4- and 8-bit floats are missing in the C++ backend too.
_DATATYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
# Triton's default where neither the config nor `default-max-batch-size` sets one.
DEFAULT_MAX_BATCH_SIZE = 4


class Node(Protocol):
    """`onnxruntime.NodeArg`."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Tensor:
    """An input or output of the ONNX graph.

    Attributes:
        datatype: As config.pbtxt spells it; `TYPE_INVALID` for a type without one in Triton.
        shape: With the batch dimension; -1 where it varies; empty for a scalar.
    """

    datatype: str
    shape: tuple[int, ...]


def read_tensors(nodes: Iterable[Node]) -> dict[str, Tensor]:
    """Return the tensors of a session by name.

    Raises:
        ModelRejectedError: a node is a sequence or a map.
    """
    tensors = {}
    for node in nodes:
        if not node.type.startswith("tensor("):
            raise ModelRejectedError(f"'{node.name}' is a {node.type}, a model may only take and return tensors")
        shape = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
        tensors[node.name] = Tensor(_DATATYPES.get(node.type, "TYPE_INVALID"), shape)
    return tensors


def reject_unsupported(config: Mapping[str, Any]) -> None:
    """Reject a config that needs the C++ backend, rather than serve it wrongly.

    Raises:
        ModelRejectedError: the config has sequences, ragged batches, or inputs computed from the batch.
    """
    unsupported = [key for key in ("sequence_batching", "batch_input", "batch_output") if config.get(key)]
    unsupported += [f"allow_ragged_batch of '{io['name']}'" for io in config["input"] if io.get("allow_ragged_batch")]
    if unsupported:
        raise ModelRejectedError(
            f"{', '.join(unsupported)}: not supported by the embedded backend; serve this model from NVIDIA's image"
        )


def check_inputs(config: Mapping[str, Any], inputs: Mapping[str, Tensor], *, overridable: Mapping[str, Tensor]) -> None:
    """Reject a config whose inputs the model does not accept.

    Args:
        config: ModelConfig.
        inputs: Required inputs of the model.
        overridable: Initialisers that a request may override; the only inputs that can be `optional`.

    Raises:
        ModelRejectedError: a name, datatype or dims do not fit.
    """
    required = [io for io in config["input"] if not io.get("optional")]
    if len(required) != len(inputs):
        raise ModelRejectedError(
            f"the configuration has {len(required)} inputs that are not optional, the model takes {len(inputs)}: "
            f"{', '.join(inputs)}"
        )
    for io in config["input"]:
        if io.get("optional") and config["max_batch_size"]:
            raise ModelRejectedError(f"optional input '{io['name']}' needs max_batch_size 0")
        _check_tensor(config, io, {**inputs, **overridable}, exact=False)


def check_outputs(config: Mapping[str, Any], outputs: Mapping[str, Tensor]) -> None:
    """Reject a config whose outputs the model does not have; the config may leave some out.

    Raises:
        ModelRejectedError: a name, datatype or dims do not fit.
    """
    for io in config["output"]:
        _check_tensor(config, io, outputs, exact=True)


def _check_tensor(
    config: Mapping[str, Any], io: Mapping[str, Any], tensors: Mapping[str, Tensor], *, exact: bool
) -> None:
    name, datatype = io["name"], io["data_type"]
    if name not in tensors:
        raise ModelRejectedError(f"the model has no tensor '{name}', it has: {', '.join(tensors)}")
    tensor = tensors[name]
    if datatype not in _DATATYPES.values():
        raise ModelRejectedError(f"tensor '{name}': datatype {datatype} is not supported by ONNX Runtime in Triton")
    if datatype != tensor.datatype:
        raise ModelRejectedError(
            f"tensor '{name}': the configuration has datatype {datatype}, the model {tensor.datatype}"
        )
    dims = read_dims(io)
    if not tensor.shape:
        if any(dim != 1 for dim in dims):
            raise ModelRejectedError(f"tensor '{name}' is a scalar: dims must be [1], the configuration has {dims}")
        return
    if config["max_batch_size"] and tensor.shape[0] != -1:
        raise ModelRejectedError(
            f"tensor '{name}': max_batch_size {config['max_batch_size']} needs a first dimension of -1, "
            f"the model has shape {list(tensor.shape)}"
        )
    shape = [-1, *dims] if config["max_batch_size"] else dims
    if not _fits(shape, tensor.shape, exact=exact):
        raise ModelRejectedError(
            f"tensor '{name}': the model has shape {list(tensor.shape)}, the configuration makes it {shape}"
        )


def _fits(shape: Sequence[int], model_shape: Sequence[int], *, exact: bool) -> bool:
    """Whether a configured shape equals the model's or, unless `exact`, is narrower."""
    return len(shape) == len(model_shape) and all(
        ours == theirs or (theirs == -1 and not exact) for ours, theirs in zip(shape, model_shape, strict=True)
    )


def read_dims(io: Mapping[str, Any]) -> list[int]:
    """Return the dims of the model's tensor: those of `reshape`, if present."""
    dims = io["reshape"].get("shape", []) if "reshape" in io else io["dims"]
    return [int(dim) for dim in dims]


def find_missing(config: Mapping[str, Any]) -> list[str]:
    """Return the fields of tensors that a config leaves open: with none it is never completed."""
    return [key for key in ("input", "output") if not config[key]]


def reject_completed(config: Mapping[str, Any], missing: Collection[str]) -> None:
    """Reject a config that has been completed here, with what it lacked: Triton has read it before.

    Raises:
        IncompleteConfigError: tensors were missing.
    """
    if missing:
        names = ["max_batch_size", "dynamic_batching", *missing]
        raise IncompleteConfigError({name: config[name] for name in names if name in config})


def complete_config(config: dict[str, Any], inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
    """Fill in missing `max_batch_size`, `dynamic_batching`, inputs and outputs, in place.

    Raises:
        ModelRejectedError: max_batch_size is set and a tensor has no variable first dimension.
    """
    can_batch = all(tensor.shape[:1] == (-1,) for tensor in [*inputs.values(), *outputs.values()])
    if can_batch:
        config["max_batch_size"] = config["max_batch_size"] or DEFAULT_MAX_BATCH_SIZE
        if config["max_batch_size"] > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    elif config["max_batch_size"]:
        raise ModelRejectedError(
            f"max_batch_size is {config['max_batch_size']}, and not every tensor of the model has a first dimension "
            "of -1"
        )
    batched = config["max_batch_size"] > 0
    for key, tensors in (("input", inputs), ("output", outputs)):
        if not config[key]:
            config[key] = [_describe(name, tensor, batched=batched) for name, tensor in tensors.items()]


def _describe(name: str, tensor: Tensor, *, batched: bool) -> dict[str, Any]:
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    described: dict[str, Any] = {"name": name, "data_type": tensor.datatype, "dims": dims or [1]}
    if batched and not dims:
        described["reshape"] = {"shape": []}
    return described
