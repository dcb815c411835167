"""The `fused` interface of a model that finds objects: pixels in, boxes with their best class out."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from export.graph.head import REST, Layout
from export.graph.nodes import add_constant, prune

_PREFIX = "fused/"
MAX_CANDIDATES = 2048  # of tasks whose candidates are long: coefficients of a mask, keypoints


@dataclass(frozen=True)
class _Tensors:
    """Names of the tensors of all candidates: `(batch, rows, N)`, 4 rows of boxes, 1 of scores and of classes."""

    boxes: str
    scores: str
    classes: str
    rest: str = ""


def fuse(model: ModelProto, layout: Layout) -> ModelProto:
    """Give a model the `fused` interface.

    Args:
        model: as Ultralytics exports it: one input FP32 `(batch, 3, height, width)` in 0 to 1, the head as first
            output, and the prototypes of masks `(batch, M, height / 4, width / 4)` as second one where it has them.
        layout: of the head.

    Returns:
        Input `image` UINT8 `(batch, height, width, 3)`; outputs `boxes` FP32 `(batch, N, 4)` cxcywh in model pixels,
        `scores` FP32 `(batch, N)`, `classes` INT32 `(batch, N)`, and by task `coefficients` FP32 `(batch, N, M)` with
        `prototypes` FP32 `(batch, M, height / 4, width / 4)`, `keypoints` FP32 `(batch, N, K, D)`, or `angles` FP32
        `(batch, N)`. A head that needs NMS gives all candidates in its order where its task is detect, else the best
        `MAX_CANDIDATES`, best first.
    """
    fused = deepcopy(model)
    graph = fused.graph
    take_pixels(graph)
    if layout.class_scores:
        found = _split_queries(graph, layout)
    elif layout.end2end:
        found = _split_finished(graph, layout)
    else:
        found = _choose_classes(graph, layout)
        if layout.rest:
            found = _take_best(graph, found, layout)
    if layout.stretch:
        found = _scale_to_pixels(graph, found)
    _finish(graph, found, layout)
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


def _choose_classes(graph: GraphProto, layout: Layout) -> _Tensors:
    """Candidates of a head `(batch, 4 + classes + rest, N)`: each box with its best class."""
    boxes, class_scores, rest, monotonic = _split_head(graph, layout)
    best, class_ids = _best_class(graph, class_scores)
    if monotonic:  # the best logit has the best sigmoid: one for each box is enough
        graph.node.append(helper.make_node("Sigmoid", [best], [f"{_PREFIX}sigmoids"]))
        best = f"{_PREFIX}sigmoids"
    return _Tensors(boxes, best, class_ids, rest)


def _best_class(graph: GraphProto, class_scores: str) -> tuple[str, str]:
    """The best of `(batch, classes, N)`, and which class has it."""
    best, class_ids = f"{_PREFIX}best", f"{_PREFIX}classes"
    add_constant(graph, f"{_PREFIX}one", np.array([1], np.int64))
    levels = _find_levels(graph, class_scores)
    found = [(best, class_ids)]
    if len(levels) > 1:
        found = [(f"{best}/{level}", f"{class_ids}/{level}") for level in range(len(levels))]
    for scores, outputs in zip(levels, found, strict=True):
        # The first of equal scores, like Ultralytics; in ONNX Runtime half the time of a ReduceMax and an ArgMax.
        graph.node.append(helper.make_node("TopK", [scores, f"{_PREFIX}one"], outputs, axis=1))
    if len(levels) > 1:
        for whole, parts in zip((best, class_ids), zip(*found, strict=True), strict=True):
            graph.node.append(helper.make_node("Concat", parts, [whole], axis=2))
    return best, class_ids


def _find_levels(graph: GraphProto, class_scores: str) -> list[str]:
    """What a head puts its scores together of, by anchor: there is less to put together of the best classes."""
    made_by = next((node for node in graph.node if class_scores in node.output), None)
    if made_by is None or made_by.op_type != "Concat" or made_by.attribute[0].i not in {2, -1}:
        return [class_scores]
    return list(made_by.input)


def _take_best(graph: GraphProto, found: _Tensors, layout: Layout) -> _Tensors:
    """The candidates of the highest scores, at most `MAX_CANDIDATES`, best first; of equal ones the first."""
    count, scores, indices = f"{_PREFIX}count", f"{_PREFIX}top", f"{_PREFIX}top_indices"
    add_constant(graph, f"{_PREFIX}most", np.array([MAX_CANDIDATES], np.int64))
    add_constant(graph, f"{_PREFIX}last", np.array([2], np.int64))
    graph.node.extend(
        [
            helper.make_node("Shape", [found.scores], [f"{_PREFIX}scores/shape"]),
            helper.make_node("Gather", [f"{_PREFIX}scores/shape", f"{_PREFIX}last"], [f"{_PREFIX}all"], axis=0),
            helper.make_node("Min", [f"{_PREFIX}all", f"{_PREFIX}most"], [count]),
            helper.make_node("TopK", [found.scores, count], [scores, indices], axis=2),
        ]
    )

    def take(tensor: str, name: str, rows: int) -> str:
        """`(batch, rows, N)` at these indices, which are the same for all rows."""
        name = f"{_PREFIX}top_{name}"
        wide = indices
        if rows > 1:
            wide = f"{name}/indices"
            add_constant(graph, f"{name}/rows", np.array([1, rows, 1], np.int64))
            graph.node.append(helper.make_node("Expand", [indices, f"{name}/rows"], [wide]))
        graph.node.append(helper.make_node("GatherElements", [tensor, wide], [name], axis=2))
        return name

    return _Tensors(
        take(found.boxes, "boxes", 4),
        scores,
        take(found.classes, "classes", 1),
        take(found.rest, "rest", layout.rest),
    )


def _split_finished(graph: GraphProto, layout: Layout) -> _Tensors:
    """Candidates of a head `(batch, N, 6 + rest)`: box, score, class, rest."""
    rows = _transpose_head(graph)
    score, class_id = (_slice(graph, rows, name=name, rows=(at, at + 1)) for name, at in (("best", 4), ("class", 5)))
    rest = _slice(graph, rows, name="rest", rows=(6, 6 + layout.rest)) if layout.rest else ""
    boxes = _join_corners(graph, rows) if layout.has_corners else _slice(graph, rows, name="boxes", rows=(0, 4))
    return _Tensors(boxes, score, class_id, rest)


def _split_queries(graph: GraphProto, layout: Layout) -> _Tensors:
    """Candidates of a head `(batch, N, 4 + classes)`: centre and size, and a score for each class."""
    rows = _transpose_head(graph)
    boxes = _slice(graph, rows, name="boxes", rows=(0, 4))
    return _Tensors(boxes, *_best_class(graph, _slice(graph, rows, name="class_scores", rows=(4, 4 + layout.classes))))


def _transpose_head(graph: GraphProto) -> str:
    graph.node.append(helper.make_node("Transpose", [graph.output[0].name], [f"{_PREFIX}rows"], perm=[0, 2, 1]))
    return f"{_PREFIX}rows"


def _join_corners(graph: GraphProto, rows: str) -> str:
    """Centre and size of boxes whose corners are the first rows of `(batch, rows, N)`."""
    corners = [_slice(graph, rows, name=name, rows=at) for name, at in (("corner_1", (0, 2)), ("corner_2", (2, 4)))]
    add_constant(graph, f"{_PREFIX}2", np.array(2, np.float32))
    graph.node.extend(
        [
            helper.make_node("Add", corners, [f"{_PREFIX}sum"]),
            helper.make_node("Div", [f"{_PREFIX}sum", f"{_PREFIX}2"], [f"{_PREFIX}centre"]),
            helper.make_node("Sub", corners[::-1], [f"{_PREFIX}size"]),
            helper.make_node("Concat", [f"{_PREFIX}centre", f"{_PREFIX}size"], [f"{_PREFIX}boxes"], axis=1),
        ]
    )
    return f"{_PREFIX}boxes"


def _scale_to_pixels(graph: GraphProto, found: _Tensors) -> _Tensors:
    """Boxes that are fractions of the input, in its pixels."""
    pixels, sides = f"{_PREFIX}boxes_px", f"{_PREFIX}sides"
    add_constant(graph, f"{_PREFIX}width_height", np.array([2, 1, 2, 1], np.int64))
    add_constant(graph, f"{_PREFIX}column", np.array([1, 4, 1], np.int64))
    graph.node.extend(
        [
            helper.make_node("Shape", ["image"], [f"{_PREFIX}image/shape"]),
            helper.make_node("Gather", [f"{_PREFIX}image/shape", f"{_PREFIX}width_height"], [f"{sides}/whole"], axis=0),
            helper.make_node("Cast", [f"{sides}/whole"], [f"{sides}/row"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{sides}/row", f"{_PREFIX}column"], [sides]),
            helper.make_node("Mul", [found.boxes, sides], [pixels]),
        ]
    )
    return _Tensors(pixels, found.scores, found.classes, found.rest)


def _split_head(graph: GraphProto, layout: Layout) -> tuple[str, str, str, bool]:
    """Tensors of boxes `(batch, 4, N)`, of class scores `(batch, classes, N)` and of the rest `(batch, rest, N)`.

    Ultralytics' last nodes are a Sigmoid over all scores and a Concat with the boxes and the rest: both are left out.

    Returns:
        Boxes, class scores, the rest (empty where there is none), and whether the scores still lack their Sigmoid.
    """
    output = graph.output[0].name
    producers = {name: node for node in graph.node for name in node.output}
    last = producers[output]
    if last.op_type == "Concat" and len(last.input) == (3 if layout.rest else 2):
        sigmoid = producers.get(last.input[1])
        if sigmoid is not None and sigmoid.op_type == "Sigmoid":
            return last.input[0], sigmoid.input[0], last.input[2] if layout.rest else "", True
    scores_end = 4 + layout.classes
    boxes = _slice(graph, output, name="boxes", rows=(0, 4))
    scores = _slice(graph, output, name="class_scores", rows=(4, scores_end))
    rest = _slice(graph, output, name="rest", rows=(scores_end, scores_end + layout.rest)) if layout.rest else ""
    return boxes, scores, rest, False


def _finish(graph: GraphProto, found: _Tensors, layout: Layout) -> None:
    """Name and declare the outputs."""
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    add_constant(graph, f"{_PREFIX}flat", np.array([0, -1], np.int64))
    graph.node.extend(
        [
            helper.make_node("Transpose", [found.boxes], ["boxes"], perm=[0, 2, 1]),
            helper.make_node("Reshape", [found.scores, f"{_PREFIX}flat"], ["scores"]),
            helper.make_node("Reshape", [found.classes, f"{_PREFIX}flat"], [f"{_PREFIX}flat_classes"]),
            helper.make_node("Cast", [f"{_PREFIX}flat_classes"], ["classes"], to=TensorProto.INT32),
        ]
    )
    outputs: list[tuple[str, int, Sequence[int | str]]] = [
        ("boxes", TensorProto.FLOAT, ["candidates", 4]),
        ("scores", TensorProto.FLOAT, ["candidates"]),
        ("classes", TensorProto.INT32, ["candidates"]),
    ]
    if layout.rest:
        outputs.append((REST[layout.task], TensorProto.FLOAT, ["candidates", *_finish_rest(graph, found.rest, layout)]))
    if layout.task == "segment":
        graph.node.append(helper.make_node("Identity", [graph.output[1].name], ["prototypes"]))
        outputs.append(("prototypes", TensorProto.FLOAT, [layout.rest, "mask_height", "mask_width"]))
    del graph.output[:]
    for name, datatype, dims in outputs:
        graph.output.append(helper.make_tensor_value_info(name, datatype, [batch, *dims]))


def _finish_rest(graph: GraphProto, rest: str, layout: Layout) -> Sequence[int]:
    """Name `(batch, rest, N)` as its output, and return the dims of each candidate."""
    name = REST[layout.task]
    if layout.task == "obb":
        graph.node.append(helper.make_node("Reshape", [rest, f"{_PREFIX}flat"], [name]))
        return ()
    if layout.kpt_shape is None:
        graph.node.append(helper.make_node("Transpose", [rest], [name], perm=[0, 2, 1]))
        return (layout.rest,)
    add_constant(graph, f"{_PREFIX}kpt_shape", np.array([0, 0, *layout.kpt_shape], np.int64))
    graph.node.extend(
        [
            helper.make_node("Transpose", [rest], [f"{_PREFIX}flat_rest"], perm=[0, 2, 1]),
            helper.make_node("Reshape", [f"{_PREFIX}flat_rest", f"{_PREFIX}kpt_shape"], [name]),
        ]
    )
    return layout.kpt_shape


def _slice(graph: GraphProto, tensor: str, *, name: str, rows: tuple[int, int]) -> str:
    """Rows of `(batch, rows, N)`, from the first to before the second."""
    bounds = [f"{_PREFIX}{name}/{word}" for word in ("start", "stop", "axis")]
    for bound, value in zip(bounds, (*rows, 1), strict=True):
        add_constant(graph, bound, np.array([value], np.int64))
    graph.node.append(helper.make_node("Slice", [tensor, *bounds], [f"{_PREFIX}{name}"]))
    return f"{_PREFIX}{name}"
