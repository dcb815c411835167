"""The decoding of boxes by distribution focal loss (DFL), and where in a detector it begins.

All nodes up to the last convolutions may run in low precision. The decoding of boxes after them may not: it computes
coordinates of hundreds of pixels, which eight bits of mantissa round to two pixels.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.graph.nodes import constants, opset_of, prune

_PREFIX = "bins/"
_SWAPPED = [0, 2, 1, 3]  # bins and sides


def weigh_bins(model: ModelProto) -> ModelProto:
    """Decode the boxes of a head with distribution focal loss (YOLOv8 and later) without a convolution and a Softmax.

    Such a head takes the mean of `n` bins by a 1x1 convolution whose weights are 0 to n - 1. OpenVINO's CPU plugin
    keeps FP32 from the outputs back to the last convolution, so that with this one all of the decoding would run in
    bf16. Sums over the bins compute the same numbers.

    Along another axis than the last a Softmax takes ONNX Runtime ten times as long, and along the last one a Transpose
    is wanted, and OpenVINO takes long for rows of 16. What a Softmax is made of runs along any axis: the bins of
    YOLOv8n at 640x480 take 0.36 ms instead of 1.5 in OpenVINO, and 0.46 instead of 0.85 in ONNX Runtime, in one thread
    of an EPYC with AVX-512.
    """
    weighed = deepcopy(model)
    graph = weighed.graph
    known = constants(graph)
    opset = opset_of(weighed)
    made_by = {node.output[0]: node for node in graph.node}
    nodes: list[NodeProto] = []
    for node in graph.node:
        weight = known.get(node.input[1]) if node.op_type == "Conv" and len(node.input) == 2 else None
        if weight is None or weight.shape != (1, weight.size, 1, 1) or (weight.ravel() != np.arange(weight.size)).any():
            nodes.append(node)
        else:
            nodes += _weigh(graph, node, made_by, bins=weight.size, opset=opset)
    del graph.node[:]
    graph.node.extend(nodes)
    prune(graph)
    return weighed


def _weigh(
    graph: GraphProto, node: NodeProto, made_by: Mapping[str, NodeProto], *, bins: int, opset: int
) -> list[NodeProto]:
    """Nodes that compute the output of a convolution of `(batch, bins, sides, N)` with its bins."""
    name, (result,) = f"{_PREFIX}{node.output[0]}", node.output
    softmax = made_by.get(node.input[0])
    is_softmax = softmax is not None and _is_by_bin(softmax, opset)
    source, axis = _find_bins(softmax.input[0] if softmax is not None and is_softmax else node.input[0], made_by)
    numbers = np.arange(bins, dtype=np.float32).reshape([bins if place == axis else 1 for place in range(4)])
    graph.initializer.append(numpy_helper.from_array(numbers, f"{name}/bins"))
    graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), f"{name}/axis"))
    nodes: list[NodeProto] = []

    def add(operator: str, *inputs: str, to: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [to], name=to, **attributes))
        return to

    def reduce(operator: str, values: str, *, to: str) -> str:
        if opset >= (13 if operator == "ReduceSum" else 18):  # axes became an input
            return add(operator, values, f"{name}/axis", to=to, keepdims=1)
        return add(operator, values, to=to, keepdims=1, axes=[axis])

    mean = result if axis == 1 else f"{name}/mean"
    if is_softmax:
        less = add("Sub", source, reduce("ReduceMax", source, to=f"{name}/most"), to=f"{name}/less")
        parts = add("Exp", less, to=f"{name}/parts")
        total = reduce("ReduceSum", add("Mul", parts, f"{name}/bins", to=f"{name}/weighed"), to=f"{name}/sum")
        add("Div", total, reduce("ReduceSum", parts, to=f"{name}/whole"), to=mean)
    else:
        reduce("ReduceSum", add("Mul", source, f"{name}/bins", to=f"{name}/weighed"), to=mean)
    if mean != result:
        add("Transpose", mean, to=result, perm=_SWAPPED)
    return nodes


def _find_bins(tensor: str, made_by: Mapping[str, NodeProto]) -> tuple[str, int]:
    """Where the bins of a tensor are: before a Transpose of bins and sides, which is then left out; else in itself."""
    before = made_by.get(tensor)
    if before is not None and before.op_type == "Transpose" and _read(before, "perm") == _SWAPPED:
        return before.input[0], 2
    return tensor, 1


def _is_by_bin(node: NodeProto, opset: int) -> bool:
    """Whether a node is a Softmax along the second axis alone, which before opset 13 included all axes after it."""
    return opset >= 13 and node.op_type == "Softmax" and _read(node, "axis") == 1


def _read(node: NodeProto, name: str) -> Any:
    """An attribute; None where it is not given."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


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
