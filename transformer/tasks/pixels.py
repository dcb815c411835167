"""Pixels as a graph of either interface takes them."""

import numpy as np

from transformer.imaging.letterbox import Image
from transformer.tasks.candidates import is_fused
from transformer.tasks.task import Array
from transformer.triton.model import Model


def to_input(image_hwc: Image, model: Model) -> Array:
    """The input of a model, without batch dimension.

    Args:
        image_hwc: RGB, in the size of the input.
        model: `fused` takes pixels as they are, `ultralytics` planes `(3, height, width)` FP32 in 0 to 1.
    """
    if is_fused(model):
        return image_hwc
    return np.ascontiguousarray(image_hwc.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
