"""Values, nodes and names of an ONNX graph, with the onnx package alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

Array = NDArray[Any]


def constants(graph: GraphProto) -> dict[str, Array]:
    """Values of initializers and of Constant nodes that hold a tensor."""
    tensors: Sequence[tuple[str, TensorProto]] = [
        *((initializer.name, initializer) for initializer in graph.initializer),
        *(
            (node.output[0], attribute.t)
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        ),
    ]
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors}


def add_constant(graph: GraphProto, name: str, value: Array) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))


def prune(graph: GraphProto) -> None:
    """Remove nodes and initializers that no output needs."""
    needed = {output.name for output in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(captured(node))
    kept.reverse()
    initializers = [initializer for initializer in graph.initializer if initializer.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)


def captured(node: NodeProto) -> Iterable[str]:
    """Names that the branches and bodies inside a node may read from the graph around it."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for child in inner.node:
                yield from child.input
                yield from captured(child)
            yield from (output.name for output in inner.output)


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators."""
    return next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
