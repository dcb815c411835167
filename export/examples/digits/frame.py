"""The frame in which the classifier gets a digit: the same arithmetic in NumPy, for training, and in ONNX, for serving.

Parity verifies that the two are equal. Each image is computed by itself, so a batch has the outputs of its images.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, numpy_helper, parser

Floats = NDArray[np.float32]

SIDE = 32  # of the image
CELLS = 12  # of the frame
FEATURES = CELLS * CELLS

_INK = np.float32(0.3)  # paler pixels are paper, noise or blur
_REACH = np.float32(2.3)  # half the frame's side, in standard deviations of the ink
_NARROWEST = np.float32(0.35)  # of the other side: a 1 must not fill the frame's width

# Centre and spread of the ink along an axis.
_SPREAD = """
    weight_{axis} = Mul (weight, {axis})
    sum_{axis} = ReduceSum (weight_{axis}, plane_axes)
    centre_{axis} = Div (sum_{axis}, total)
    from_{axis} = Sub ({axis}, centre_{axis})
    square_{axis} = Mul (from_{axis}, from_{axis})
    moment_{axis} = Mul (weight, square_{axis})
    moment_sum_{axis} = ReduceSum (moment_{axis}, plane_axes)
    variance_{axis} = Div (moment_sum_{axis}, total)
    spread_{axis} = Sqrt (variance_{axis})
"""
# Weights of the pixels along an axis for each cell along it.
_SAMPLE = """
    extent_{axis} = Max (spread_{axis}, least)
    reach_{axis} = Mul (extent_{axis}, steps_{axis})
    middles_{axis} = Add (centre_{axis}, reach_{axis})
    to_middles_{axis} = Sub ({axis}_pixels, middles_{axis})
    distance_{axis} = Abs (to_middles_{axis})
    gap_{axis} = Sub (one, distance_{axis})
    hat_{axis} = Relu (gap_{axis})
"""
_GRAPH = f"""
frame (uint8[batch, {SIDE}, {SIDE}, 1] image) => (float[batch, {FEATURES}] cells) {{
    values = Cast <to = 1> (image)
    grey = Reshape (values, shape_plane)
    low = ReduceMin <axes = [1, 2]> (grey)
    high = ReduceMax <axes = [1, 2]> (grey)
    range = Sub (high, low)
    contrast = Max (range, one)
    above = Sub (grey, low)
    level = Div (above, contrast)

    bordering = Mul (level, border)
    paper = ReduceSum (bordering, plane_axes)
    is_light = Greater (paper, half)
    inverse = Sub (one, level)
    ink = Where (is_light, inverse, level)

    strong = Sub (ink, pale)
    weight = Relu (strong)
    weight_sum = ReduceSum (weight, plane_axes)
    total = Add (weight_sum, little)
    {_SPREAD.format(axis="x")}
    {_SPREAD.format(axis="y")}
    widest = Max (spread_x, spread_y)
    least = Mul (widest, narrowest)
    {_SAMPLE.format(axis="x")}
    {_SAMPLE.format(axis="y")}
    lines = MatMul (hat_y, ink)
    sampled = MatMul (lines, hat_x)
    cells = Reshape (sampled, shape_cells)
}}
"""


def frame(images: NDArray[np.uint8]) -> Floats:
    """The ink of a digit in the frame of the classifier.

    Args:
        images: `(batch, SIDE, SIDE, 1)`.

    Returns:
        Ink from 0 to 1, `(batch, FEATURES)`.
    """
    grey = images[..., 0].astype(np.float32)
    low, high = grey.min(axis=(1, 2), keepdims=True), grey.max(axis=(1, 2), keepdims=True)
    level = (grey - low) / np.maximum(high - low, np.float32(1))
    paper = _sum(level * _border())
    ink = np.where(paper > np.float32(0.5), np.float32(1) - level, level)
    weight = np.maximum(ink - _INK, np.float32(0))
    total = _sum(weight) + np.float32(1e-3)
    x = np.arange(SIDE, dtype=np.float32)[None, None, :]
    y = x.reshape(1, SIDE, 1)
    centre_x, centre_y = _sum(weight * x) / total, _sum(weight * y) / total
    spread_x = np.sqrt(_sum(weight * (x - centre_x) ** 2) / total)
    spread_y = np.sqrt(_sum(weight * (y - centre_y) ** 2) / total)
    least = np.maximum(spread_x, spread_y) * _NARROWEST
    columns = centre_x + np.maximum(spread_x, least) * _steps()[None, None, :]
    rows = centre_y + np.maximum(spread_y, least) * _steps()[None, :, None]
    # Bilinear sampling, zero outside: around each sampling point a hat of one pixel. Two products do all of it.
    hat_x = np.maximum(1 - np.abs(y - columns), np.float32(0))
    hat_y = np.maximum(1 - np.abs(x - rows), np.float32(0))
    cells: Floats = (hat_y @ ink @ hat_x).reshape(len(images), FEATURES)
    return cells


def describe_graph() -> GraphProto:
    """The frame in ONNX: `image` UINT8 `(batch, SIDE, SIDE, 1)` -> `cells` FP32 `(batch, FEATURES)`, opset 17."""
    graph: GraphProto = parser.parse_graph(_GRAPH)
    pixels = np.arange(SIDE, dtype=np.float32)
    constants = {
        "shape_plane": np.array([0, SIDE, SIDE], np.int64),
        "shape_cells": np.array([0, FEATURES], np.int64),
        "plane_axes": np.array([1, 2], np.int64),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "little": np.float32(1e-3),
        "pale": _INK,
        "narrowest": _NARROWEST,
        "border": _border(),
        "x": pixels[None, None, :],
        "y": pixels[None, :, None],
        "steps_x": _steps()[None, None, :],
        "steps_y": _steps()[None, :, None],
        "x_pixels": pixels[None, :, None],
        "y_pixels": pixels[None, None, :],
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    return graph


def _sum(planes: Floats) -> Floats:
    return np.asarray(planes.sum(axis=(1, 2), keepdims=True))


def _border() -> Floats:
    """Weights of the outermost pixels and the corners, one in sum: where a digit is least likely to be."""
    ring, corners = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32)
    ring[[0, -1]] = ring[:, [0, -1]] = 1
    near = SIDE // 8
    corners[:near, :near] = corners[:near, -near:] = corners[-near:, :near] = corners[-near:, -near:] = 1
    weights: Floats = (ring / ring.sum() + corners / corners.sum()) / np.float32(2)
    return weights


def _steps() -> Floats:
    """Places of the cells, in standard deviations of the ink."""
    middles = (np.arange(CELLS, dtype=np.float32) + np.float32(0.5)) / np.float32(CELLS)
    return (middles * 2 - 1) * _REACH
