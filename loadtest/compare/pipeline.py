"""The whole way of an image in one process: decode, letterbox, model, NMS. What a server of it could be at best."""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Infer = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]

_CONFIDENCE, _IOU = 0.25, 0.7  # Nereid's defaults, and Ultralytics'
_GREY = 114


def detect(encoded: bytes, infer: Infer, *, size: int, stride: int) -> NDArray[np.float32]:
    """Detections of an image.

    Args:
        encoded: JPEG.
        infer: of the `fused` interface: `image` UINT8 `(1, height, width, 3)` to `boxes`, `scores` and `classes`.
        size: longer side of the model's input, pixels.
        stride: the sides are multiples of it.

    Returns:
        `(N, 6)`: x1, y1, x2, y2 in pixels of the image, score, class.
    """
    image_hwc = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    height, width = image_hwc.shape[:2]
    factor = min(size / width, size / height)
    inner_wh = round(width * factor), round(height * factor)
    resized = cv2.resize(image_hwc, inner_wh, interpolation=cv2.INTER_LINEAR) if factor != 1 else image_hwc
    space_x, space_y = (-side % stride for side in inner_wh)
    left, top = space_x // 2, space_y // 2
    padded = cv2.copyMakeBorder(
        resized, top, space_y - top, left, space_x - left, cv2.BORDER_CONSTANT, value=(_GREY,) * 3
    )
    outputs = {name: output[0] for name, output in infer(np.asarray(padded, np.uint8)[None]).items()}
    return _select(outputs, np.array([left, top, left, top], np.float32), factor)


def _select(outputs: Mapping[str, NDArray[Any]], pad: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    (high,) = np.nonzero(outputs["scores"] > _CONFIDENCE)
    boxes, scores, classes = (outputs[name][high].astype(np.float32) for name in ("boxes", "scores", "classes"))
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)  # x, y, width, height
    kept = cv2.dnn.NMSBoxesBatched(corners.tolist(), scores.tolist(), classes.astype(int).tolist(), _CONFIDENCE, _IOU)
    corners[:, 2:] += corners[:, :2]
    return np.column_stack([(corners - pad) / factor, scores, classes])[np.asarray(kept, np.int64).reshape(-1)]
