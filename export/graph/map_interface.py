"""Both interfaces of a graph that returns a map: a class or a distance for each pixel of its input."""

from copy import deepcopy

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from export.graph.fused_interface import take_pixels
from export.graph.nodes import add_constant, opset_of

MAP_NAMES = {"semantic": "class_map", "depth": "depth"}  # of the output, by task

_PREFIX = "fused/"
_AXES_ARE_INPUT = 13  # opset of Squeeze


def declare_sizes(model: ModelProto, size_hw: tuple[int, int] | None) -> ModelProto:
    """Declare height and width of input and output, which are the same: fixed ones, or free ones where None.

    Args:
        model: input `(batch, 3, height, width)`, one output `(batch, [1,] height, width)`.
        size_hw: where they are fixed.
    """
    declared = deepcopy(model)
    for value in (*declared.graph.input, *declared.graph.output):
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param = "batch"
        if len(dims) == 4 and value.name == declared.graph.output[0].name:
            dims[1].dim_value = 1
        for dim, name, size in zip(dims[-2:], ("height", "width"), size_hw or (0, 0), strict=True):
            if size:
                dim.dim_value = size
            else:
                dim.dim_param = name
    del declared.graph.value_info[:]
    return declared


def fuse_map(model: ModelProto, *, task: str) -> ModelProto:
    """Give a graph the `fused` interface.

    Args:
        model: from `declare_sizes`.
        task: `semantic` or `depth`.

    Returns:
        Input `image` UINT8 `(batch, height, width, 3)`; output `class_map` UINT8 or INT32, or `depth` FP32
        `(batch, height, width)`.
    """
    fused = deepcopy(model)
    graph = fused.graph
    take_pixels(graph)
    output, name = graph.output[0], MAP_NAMES[task]
    batch, *_, height, width = output.type.tensor_type.shape.dim
    if task == "depth":
        _squeeze(graph, output.name, name, opset=opset_of(fused))
    else:
        _rename(graph, output.name, name)
    result = helper.make_tensor_value_info(name, output.type.tensor_type.elem_type, None)
    result.type.tensor_type.shape.dim.extend([batch, height, width])
    del graph.output[:], graph.value_info[:]
    graph.output.append(result)
    return fused


def _squeeze(graph: GraphProto, source: str, target: str, *, opset: int) -> None:
    """Remove the second axis."""
    if opset < _AXES_ARE_INPUT:
        graph.node.append(helper.make_node("Squeeze", [source], [target], axes=[1]))
        return
    add_constant(graph, f"{_PREFIX}second", np.array([1], np.int64))
    graph.node.append(helper.make_node("Squeeze", [source, f"{_PREFIX}second"], [target]))


def _rename(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def kind_of(model: ModelProto) -> str:
    """Triton's datatype of the map."""
    kinds: dict[int, str] = {
        TensorProto.UINT8: "TYPE_UINT8",
        TensorProto.INT32: "TYPE_INT32",
        TensorProto.FLOAT: "TYPE_FP32",
    }
    return kinds[model.graph.output[0].type.tensor_type.elem_type]
