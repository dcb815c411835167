"""Classification: a picture in, a probability for each class out."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.letterbox import Image
from transformer.triton.model import Model

_LONGEST_SIDE = 2048


def preprocess(image_hwc: Image, model: Model) -> NDArray[np.uint8]:
    """Bring a picture to the model's size and channels.

    The shorter side is widened by repeating the edge, so that nothing is cut off and proportions stay.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        model: says size and channels (1: grey).

    Returns:
        UINT8 `(height, width, channels)`, without batch dimension.
    """
    assert model.input_wh is not None, "describe() refuses a classifier without imgsz"  # noqa: S101
    height, width = image_hwc.shape[:2]
    plane = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY) if model.channels == 1 else image_hwc
    if max(height, width) > _LONGEST_SIDE:
        # Squaring takes the longer side squared in memory: scale down first.
        scale = _LONGEST_SIDE / max(height, width)
        size_wh = max(round(width * scale), 1), max(round(height * scale), 1)
        plane = cv2.resize(plane, size_wh, interpolation=cv2.INTER_AREA)
        height, width = plane.shape[:2]
    space_x, space_y = max(height - width, 0), max(width - height, 0)
    square = cv2.copyMakeBorder(
        plane, space_y // 2, space_y - space_y // 2, space_x // 2, space_x - space_x // 2, cv2.BORDER_REPLICATE
    )
    interpolation = cv2.INTER_AREA if square.shape[0] > model.input_wh[1] else cv2.INTER_LINEAR
    resized = cv2.resize(square, model.input_wh, interpolation=interpolation)
    return np.asarray(resized, np.uint8).reshape(model.input_wh[1], model.input_wh[0], model.channels)


def postprocess(outputs: Mapping[str, NDArray[Any]], model: Model) -> NDArray[np.float32]:
    """Probabilities `(classes,)` from the model's only output.

    Raises:
        PredictorError: the output has another shape than the model has classes.
    """
    (probabilities,) = (outputs[output.name] for output in model.outputs[:1])
    if probabilities.shape != (model.classes,):
        raise PredictorError(f"{model.name}: got probabilities {probabilities.shape}, expected ({model.classes},)")
    return probabilities.astype(np.float32, copy=False)
