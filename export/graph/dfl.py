"""The decoding of boxes by distribution focal loss (DFL), and where in a detector it begins.

All nodes up to the last convolutions may run in low precision. The decoding of boxes after them may not: it computes
coordinates of hundreds of pixels, which eight bits of mantissa round to two pixels.
"""

from collections.abc import Iterable
from copy import deepcopy

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.graph.nodes import constants, opset_of, prune

_PREFIX = "bins/"


def weigh_bins(model: ModelProto) -> ModelProto:
    """Decode the boxes of a head with distribution focal loss (YOLOv8 and later) without a convolution.

    Such a head takes the mean of `n` bins by a 1x1 convolution whose weights are 0 to n - 1. OpenVINO's CPU plugin
    keeps FP32 from the outputs back to the last convolution, so that with this one all of the decoding would run in
    bf16. A Mul and a ReduceSum compute the same numbers. They and the Softmax before them run along the last axis:
    along the second a Softmax takes ONNX Runtime ten times as long, a tenth of the whole time of YOLOv8n.
    """
    weighed = deepcopy(model)
    graph = weighed.graph
    known = constants(graph)
    opset = opset_of(weighed)
    softmaxes = {node.output[0]: node for node in graph.node if _is_by_bin(node, opset)}
    nodes: list[NodeProto] = []
    for node in graph.node:
        weight = known.get(node.input[1]) if node.op_type == "Conv" and len(node.input) == 2 else None
        if weight is None or weight.shape != (1, weight.size, 1, 1) or (weight.ravel() != np.arange(weight.size)).any():
            nodes.append(node)
            continue
        softmax = softmaxes.get(node.input[0])
        graph.initializer.append(numpy_helper.from_array(weight.ravel(), f"{_PREFIX}{node.output[0]}/bins"))
        graph.initializer.append(numpy_helper.from_array(np.array([3], np.int64), f"{_PREFIX}{node.output[0]}/axis"))
        nodes += _weigh(node, softmax.input[0] if softmax else node.input[0], softmax=bool(softmax), opset=opset)
    del graph.node[:]
    graph.node.extend(nodes)
    prune(graph)
    return weighed


def _is_by_bin(node: NodeProto, opset: int) -> bool:
    """Whether a node is a Softmax along the second axis alone, which before opset 13 included all axes after it."""
    along_second = any(attribute.name == "axis" and attribute.i == 1 for attribute in node.attribute)
    return opset >= 13 and node.op_type == "Softmax" and along_second


def _weigh(node: NodeProto, source: str, *, softmax: bool, opset: int) -> list[NodeProto]:
    """Nodes that compute the output of a convolution of `(batch, bins, sides, N)` with its bins."""
    name = f"{_PREFIX}{node.output[0]}"
    nodes = [helper.make_node("Transpose", [source], [f"{name}/last"], perm=[0, 2, 3, 1])]
    if softmax:
        nodes.append(helper.make_node("Softmax", [f"{name}/last"], [f"{name}/shares"], axis=3))
    nodes.append(helper.make_node("Mul", [nodes[-1].output[0], f"{name}/bins"], [f"{name}/weighed"]))
    total = helper.make_node("ReduceSum", [f"{name}/weighed"], [f"{name}/sum"], keepdims=1)
    if opset >= 13:  # axes became an input
        total.input.append(f"{name}/axis")
    else:
        total.attribute.append(helper.make_attribute("axes", [3]))
    nodes += [total, helper.make_node("Transpose", [f"{name}/sum"], node.output, perm=[0, 3, 1, 2])]
    for added in nodes:
        added.name = added.output[0]
    return nodes


def split(graph: GraphProto) -> tuple[list[NodeProto], list[NodeProto], list[NodeProto]]:
    """The nodes of a detector in three parts: before its last convolutions, these, and the decoding after them."""
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
