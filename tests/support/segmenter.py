"""A correct segmenter in a few operators: red and blue shapes on black."""

from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.writer.config import describe_model
from transformer.imaging.letterbox import Image
from transformer.imaging.masks import Mask
from transformer.tasks.segment import Segments

SIDE = 64
NAMES = {0: "red", 1: "blue"}
# In order: the red half, the blue half, and nothing in the lower left corner, whose mask is empty.
BOXES_XYXY = np.array([[0, 0, 32, 64], [32, 0, 64, 64], [0, 56, 8, 64]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7], np.float32)
CLASSES = np.array([0, 1, 0], np.int32)
COEFFICIENTS = np.eye(2, dtype=np.float32)[CLASSES]
CONFIG = describe_model(
    "shapes",
    ("image", "TYPE_UINT8", (SIDE, SIDE, 3)),
    outputs=[
        ("boxes", "TYPE_FP32", (3, 4)),
        ("scores", "TYPE_FP32", (3,)),
        ("classes", "TYPE_INT32", (3,)),
        ("coefficients", "TYPE_FP32", (3, 2)),
        ("prototypes", "TYPE_FP32", (2, SIDE // 4, SIDE // 4)),
    ],
    max_batch_size=8,
    metadata={"task": "segment", "imgsz": [SIDE, SIDE], "names": NAMES, "all_candidates": True},
)


def build_segmenter() -> onnx.ModelProto:
    """`fused` outputs: boxes of halves, and as prototypes how red and how blue each 4x4 pixels are."""
    centres = (BOXES_XYXY[:, :2] + BOXES_XYXY[:, 2:]) / 2
    fixed = {
        "boxes": np.concatenate([centres, BOXES_XYXY[:, 2:] - BOXES_XYXY[:, :2]], axis=1),
        "scores": SCORES,
        "classes": CLASSES,
        "coefficients": COEFFICIENTS,
    }
    constants: dict[str, NDArray[Any]] = {f"{name}_of_one": array[None] for name, array in fixed.items()}
    constants |= {
        "half": np.array(128, np.float32),
        "channels": np.array([0, 2], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "channels"], ["two"], axis=1),
        helper.make_node("AveragePool", ["two"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["means", "half"], ["prototypes"]),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
    ]
    for name, array in fixed.items():
        constants[f"{name}_shape"] = np.array(array.shape, np.int64)
        nodes += [
            helper.make_node("Concat", ["count", f"{name}_shape"], [f"{name}_all"], axis=0),
            helper.make_node("Expand", [f"{name}_of_one", f"{name}_all"], [name]),
        ]
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "classes": TensorProto.INT32}
    outputs = [
        helper.make_tensor_value_info(output.name, kinds.get(output.name, TensorProto.FLOAT), ["batch", *output.dims])
        for output in CONFIG.output
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    values = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "segmenter", [image], outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def draw_shapes() -> Image:
    """Two red discs, one of them larger, and a blue rectangle."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    cv2.circle(image, (16, 20), 12, (255, 0, 0), cv2.FILLED)
    cv2.circle(image, (16, 48), 6, (255, 0, 0), cv2.FILLED)
    cv2.rectangle(image, (40, 12), (59, 51), (0, 0, 255), cv2.FILLED)
    return image


def segment(image: Image) -> Segments:
    """The source program, in its own words: the image reduced to a quarter and enlarged again."""
    masks: dict[int, Mask] = {}
    for index, (box, class_id) in enumerate(zip(BOXES_XYXY.astype(int), CLASSES, strict=True)):
        means = image[..., 2 * class_id].reshape(SIDE // 4, 4, SIDE // 4, 4).mean(axis=(1, 3))
        bits = np.zeros((SIDE, SIDE), np.uint8)
        within = np.s_[box[1] : box[3], box[0] : box[2]]
        bits[within] = (cv2.resize(means, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) > 128)[within]
        if mask := encode(bits):
            masks[index] = mask
    kept = list(masks)
    return Segments(BOXES_XYXY[kept], SCORES[kept], CLASSES[kept].astype(np.int64), masks=list(masks.values()))


def encode(bits: NDArray[np.uint8]) -> Mask | None:
    """A mask of the whole image; None where it is empty."""
    flat = np.concatenate([[0], bits.T.reshape(-1)])
    counts = np.diff(np.flatnonzero(flat[1:] != flat[:-1]), prepend=0, append=bits.size)
    return Mask((bits.shape[1], bits.shape[0]), counts if counts[-1] else counts[:-1]) if bits.any() else None


def decode(mask: Mask) -> NDArray[np.bool_]:
    """The pixels of a mask, `(height, width)`."""
    bits = np.zeros(mask.size_wh[::-1], np.bool_)
    crop, (x, y) = mask.crop()
    bits[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return bits
