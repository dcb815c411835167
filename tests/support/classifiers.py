"""Tiny classifiers and other graphs as ONNX models, built in tests."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE = 32
LABELS = ("cat", "dog", "cow")
_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def build_classifier(
    *,
    layout: str = "nchw",
    channels: int = 3,
    batch: int | str = "batch",
    side: int = SIDE,
    sides: Sequence[Any] | None = None,
    datatype: str = "fp32",
    end: str = "logits",
    columns: int = len(LABELS),
    further: bool = False,
) -> ModelProto:
    """A network that sees where in the image something is: a convolution of 8 x 8 patches, and a layer over them.

    Args:
        layout: of its input.
        channels: of its input.
        batch: first dim.
        side: height and width of its input.
        sides: as the file has them, such as names of free ones.
        datatype: of its input and output; an output is never `uint8`.
        end: `logits`, `softmax`, `sigmoid`, or `map` for logits `(batch, columns, 1, 1)`.
        columns: how many numbers it returns.
        further: whether it returns its features too.
    """
    random = np.random.default_rng(0)
    patches, sides = (side // 8) ** 2, sides or (side, side)
    constants: dict[str, NDArray[Any]] = {
        "kernel": random.normal(size=(4, channels, 8, 8)).astype(np.float32) / 8,
        "layer": random.normal(size=(4 * patches, columns)).astype(np.float32) / 2,
        "rows": np.array([-1, 4 * patches], np.int64),
    }
    nodes, last = [], "pixel_values"
    if datatype != "fp32":
        nodes, last = [helper.make_node("Cast", [last], ["numbers"], to=TensorProto.FLOAT)], "numbers"
    if datatype == "uint8":
        constants["level"] = np.array(1 / 255, np.float32)
        nodes, last = [*nodes, helper.make_node("Mul", [last, "level"], ["scaled"])], "scaled"
    if layout == "nhwc":
        nodes, last = [*nodes, helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2])], "planes"
    nodes += [
        helper.make_node("Conv", [last, "kernel"], ["patches"], strides=[8, 8]),
        helper.make_node("Relu", ["patches"], ["features"]),
        helper.make_node("Reshape", ["features", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "layer"], ["scores"]),
    ]
    nodes += _finish(end, half=datatype == "fp16")
    float_type = TensorProto.FLOAT16 if datatype == "fp16" else TensorProto.FLOAT
    dims = [batch, channels, *sides] if layout == "nchw" else [batch, *sides, channels]
    outputs = [helper.make_tensor_value_info("result", float_type, [batch, columns, *([1, 1] if end == "map" else [])])]
    if further:
        outputs.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 4, "rows_", "columns_"]))
    inputs = [helper.make_tensor_value_info("pixel_values", _TYPES[datatype], dims)]
    return build(nodes, inputs, outputs, constants)


def _finish(end: str, *, half: bool) -> list[NodeProto]:
    nodes, last = [], "scores"
    if end in {"softmax", "sigmoid"}:
        operator = {"softmax": "Softmax", "sigmoid": "Sigmoid"}[end]
        nodes, last = [helper.make_node(operator, [last], ["shares"])], "shares"
    if end == "map":
        nodes, last = [*nodes, helper.make_node("Unsqueeze", [last, "axes"], ["mapped"])], "mapped"
    if half:
        return [*nodes, helper.make_node("Cast", [last], ["result"], to=TensorProto.FLOAT16)]
    return [*nodes, helper.make_node("Identity", [last], ["result"])]


def build(
    nodes: Sequence[NodeProto], inputs: Sequence[Any], outputs: Sequence[Any], constants: dict[str, NDArray[Any]]
) -> ModelProto:
    """A model of opset 17."""
    constants = {"axes": np.array([2, 3], np.int64), **constants}
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def build_tensors(kind: str) -> ModelProto:
    """Graphs whose tensors are of a kind that some models have."""
    return _TENSORS[kind]()


def _info(name: str, datatype: int, shape: Sequence[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, datatype, shape)


def _sum_and_product() -> ModelProto:
    nodes = [
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["numbers", "left"], ["total"]),
        helper.make_node("Mul", ["numbers", "left"], ["products"]),
        helper.make_node("Cast", ["products"], ["product"], to=TensorProto.FLOAT16),
    ]
    inputs = [_info("tokens", TensorProto.INT64, ["b", "n"]), _info("left", TensorProto.FLOAT, ["b", "n"])]
    outputs = [_info("total", TensorProto.FLOAT, ["b", "n"]), _info("product", TensorProto.FLOAT16, ["b", "n"])]
    return build(nodes, inputs, outputs, {})


def _one(node: NodeProto, source: Any, result: Any, **constants: NDArray[Any]) -> ModelProto:
    return build([node], [source], [result], constants)


_X = "x"
_TENSORS: dict[str, Callable[[], ModelProto]] = {
    "several": _sum_and_product,
    "fixed batch": lambda: _one(
        helper.make_node("Relu", [_X], ["y"]),
        _info(_X, TensorProto.FLOAT, [1, 4]),
        _info("y", TensorProto.FLOAT, [1, 4]),
    ),
    "batch of numbers": lambda: _one(
        helper.make_node("Abs", [_X], ["y"]),
        _info(_X, TensorProto.FLOAT, ["b"]),
        _info("y", TensorProto.FLOAT, ["b"]),
    ),
    "first dim is no batch": lambda: _one(
        helper.make_node("Softmax", [_X], ["y"], axis=0),
        _info(_X, TensorProto.FLOAT, ["n", 3]),
        _info("y", TensorProto.FLOAT, ["n", 3]),
    ),
    "scalars": lambda: _one(
        helper.make_node("Neg", [_X], ["y"]), _info(_X, TensorProto.FLOAT, []), _info("y", TensorProto.FLOAT, [])
    ),
    "strings": lambda: _one(
        helper.make_node("Cast", [_X], ["y"], to=TensorProto.STRING),
        _info(_X, TensorProto.STRING, ["b", 2]),
        _info("y", TensorProto.STRING, ["b", 2]),
    ),
    "bools": lambda: _one(
        helper.make_node("Not", [_X], ["y"]),
        _info(_X, TensorProto.BOOL, ["b", 2]),
        _info("y", TensorProto.BOOL, ["b", 2]),
    ),
    "no rank": lambda: _one(
        helper.make_node("Reshape", [_X, "shape"], ["y"]),
        _info(_X, TensorProto.FLOAT, [2, 3]),
        _info("y", TensorProto.FLOAT, None),
        shape=np.array([3, 2], np.int64),
    ),
    "chance": lambda: _one(
        helper.make_node("RandomNormalLike", [_X], ["y"]),
        _info(_X, TensorProto.FLOAT, ["b", 3]),
        _info("y", TensorProto.FLOAT, ["b", 3]),
    ),
    "none runs": lambda: _one(
        helper.make_node("Reshape", [_X, "shape"], ["y"]),
        _info(_X, TensorProto.FLOAT, ["n", 3]),
        _info("y", TensorProto.FLOAT, ["m", 7]),
        shape=np.array([-1, 7], np.int64),
    ),
    "of Microsoft": lambda: _one(
        helper.make_node("Gelu", [_X], ["y"], domain="com.microsoft"),
        _info(_X, TensorProto.FLOAT, ["b", 3]),
        _info("y", TensorProto.FLOAT, ["b", 3]),
    ),
}
