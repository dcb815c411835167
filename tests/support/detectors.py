"""Tiny detectors as ONNX models, built in tests."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.graph.head import Layout
from export.proof.session import Session

CLASSES = 3
PLAIN = Layout("detect", CLASSES, end2end=False)
FINISHED = Layout("detect", CLASSES, end2end=True)


def build_detector(*, opset: int = 17, batch: int | str = "batch", sigmoid: bool = True) -> ModelProto:
    """A detector of one convolution; each pixel is an anchor: `(batch, 4 + CLASSES, height * width)`."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4 + CLASSES, 3, 3, 3)), rng.normal(size=4 + CLASSES)
    # Valid boxes: some pixels large, inside the image.
    weight[:4] /= 8
    bias[:4] += 12, 12, 8, 8
    constants: dict[str, NDArray[Any]] = {
        "weight": weight.astype(np.float32),
        "bias": bias.astype(np.float32),
        "flat": np.array([1 if batch == 1 else 0, 4 + CLASSES, -1], np.int64),
        "parts": np.array([4, CLASSES], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weight", "bias"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["map", "flat"], ["head"]),
        helper.make_node("Split", ["head", "parts"], ["box", "logits"], axis=1),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
        # An operator between Sigmoid and Concat hides the pattern that graph surgery recognises.
        helper.make_node("Identity", ["probability"], ["hidden"]),
        helper.make_node("Concat", ["box", "probability" if sigmoid else "hidden"], ["output0"], axis=1),
    ]
    return build_model(nodes, constants, output=[batch, 4 + CLASSES, "anchors"], opset=opset, batch=batch)


def build_finished(*, rows: int = 5) -> ModelProto:
    """A head without NMS: `(batch, rows, 6)`, unsorted, corners derived from the image's mean."""
    table = np.random.default_rng(1).uniform(0, 1, (1, rows, 6)).astype(np.float32)
    table[..., 2:4] += 5
    table[..., 5] = np.arange(rows) % CLASSES
    constants: dict[str, NDArray[Any]] = {"table": table, "flat": np.array([0, 1, 1], np.int64)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("ReduceMean", ["means"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["factor"]),
        helper.make_node("Sub", ["factor", "factor"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output0"]),
    ]
    return build_model(nodes, constants, output=["batch", rows, 6], opset=17, batch="batch")


def build_model(
    nodes: list[Any], constants: dict[str, NDArray[Any]], *, output: list[Any], opset: int, batch: int | str
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def fix_size(model: ModelProto, *, height: int | None = None, width: int | None = None) -> ModelProto:
    """The model with fixed sides of its input."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in ((dims[2], height), (dims[3], width)):
        if size is not None:
            dim.dim_value = size
    return model


def run(model: ModelProto, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return dict(Session(model, name="tiny").infer(batch))


def draw(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, 3), np.uint8)


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


BINS = 16


def build_distributed(*, opset: int = 17, bins: NDArray[np.float32] | None = None) -> ModelProto:
    """Two convolutions, then a distribution over bins for each side of a box, decoded as in YOLOv8."""
    rng = np.random.default_rng(0)
    weights = np.arange(BINS, dtype=np.float32) if bins is None else bins
    shapes: dict[str, list[int]] = {
        "split": [4 * BINS, CLASSES],
        "sides": [0, 4, BINS, -1],
        "flat": [0, 0, -1],
        "four": [0, 4, -1],
    }
    known: dict[str, NDArray[Any]] = {
        "first": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "last": rng.normal(0, 0.5, (4 * BINS + CLASSES, 8, 1, 1)).astype(np.float32),
        "bias": rng.normal(size=4 * BINS + CLASSES).astype(np.float32),
        "bins": weights.reshape(1, -1, 1, 1),
        "stride": np.array([4, 4, 2, 2], np.float32).reshape(1, 4, 1),
        **{name: np.array(shape, np.int64) for name, shape in shapes.items()},
    }
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["mixed"], ["features"]),
        helper.make_node("Conv", ["features", "last", "bias"], ["map"]),
        helper.make_node("Reshape", ["map", "flat"], ["rows"]),
        helper.make_node("Split", ["rows", "split"], ["box", "logits"], axis=1),
        helper.make_node("Reshape", ["box", "sides"], ["by_side"]),
        helper.make_node("Transpose", ["by_side"], ["by_bin"], perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["by_bin"], ["distribution"], axis=1),
        helper.make_node("Conv", ["distribution", "bins"], ["distances"]),
        helper.make_node("Reshape", ["distances", "four"], ["sides_px"]),
        helper.make_node("Mul", ["sides_px", "stride"], ["boxes_px"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
        helper.make_node("Concat", ["boxes_px", "probability"], ["output0"], axis=1),
    ]
    return build_model(nodes, known, output=["batch", 4 + CLASSES, "anchors"], opset=opset, batch="batch")


METADATA = {
    "task": "detect",
    "names": "{0: 'a', 1: 'b', 2: 'c'}",
    "imgsz": "[64, 96]",
    "stride": "32",
    "channels": "3",
    "args": "{'dynamic': True, 'nms': None}",
}


def pass_over(step: str) -> None:
    """A progress callback that ignores its steps."""


def save(folder: Path, model: ModelProto | None = None, **changes: str | None) -> Path:
    model = model or build_detector()
    for key, value in (METADATA | changes).items():
        if value is not None:
            model.metadata_props.add(key=key, value=value)
    onnx.save(model, folder / "tiny.onnx")
    return folder / "tiny.onnx"


SQUARES_PX = 64  # side of the finder's images
_CELL_PX = 16


def build_finder() -> ModelProto:
    """A correct detector for red, green and blue squares that fill a cell of a 4x4 grid, and for stop signs.

    Two convolutions: by how much a cell has more of one colour than of the others, at several gains, and the
    logits. Each cell is an anchor whose box is the cell.
    """
    side, copies = SQUARES_PX // _CELL_PX, 4
    means = np.full((CLASSES, 3, _CELL_PX, _CELL_PX), -0.5 / _CELL_PX**2, np.float32)
    means[np.arange(CLASSES), np.arange(3)] *= -2
    steep = np.tile(np.eye(CLASSES, dtype=np.float32) * 40 / copies, (1, copies))
    centres = np.arange(side) * _CELL_PX + _CELL_PX / 2
    boxes = np.stack([*np.meshgrid(centres, centres), *np.full((2, side, side), _CELL_PX)]).reshape(1, 4, -1)
    constants: dict[str, NDArray[Any]] = {
        "means": np.tile(means, (copies, 1, 1, 1)),
        "steep": steep[..., None, None],
        "bias": np.full(CLASSES, -8, np.float32),
        "cells": boxes.astype(np.float32),
        "flat": np.array([0, CLASSES, -1], np.int64),
        "nothing": np.zeros(1, np.float32),
        **{name: np.array([value], np.int64) for name, value in (("zero", 0), ("one", 1))},
    }
    nodes = [
        helper.make_node("Conv", ["images", "means"], ["colours"], strides=[_CELL_PX, _CELL_PX]),
        helper.make_node("Conv", ["colours", "steep", "bias"], ["map"]),
        helper.make_node("Reshape", ["map", "flat"], ["logits"]),
        helper.make_node("Slice", ["logits", "zero", "one", "one"], ["some"]),
        helper.make_node("Mul", ["some", "nothing"], ["none"]),
        helper.make_node("Add", ["cells", "none"], ["box"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
        helper.make_node("Concat", ["box", "probability"], ["output0"], axis=1),
    ]
    size: list[int | str] = ["batch", 3, SQUARES_PX, SQUARES_PX]
    graph = helper.make_graph(
        nodes,
        "finder",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + CLASSES, side * side])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def draw_squares(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """An image for the finder: RGB, boxes xyxy in pixels, classes."""
    rng = np.random.default_rng(seed)
    side = SQUARES_PX // _CELL_PX
    image = rng.integers(0, 40, (SQUARES_PX, SQUARES_PX, 3), np.uint8)
    cells = rng.choice(side * side, size=4, replace=False)
    corners = np.stack([cells % side, cells // side], axis=1) * _CELL_PX
    class_ids = rng.integers(CLASSES, size=len(cells))
    for (x, y), class_id in zip(corners, class_ids, strict=True):
        image[y : y + _CELL_PX, x : x + _CELL_PX] = rng.integers(0, 20, 3)
        image[y : y + _CELL_PX, x : x + _CELL_PX, class_id] = rng.integers(230, 256)
    return image, np.concatenate([corners, corners + _CELL_PX], axis=1).astype(np.float32), class_ids
