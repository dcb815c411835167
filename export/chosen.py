"""Decode the boxes of the candidates that are kept, and of no others: a thousand instead of six or eight."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.graph import KEPT_BOXES, ORDER, constants, prune

_PREFIX = "chosen/"
# What treats each candidate by itself, or only counts them.
_BY_CANDIDATE = {
    *("Add", "Cast", "Concat", "Constant", "Conv", "Div", "Gather", "Mul", "ReduceSum", "Reshape", "Shape", "Slice"),
    *("Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}
_SIDES = 4  # of a box
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub"})


def decode_chosen(fused: ModelProto) -> ModelProto:
    """Choose the candidates before their boxes are decoded.

    A head with distribution focal loss takes a Softmax over the bins of each side of each box: over all of them it
    costs ONNX Runtime a tenth of YOLOv8n's time, and its axis is one that is not run in parallel.

    Args:
        fused: of `graph.fuse`, which decodes all boxes and gathers the best.

    Returns:
        A graph with the same outputs; `fused` itself where its decoding is not understood. Whoever calls compares both.
    """
    model = ModelProto()
    model.CopyFrom(fused)
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    gather = producers.get(KEPT_BOXES)
    raw = _find_distribution(graph, gather.input[0], producers) if gather is not None else None
    if gather is None or raw is None:
        return fused
    moved = _between(graph, raw, gather.input[0])
    ranks = _shapes(fused)
    if not moved or any(node.op_type not in _BY_CANDIDATE for node in moved) or len(ranks.get(raw, ())) != 3:
        return fused
    decoder = _Decoder(graph, raw=raw, shapes=ranks)
    if not decoder.move(moved, boxes=gather.input[0]):
        return fused
    at = next(index for index, node in enumerate(graph.node) if node == gather)
    names = {name for node in moved for name in node.output}
    before = [node for node in graph.node[:at] if not names.intersection(node.output)]
    after = list(graph.node[at + 1 :])
    if any(names.intersection(node.input) for node in (*before, *after)):
        return fused  # somebody else reads what is decoded
    del graph.node[:]
    graph.node.extend([*before, *decoder.nodes, *after])
    prune(graph)
    return model


class _Decoder:
    """The nodes that decode, on the candidates that are kept."""

    def __init__(self, graph: GraphProto, *, raw: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._raw = raw
        self._shapes = shapes
        self._constants = constants(graph)
        self._count = shapes[raw][2]  # of all candidates; 0 where height and width are free
        self._names: dict[str, str] = {}

    def move(self, nodes: list[NodeProto], *, boxes: str) -> bool:
        """Copy these nodes; False where one of them cannot be."""
        bins = [value.size for value in self._weights(nodes) if value.shape == (1, value.size, 1, 1)]
        if len(bins) != 1:
            return False
        rows = self._constant("rows", np.array([1, _SIDES * bins[0], 1], np.int64))
        self._add("Expand", [ORDER, rows], f"{_PREFIX}order")
        self._names[self._raw] = self._add("GatherElements", [self._raw, f"{_PREFIX}order"], f"{_PREFIX}raw", axis=2)
        for node in nodes:
            for name in node.input:
                if name not in self._names and not self._take(node, name):
                    return False
            copied = NodeProto()
            copied.CopyFrom(node)
            copied.name = f"{_PREFIX}{node.name or node.output[0]}"
            copied.input[:] = [self._names.get(name, name) for name in node.input]
            for index, name in enumerate(node.output):
                self._names[name] = copied.output[index] = KEPT_BOXES if name == boxes else f"{_PREFIX}{name}"
            self.nodes.append(copied)
        return boxes in self._names

    def _weights(self, nodes: list[NodeProto]) -> list[Any]:
        return [self._constants[name] for node in nodes for name in node.input if name in self._constants]

    def _take(self, node: NodeProto, name: str) -> bool:
        """What comes from elsewhere: shapes may count the candidates, anchors and strides are gathered too."""
        value = self._constants.get(name)
        if node.op_type == "Reshape" and value is not None and self._count and value[-1:] == self._count:
            if (value == -1).any():
                return False
            self._names[name] = self._constant(f"shape/{name}", np.array([*value[:-1], -1], np.int64))
            return True
        return node.op_type not in _ELEMENTWISE or self._gather(name, value)

    def _gather(self, name: str, value: NDArray[Any] | None) -> bool:
        shape = self._shapes.get(name) if value is None else value.shape
        if shape is None:
            return False
        if not shape or shape[-1] == 1 or (value is not None and shape[-1] != self._count):
            return True  # the same for every candidate
        if len(shape) not in {2, 3} or shape[0] > 1:
            return False
        # (1, rows, N) by (batch, 1, K) gives (1, rows, batch, 1, K); (1, N) gives (1, batch, 1, K).
        gathered = self._add("Gather", [name, ORDER], f"{_PREFIX}gathered/{name}", axis=len(shape) - 1)
        axes = self._constant(f"axes-{len(shape)}", np.array([0] if len(shape) == 2 else [0, 3], np.int64))
        squeezed = self._add("Squeeze", [gathered, axes], f"{_PREFIX}squeezed/{name}")
        if len(shape) == 3:
            squeezed = self._add("Transpose", [squeezed], f"{_PREFIX}taken/{name}", perm=[1, 0, 2])
        self._names[name] = squeezed
        return True

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        full = f"{_PREFIX}{name}"
        if not any(initializer.name == full for initializer in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(value, full))
        return full


def _find_distribution(graph: GraphProto, boxes: str, producers: Mapping[str, NodeProto]) -> str | None:
    """The tensor `(batch, 4 x bins, N)` that the only Softmax before the boxes is taken of."""
    needed = _ancestors(graph, boxes)
    found = [node for node in graph.node if node.op_type == "Softmax" and node.output[0] in needed]
    if len(found) != 1:
        return None
    node = found[0]
    for kind in ("Transpose", "Reshape"):
        above = producers.get(node.input[0])
        if above is None or above.op_type != kind:
            return None
        node = above
    return node.input[0]


def _between(graph: GraphProto, start: str, end: str) -> list[NodeProto]:
    """Nodes that depend on one tensor and that another depends on, in the order of the graph."""
    needed = _ancestors(graph, end) | {end}
    reached, found = {start}, []
    for node in graph.node:
        if reached.intersection(node.input) and needed.intersection(node.output):
            reached.update(node.output)
            found.append(node)
    return found


def _ancestors(graph: GraphProto, name: str) -> set[str]:
    needed = {name}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes as far as they can be inferred; 0 where a dimension is free."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
