"""Dims of a detector's input and outputs: which are free, and which are fixed."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import numpy as np
from onnx import ModelProto

from export.graph.head import Layout
from export.graph.nodes import add_constant, constants

_PREFIX = "fused/"


def free_batch(model: ModelProto) -> ModelProto:
    """Let a graph that was exported for a batch of one take a batch of any size.

    The first dimension of input and output becomes free, and so does that of every Reshape to a constant shape that
    begins with 1. Whether that is right is verified by parity, which compares a batch with its single images.
    """
    freed = deepcopy(model)
    graph = freed.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    known = constants(graph)
    for index, node in enumerate(graph.node):
        shape = known.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.size > 1 and shape[0] == 1:
            name = f"{_PREFIX}shape/{index}"
            add_constant(graph, name, np.concatenate([[0], shape[1:]]).astype(np.int64))  # 0: as in the input
            node.input[1] = name
    del graph.value_info[:]
    return freed


def declare_head(model: ModelProto, layout: Layout) -> ModelProto:
    """Declare free and fixed dims of the head, `(batch, columns, N)`, or `(batch, N, columns)` where it needs no NMS.

    Ultralytics leaves all of them free in a dynamic file and fixes all of them in another, while Triton requires the
    dims of the config to be exactly those that the graph declares.
    """
    declared = deepcopy(model)
    head, *prototypes = declared.graph.output
    _, rows, columns = head.type.tensor_type.shape.dim
    if layout.end2end:
        rows.dim_param, columns.dim_value = "candidates", layout.columns
    else:
        rows.dim_value, columns.dim_param = layout.columns, "anchors"
    for output in prototypes:
        output.type.tensor_type.shape.dim[1].dim_value = layout.rest
    del declared.graph.value_info[:]
    return declared


def fix_outputs(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """Declare the dims of outputs that are known to be fixed.

    How much of a shape a runtime infers depends on its version; declared dims are the same in all of them.

    Args:
        model: whose outputs have as many dims.
        shapes: by output, with the batch dimension, which stays as it is; -1 where a dim is free.
    """
    fixed = deepcopy(model)
    for output in fixed.graph.output:
        for dim, size in list(zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True))[1:]:
            if size >= 0:
                dim.dim_value = size
    return fixed
