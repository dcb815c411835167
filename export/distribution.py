"""Which part of a detector may run in low precision: all up to its last convolutions.

What follows them decodes boxes: coordinates of hundreds of pixels, which eight bits of mantissa round to two pixels.
"""

from collections.abc import Iterable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.graph import constants, opset_of, prune

_PREFIX = "bins/"


def weigh_bins(model: ModelProto) -> ModelProto:
    """Let no convolution take part in the decoding of boxes.

    A head with distribution focal loss (YOLOv8 and later) takes the mean of `n` bins by a 1x1 convolution whose weights
    are 0 to n - 1. OpenVINO's CPU plugin keeps FP32 from the outputs back to the last convolution, so this one would
    have all of the decoding in bf16. A Mul and a ReduceSum give the same numbers.
    """
    weighed = ModelProto()
    weighed.CopyFrom(model)
    graph = weighed.graph
    known = constants(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        weight = known.get(node.input[1]) if node.op_type == "Conv" and len(node.input) == 2 else None
        if weight is None or weight.shape != (1, weight.size, 1, 1) or (weight.ravel() != np.arange(weight.size)).any():
            nodes.append(node)
            continue
        name = f"{_PREFIX}{node.output[0]}"
        weighted = helper.make_node("Mul", [node.input[0], node.input[1]], [name], name=name)
        total = helper.make_node("ReduceSum", [name], [node.output[0]], name=f"{name}/sum", keepdims=1)
        if opset_of(weighed) >= 13:  # axes became an input
            total.input.append(f"{_PREFIX}axis")
            if not any(initializer.name == f"{_PREFIX}axis" for initializer in graph.initializer):
                graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{_PREFIX}axis"))
        else:
            total.attribute.append(helper.make_attribute("axes", [1]))
        nodes += [weighted, total]
    del graph.node[:]
    graph.node.extend(nodes)
    prune(graph)
    return weighed


def split(graph: GraphProto) -> tuple[list[NodeProto], list[NodeProto], list[NodeProto]]:
    """The nodes of a detector: before its last convolutions, these, and what decodes after them."""
    before = _ancestors(graph, (node for node in graph.node if node.op_type == "Conv"))
    body, last, decoding = [], [], []
    for node in graph.node:
        if node.output[0] in before:
            body.append(node)
        elif node.op_type == "Conv":
            last.append(node)
        else:
            decoding.append(node)
    return body, last, decoding


def _ancestors(graph: GraphProto, nodes: Iterable[NodeProto]) -> set[str]:
    """Outputs of all nodes on which others depend, in one pass: an ONNX graph is sorted."""
    needed = {name for node in nodes for name in node.input}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed
