"""The `fused` interface of a classifier: pixels in, a probability for each class out."""

from collections.abc import Sequence
from copy import deepcopy
from math import prod

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from export.graph.nodes import add_constant, prune

OUTPUT = "probabilities"
_PREFIX = "fused/"


def declare_classifier(model: ModelProto, *, classes: int) -> ModelProto:
    """Declare the dims of the output, `(batch, classes)`: Triton compares them with those of the config."""
    declared = deepcopy(model)
    _declare(declared.graph, declared.graph.output[0].name, classes)
    del declared.graph.value_info[:]
    return declared


def fuse_classifier(  # noqa: PLR0913 - one argument for each fact
    model: ModelProto,
    *,
    size_hw: tuple[int, int],
    depth: int,
    planes: bool,
    reverses: bool,
    factors: Sequence[float],
    offsets: Sequence[float],
    output: Sequence[int],
    classes: int,
    softmax: bool,
) -> ModelProto:
    """Give a classifier the `fused` interface.

    Args:
        model: one input `images` and one output, as `export.sources.onnx_file.normalise` returns it.
        size_hw: height and width of its input.
        depth: channels of the image.
        planes: whether the graph takes channels before height and width.
        reverses: whether it takes BGR.
        factors: of each channel in the order of the graph, or of all: what a pixel is multiplied by.
        offsets: likewise what is added then.
        output: shape of its output for one image.
        classes: how many, 2 where a single output is the probability of the second one.
        softmax: whether its output is logits.

    Returns:
        Input `image` UINT8 `(batch, height, width, depth)`, output `probabilities` FP32 `(batch, classes)`.
    """
    fused = deepcopy(model)
    graph = fused.graph
    head = [*_take_pixels(graph, size_hw, depth, planes=planes, reverses=reverses)]
    head += _normalise(graph, head[-1].output[0], factors, offsets, planes=planes)
    head[-1].output[0] = graph.input[0].name
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *size_hw, depth])
    nodes = [*head, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(image)
    _give_probabilities(graph, output, classes, softmax=softmax)
    prune(graph)
    del graph.value_info[:]  # shapes before the change
    return fused


def _take_pixels(
    graph: GraphProto, size_hw: tuple[int, int], depth: int, *, planes: bool, reverses: bool
) -> list[NodeProto]:
    """Nodes from `image` to the graph's order of channels and dims, and its datatype."""
    nodes, last = [], "image"
    if reverses:
        add_constant(graph, f"{_PREFIX}bgr", np.array([2, 1, 0], np.int64))
        nodes.append(helper.make_node("Gather", [last, f"{_PREFIX}bgr"], [f"{_PREFIX}reversed"], axis=3))
        last = f"{_PREFIX}reversed"
    if planes and depth == 1:
        add_constant(graph, f"{_PREFIX}plane", np.array([0, 1, *size_hw], np.int64))
        nodes.append(helper.make_node("Reshape", [last, f"{_PREFIX}plane"], [f"{_PREFIX}planes"]))
        last = f"{_PREFIX}planes"
    elif planes:
        # One byte for each value moves a quarter of what four would.
        nodes.append(helper.make_node("Transpose", [last], [f"{_PREFIX}planes"], perm=[0, 3, 1, 2]))
        last = f"{_PREFIX}planes"
    datatype = graph.input[0].type.tensor_type.elem_type
    nodes.append(helper.make_node("Cast", [last], [f"{_PREFIX}pixels"], to=datatype))
    return nodes


def _normalise(
    graph: GraphProto, pixels: str, factors: Sequence[float], offsets: Sequence[float], *, planes: bool
) -> list[NodeProto]:
    """Nodes that multiply and add; none where nothing changes."""
    nodes = []
    shape = (1, -1, 1, 1) if planes else (1, 1, 1, -1)
    for operator, numbers, neutral in (("Mul", factors, 1.0), ("Add", offsets, 0.0)):
        if any(number != neutral for number in numbers):
            name = f"{_PREFIX}{operator.lower()}"
            add_constant(graph, f"{name}/numbers", np.array(numbers, np.float32).reshape(shape))
            nodes.append(helper.make_node(operator, [pixels, f"{name}/numbers"], [name]))
            pixels = name
    return nodes


def _give_probabilities(graph: GraphProto, output: Sequence[int], classes: int, *, softmax: bool) -> None:
    """Declare `probabilities` `(batch, classes)` as the only output."""
    last, columns = graph.output[0].name, prod(output[1:])
    nodes = []
    if len(output) != 2:
        add_constant(graph, f"{_PREFIX}flat", np.array([0, columns], np.int64))
        nodes.append(helper.make_node("Reshape", [last, f"{_PREFIX}flat"], [f"{_PREFIX}rows"]))
        last = f"{_PREFIX}rows"
    if softmax:
        operator = helper.make_node("Sigmoid" if columns == 1 else "Softmax", [last], [f"{_PREFIX}shares"])
        if columns > 1:
            operator.attribute.append(helper.make_attribute("axis", 1))
        nodes.append(operator)
        last = f"{_PREFIX}shares"
    if columns == 1 and classes == 2:
        add_constant(graph, f"{_PREFIX}one", np.array(1, np.float32))
        nodes.append(helper.make_node("Sub", [f"{_PREFIX}one", last], [f"{_PREFIX}first"]))
        nodes.append(helper.make_node("Concat", [f"{_PREFIX}first", last], [OUTPUT], axis=1))
    else:
        nodes.append(helper.make_node("Identity", [last], [OUTPUT]))
    graph.node.extend(nodes)
    _declare(graph, OUTPUT, classes)


def _declare(graph: GraphProto, name: str, classes: int) -> None:
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes]))
