"""The limits of the oldest supported Triton: 24.10, with ONNX Runtime 1.19."""

from collections.abc import Collection, Mapping
from typing import Any

import onnx
from google.protobuf.json_format import MessageToDict

from export.errors import ExportError, first_line
from predictor.backends.errors import ModelRejectedError
from predictor.backends.signature import Tensor, check_inputs, check_outputs

Tensors = Mapping[str, Tensor]

# Tried on ONNX Runtime 1.19.2: it rejects the next version of the first two ("is till opset 21", "max supported IR
# version: 10"); it accepted 5 of ai.onnx.ml, while its table of versions lists 4.
MAX_IR_VERSION = 10
MAX_OPSETS = {"": 21, "ai.onnx.ml": 4}


def check(model: onnx.ModelProto, *, beside: Collection[str] = ()) -> None:
    """Reject a model that ONNX Runtime 1.19 does not load.

    Args:
        model: to be served.
        beside: domains of operators that are accepted beside the standard ones.

    Raises:
        ExportError: IR version or an opset is too new, an operator is not standard, or the graph is invalid.
    """
    if model.ir_version > MAX_IR_VERSION:
        raise ExportError(
            f"IR version: got {model.ir_version}, expected at most {MAX_IR_VERSION} (Triton 24.10, ONNX Runtime 1.19): "
            "export it again with an older onnx"
        )
    _check_opsets(model, beside)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"the graph is invalid: {first_line(exc)}") from exc


def _check_opsets(model: onnx.ModelProto, beside: Collection[str]) -> None:
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        name = domain or "ai.onnx"
        limit = MAX_OPSETS.get(domain)
        if limit is None:
            if domain not in beside and any(node.domain == domain for node in model.graph.node):
                raise ExportError(f"operators: got some of {name}, which a stock ONNX Runtime may lack")
        elif opset.version > limit:
            raise ExportError(
                f"opset of {name}: got {opset.version}, expected at most {limit} (Triton 24.10, ONNX Runtime 1.19): "
                "export it again for an older one (Ultralytics: opset=17)"
            )


def check_dims(model: onnx.ModelProto, config: Any) -> None:
    """Reject a config that Triton would not load with this graph: Triton compares what the two declare.

    An output's dims must be the graph's, every free one included; an input's may be narrower. How much a runtime infers
    beyond what the graph declares depends on its version, so this is checked besides `check_loads`.

    Raises:
        ExportError: a tensor is missing, or its dims differ.
    """
    declared = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    for tensors, may_narrow in ((config.input, True), (config.output, False)):
        for tensor in tensors:
            dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
            expected = [-1, *dims] if config.max_batch_size else dims
            if declared.get(tensor.name) == [] and not config.max_batch_size:
                expected = []  # a scalar, whose dims in a config are [1]
            got = declared.get(tensor.name, [])
            fits = len(got) == len(expected) and all(
                size == dim or (may_narrow and size == -1) for size, dim in zip(got, expected, strict=True)
            )
            if not fits:
                raise ExportError(
                    f"tensor {tensor.name}: the graph declares {got}, expected {expected} as in the config"
                )


def check_loads(inputs: Tensors, outputs: Tensors, config: Any) -> None:
    """Reject a config that Triton would not load with a graph, by the rules of the embedded backends and of NVIDIA's.

    An output's dims must be the graph's, every free one included; an input's may be narrower.

    Args:
        inputs: of the graph, as the runtime that loaded it reports them.
        outputs: likewise.
        config: `ModelConfig`.

    Raises:
        ExportError: a tensor is missing, or its datatype or dims differ.
    """
    described = MessageToDict(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    try:
        check_inputs(described, inputs, overridable={})
        check_outputs(described, outputs)
    except ModelRejectedError as exc:
        raise ExportError(f"{config.name}: Triton would not load it: {exc}") from exc
