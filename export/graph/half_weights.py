"""Weights that are stored in FP16, of a graph that computes in FP32: a file of half the size."""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.nodes import captured

# Smaller tensors stay, such as biases and constants of the arithmetic.
_MIN_VALUES = 256
_SUFFIX = "/half"


def store_half(model: ModelProto) -> None:
    """Store the large FP32 weights of a model as FP16, each behind a Cast to FP32.

    Raises:
        ValueError: a weight is beyond FP16's range.
    """
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_VALUES:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f"{tensor.name}: got values beyond FP16's range")
        half = values.astype(np.float16)
        casts.append(helper.make_node("Cast", [tensor.name + _SUFFIX], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name + _SUFFIX))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def restore_float(graph: GraphProto) -> None:
    """Turn FP16 initialisers that a graph only takes behind a Cast to FP32 into FP32 initialisers, without the Cast."""
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    for tensor in graph.output:
        halves.pop(tensor.name, None)
    for node in graph.node:
        for name in (*(() if _widens(node) else node.input), *captured(node)):
            halves.pop(name, None)
    kept = []
    for node in graph.node:
        if not (_widens(node) and node.input[0] in halves):
            kept.append(node)
            continue
        value = numpy_helper.to_array(halves[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    initializers = [tensor for tensor in graph.initializer if tensor.name not in halves]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _widens(node: NodeProto) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
