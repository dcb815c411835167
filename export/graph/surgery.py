"""Graph surgery on the ONNX file of a detector, with the onnx package alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]

_PREFIX = "fused/"


def fuse(model: ModelProto, *, classes: int, end2end: bool) -> ModelProto:
    """Give a detector the `fused` interface.

    Args:
        model: as Ultralytics exports it: one input FP32 `(batch, 3, height, width)` in 0 to 1, one output
            `(batch, 4 + classes, N)`, or `(batch, N, 6)` of a head that needs no NMS.
        classes: how many.
        end2end: whether the head needs no NMS.

    Returns:
        Input `image` UINT8 `(batch, height, width, 3)`; outputs, all N candidates in the order of the head: `boxes`
        FP32 `(batch, N, 4)` cxcywh in model pixels, `scores` FP32 `(batch, N)`, `classes` INT32 `(batch, N)`.
    """
    fused = ModelProto()
    fused.CopyFrom(model)
    graph = fused.graph
    _take_pixels(graph)
    if end2end:
        _take_apart_finished(graph)
    else:
        _choose_classes(graph, classes=classes)
    prune(graph)
    del graph.value_info[:]  # shapes of before
    return fused


def free_batch(model: ModelProto) -> ModelProto:
    """Let a graph that was exported for a batch of one take any.

    The first dimension of input and output becomes free, and so does that of every Reshape to a constant shape that
    begins with 1. Whether that was right is for the proof to say: it compares a batch with its single pictures.
    """
    freed = ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    known = constants(graph)
    for index, node in enumerate(graph.node):
        shape = known.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.size > 1 and shape[0] == 1:
            name = f"{_PREFIX}shape/{index}"
            _add_constant(graph, name, np.concatenate([[0], shape[1:]]).astype(np.int64))  # 0: as in the input
            node.input[1] = name
    del graph.value_info[:]
    return freed


def declare_head(model: ModelProto, *, classes: int, end2end: bool) -> ModelProto:
    """Say of the output what is free and what is not: `(batch, 4 + classes, N)`, or `(batch, N, 6)` without NMS.

    Ultralytics leaves all of it free in a dynamic file and fixes all of it in another, while Triton wants the dims of
    the config to be exactly those that the graph declares.
    """
    declared = ModelProto()
    declared.CopyFrom(model)
    _, rows, columns = declared.graph.output[0].type.tensor_type.shape.dim
    if end2end:
        rows.dim_param, columns.dim_value = "candidates", 6
    else:
        rows.dim_value, columns.dim_param = 4 + classes, "anchors"
    del declared.graph.value_info[:]
    return declared


def fix_outputs(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """Declare the dims of outputs that are known to be fixed.

    How much of a shape a runtime infers depends on its version; what the file declares, all of them say.

    Args:
        model: with outputs that have as many dims.
        shapes: by output, with the batch dimension, which stays as it is; -1 where a dim is free.
    """
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for output in fixed.graph.output:
        for dim, size in list(zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True))[1:]:
            if size >= 0:
                dim.dim_value = size
    return fixed


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


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators."""
    return next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def captured(node: NodeProto) -> Iterable[str]:
    """Names that the branches and bodies inside a node may take from outside."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for child in inner.node:
                yield from child.input
                yield from captured(child)
            yield from (output.name for output in inner.output)


def _take_pixels(graph: GraphProto) -> None:
    """Replace the input by UINT8 pixels; 1/255 goes into the first convolution where there is one."""
    images = graph.input[0]
    batch, channels, height, width = images.type.tensor_type.shape.dim
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, None)
    image.type.tensor_type.shape.dim.extend([batch, height, width, channels])
    folded = _fold_scale(graph, images.name)
    scaled = images.name if folded else f"{_PREFIX}pixels"
    nodes = [
        # One byte for each value moves a quarter of what four would.
        helper.make_node("Transpose", ["image"], [f"{_PREFIX}planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [f"{_PREFIX}planes"], [scaled], to=TensorProto.FLOAT),
    ]
    if not folded:
        _add_constant(graph, f"{_PREFIX}255", np.array(255, np.float32))
        nodes.append(helper.make_node("Div", [scaled, f"{_PREFIX}255"], [images.name]))
    body = [*nodes, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(body)
    graph.input.append(image)


def _fold_scale(graph: GraphProto, images: str) -> bool:
    """Divide the weights of the convolutions that read the input by 255; zero padding stays zero.

    Returns:
        False, and nothing is changed, where something else reads the input (a quantised graph).
    """
    weights = {initializer.name: initializer for initializer in graph.initializer}
    readers = [node for node in graph.node if images in node.input]
    if any(node.op_type != "Conv" or node.input[1] not in weights for node in readers):
        return False
    for index, node in enumerate(readers):
        name = f"{_PREFIX}weight/{index}"
        _add_constant(graph, name, numpy_helper.to_array(weights[node.input[1]]) / np.float32(255))
        node.input[1] = name
    return True


def _choose_classes(graph: GraphProto, *, classes: int) -> None:
    """Candidates of a head `(batch, 4 + classes, N)`: each box with its best class."""
    boxes, class_scores, monotonic = _split_head(graph, classes=classes)
    best, class_ids = f"{_PREFIX}best", f"{_PREFIX}classes"
    _add_constant(graph, f"{_PREFIX}one", np.array([1], np.int64))
    # Of equals the first, as Ultralytics has it; in ONNX Runtime half the time of a ReduceMax and an ArgMax.
    graph.node.append(helper.make_node("TopK", [class_scores, f"{_PREFIX}one"], [best, class_ids], axis=1))
    if monotonic:  # the best of logits is the best of their sigmoids: one for each box is enough
        graph.node.append(helper.make_node("Sigmoid", [best], [f"{_PREFIX}sigmoids"]))
        best = f"{_PREFIX}sigmoids"
    _finish(graph, boxes=boxes, scores=best, classes=class_ids)


def _take_apart_finished(graph: GraphProto) -> None:
    """Candidates of a head `(batch, N, 6)`: corners, score, class."""
    output = graph.output[0].name
    columns = {"corner_1": (0, 2), "corner_2": (2, 4), "best": (4, 5), "class": (5, 6)}
    graph.node.append(helper.make_node("Transpose", [output], [f"{_PREFIX}rows"], perm=[0, 2, 1]))
    for name, (start, stop) in columns.items():
        _slice(graph, f"{_PREFIX}rows", name=name, start=start, stop=stop)
    _add_constant(graph, f"{_PREFIX}2", np.array(2, np.float32))
    graph.node.extend(
        [
            helper.make_node("Add", [f"{_PREFIX}corner_1", f"{_PREFIX}corner_2"], [f"{_PREFIX}sum"]),
            helper.make_node("Div", [f"{_PREFIX}sum", f"{_PREFIX}2"], [f"{_PREFIX}centre"]),
            helper.make_node("Sub", [f"{_PREFIX}corner_2", f"{_PREFIX}corner_1"], [f"{_PREFIX}size"]),
            helper.make_node("Concat", [f"{_PREFIX}centre", f"{_PREFIX}size"], [f"{_PREFIX}boxes"], axis=1),
        ]
    )
    _finish(graph, boxes=f"{_PREFIX}boxes", scores=f"{_PREFIX}best", classes=f"{_PREFIX}class")


def _split_head(graph: GraphProto, *, classes: int) -> tuple[str, str, bool]:
    """Tensors of boxes `(batch, 4, N)` and of class scores `(batch, classes, N)`.

    Ultralytics' last nodes are a Sigmoid over all scores and a Concat with the boxes: reading what goes into them
    leaves both out.

    Returns:
        Boxes, class scores, and whether the scores still lack their Sigmoid.
    """
    output = graph.output[0].name
    producers = {name: node for node in graph.node for name in node.output}
    last = producers[output]
    if last.op_type == "Concat" and len(last.input) == 2:
        sigmoid = producers.get(last.input[1])
        if sigmoid is not None and sigmoid.op_type == "Sigmoid":
            return last.input[0], sigmoid.input[0], True
    boxes = _slice(graph, output, name="boxes", start=0, stop=4)
    return boxes, _slice(graph, output, name="class_scores", start=4, stop=4 + classes), False


def _finish(graph: GraphProto, *, boxes: str, scores: str, classes: str) -> None:
    """Declare the outputs; `boxes` is `(batch, 4, N)`, `scores` and `classes` are `(batch, 1, N)`."""
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    _add_constant(graph, f"{_PREFIX}flat", np.array([0, -1], np.int64))
    graph.node.extend(
        [
            helper.make_node("Transpose", [boxes], ["boxes"], perm=[0, 2, 1]),
            helper.make_node("Reshape", [scores, f"{_PREFIX}flat"], ["scores"]),
            helper.make_node("Reshape", [classes, f"{_PREFIX}flat"], [f"{_PREFIX}flat_classes"]),
            helper.make_node("Cast", [f"{_PREFIX}flat_classes"], ["classes"], to=TensorProto.INT32),
        ]
    )
    del graph.output[:]
    for name, datatype, dims in (
        ("boxes", TensorProto.FLOAT, [4]),
        ("scores", TensorProto.FLOAT, []),
        ("classes", TensorProto.INT32, []),
    ):
        graph.output.append(helper.make_tensor_value_info(name, datatype, [batch, "candidates", *dims]))


def _slice(graph: GraphProto, tensor: str, *, name: str, start: int, stop: int) -> str:
    """Rows `start` to `stop` of `(batch, rows, N)`."""
    bounds = [f"{_PREFIX}{name}/{word}" for word in ("start", "stop", "axis")]
    for bound, value in zip(bounds, (start, stop, 1), strict=True):
        _add_constant(graph, bound, np.array([value], np.int64))
    graph.node.append(helper.make_node("Slice", [tensor, *bounds], [f"{_PREFIX}{name}"]))
    return f"{_PREFIX}{name}"


def _add_constant(graph: GraphProto, name: str, value: Array) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))


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
