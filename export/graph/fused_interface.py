"""The `fused` interface of a detector: pixels in, boxes with their best class out."""

from copy import deepcopy

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from export.graph.nodes import add_constant, prune

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
    fused = deepcopy(model)
    graph = fused.graph
    take_pixels(graph)
    if end2end:
        _split_finished(graph)
    else:
        _choose_classes(graph, classes=classes)
    prune(graph)
    del graph.value_info[:]  # shapes before the change
    return fused


def take_pixels(graph: GraphProto) -> None:
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
        add_constant(graph, f"{_PREFIX}255", np.array(255, np.float32))
        nodes.append(helper.make_node("Div", [scaled, f"{_PREFIX}255"], [images.name]))
    body = [*nodes, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(body)
    graph.input.append(image)


def _fold_scale(graph: GraphProto, images: str) -> bool:
    """Divide the weights of the convolutions that read the input by 255; zero padding stays zero.

    Returns:
        False, and nothing is changed, where another operator reads the input (a quantised graph).
    """
    weights = {initializer.name: initializer for initializer in graph.initializer}
    readers = [node for node in graph.node if images in node.input]
    if any(node.op_type != "Conv" or node.input[1] not in weights for node in readers):
        return False
    for index, node in enumerate(readers):
        name = f"{_PREFIX}weight/{index}"
        add_constant(graph, name, numpy_helper.to_array(weights[node.input[1]]) / np.float32(255))
        node.input[1] = name
    return True


def _choose_classes(graph: GraphProto, *, classes: int) -> None:
    """Candidates of a head `(batch, 4 + classes, N)`: each box with its best class."""
    boxes, class_scores, monotonic = _split_head(graph, classes=classes)
    best, class_ids = f"{_PREFIX}best", f"{_PREFIX}classes"
    add_constant(graph, f"{_PREFIX}one", np.array([1], np.int64))
    # The first of equal scores, like Ultralytics; in ONNX Runtime half the time of a ReduceMax and an ArgMax.
    graph.node.append(helper.make_node("TopK", [class_scores, f"{_PREFIX}one"], [best, class_ids], axis=1))
    if monotonic:  # the best logit has the best sigmoid: one for each box is enough
        graph.node.append(helper.make_node("Sigmoid", [best], [f"{_PREFIX}sigmoids"]))
        best = f"{_PREFIX}sigmoids"
    _finish(graph, boxes=boxes, scores=best, classes=class_ids)


def _split_finished(graph: GraphProto) -> None:
    """Candidates of a head `(batch, N, 6)`: corners, score, class."""
    output = graph.output[0].name
    columns = {"corner_1": (0, 2), "corner_2": (2, 4), "best": (4, 5), "class": (5, 6)}
    graph.node.append(helper.make_node("Transpose", [output], [f"{_PREFIX}rows"], perm=[0, 2, 1]))
    for name, (start, stop) in columns.items():
        _slice(graph, f"{_PREFIX}rows", name=name, start=start, stop=stop)
    add_constant(graph, f"{_PREFIX}2", np.array(2, np.float32))
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

    Ultralytics' last nodes are a Sigmoid over all scores and a Concat with the boxes: both are left out.

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
    add_constant(graph, f"{_PREFIX}flat", np.array([0, -1], np.int64))
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
        add_constant(graph, bound, np.array([value], np.int64))
    graph.node.append(helper.make_node("Slice", [tensor, *bounds], [f"{_PREFIX}{name}"]))
    return f"{_PREFIX}{name}"
