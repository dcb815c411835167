"""Converts a graph to FP16 by changing the types in it, with the onnx package alone.

TensorRT keeps the types of a strongly typed network, so the decoding of boxes stays in FP32 without a list of its
layers, and the outputs of ONNX Runtime on a CPU are those to expect on a GPU.

`onnxruntime.transformers.float16` (1.31) was tried in its place: where several nodes need an FP16 value in another
type, it adds a Cast for each of them, all of one name; onnx's checker rejects that for YOLOv8n.
"""

import ast
from copy import deepcopy

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph.dfl import split
from export.graph.nodes import constants, prune

_PREFIX = "half/"  # a name in graphs: `sources.onnx_file` renames tensors of a file that begin so
_STAYS_FP32 = {"Resize": (1, 2)}  # inputs: region and scales


def to_fp16(model: ModelProto) -> ModelProto:
    """Run all up to the last convolutions, these included, in FP16; inputs and outputs stay as they are.

    Args:
        model: a detector of either interface.

    Raises:
        ExportError: an operator before its last convolutions has no FP16.
    """
    converted = deepcopy(model)
    graph = converted.graph
    known = constants(graph)
    body, last, decoding = split(graph)
    inside = [*body, *last]
    entry = _enter(inside, graph.input[0])
    for node in inside:
        for place, name in enumerate(node.input):
            value = known.get(name)
            if value is None or value.dtype != np.float32 or place in _STAYS_FP32.get(node.op_type, ()):
                continue
            node.input[place] = f"{_PREFIX}{name}"
            if not any(initializer.name == node.input[place] for initializer in graph.initializer):
                graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), node.input[place]))
    made = {name for node in last for name in node.output} | _floats(model, body)
    leaving = sorted((made - known.keys()) & {name for node in decoding for name in node.input})
    for node in decoding:
        node.input[:] = [f"{_PREFIX}fp32/{name}" if name in leaving else name for name in node.input]
    exits = [_cast(name, f"{_PREFIX}fp32/{name}", TensorProto.FLOAT) for name in leaving]
    nodes = [*entry, *inside, *exits, *decoding]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    prune(graph)
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"FP16: the graph cannot be run in it: {exc}") from exc
    return converted


def fix_size(model: ModelProto) -> ModelProto:
    """Fix height and width of the input to those of the training; the batch stays free."""
    fixed = deepcopy(model)
    source = fixed.graph.input[0]
    dims = source.type.tensor_type.shape.dim
    places = dims[1:3] if source.name == "image" else dims[2:4]
    texts = {entry.key: entry.value for entry in fixed.metadata_props}
    imgsz = ast.literal_eval(texts["imgsz"])
    for dim, size in zip(places, (imgsz, imgsz) if isinstance(imgsz, int) else imgsz, strict=True):
        dim.dim_value = dim.dim_value or int(size)
    return fixed


def _enter(inside: list[NodeProto], source: onnx.ValueInfoProto) -> list[NodeProto]:
    """Cast pixels to FP16 before all other nodes, the Transpose included: TensorRT transposes no UINT8."""
    entered = f"{_PREFIX}{source.name}"
    for node in inside:
        node.input[:] = [entered if name == source.name else name for name in node.input]
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
            node.attribute[0].i = TensorProto.FLOAT16
    return [_cast(source.name, entered, TensorProto.FLOAT16)]


def _floats(model: ModelProto, nodes: list[NodeProto]) -> set[str]:
    """Outputs of nodes that are FP32."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return {name for node in nodes for name in node.output if types.get(name) == TensorProto.FLOAT}


def _cast(source: str, target: str, datatype: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=target, to=datatype)
