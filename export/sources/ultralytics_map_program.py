"""Runs semantic segmentation and depth as Ultralytics does, which needs torch: like `ultralytics_checkpoint`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError, first_line
from export.sources.ultralytics_checkpoint import Checkpoint
from transformer.tasks.depth import DepthMap
from transformer.tasks.semantic import Segmentation, count_values, map_dtype
from transformer.tasks.task import ImagePrediction
from transformer.triton.model import Model

Image = NDArray[np.uint8]
Predict = Callable[[Image], ImagePrediction]
RunMap = Callable[[NDArray[np.float32]], NDArray[Any]]


def run_network(yolo: Any) -> RunMap:
    """The network of a checkpoint in FP32, as it was trained, with the last steps that an ONNX file has inside.

    Returns:
        `(batch, 3, height, width)` in, the map as `output0` of the ONNX file has it out.
    """
    import torch  # noqa: PLC0415 - only where a .pt is exported
    from torch.nn.functional import interpolate  # noqa: PLC0415 - as above

    network = yolo.model.float().eval()

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(images))
            logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
            is_depth = yolo.task == "depth"
            full = interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=is_depth)
            if is_depth:
                return np.asarray(full.numpy(), np.float32)
            best = full.argmax(1) if full.shape[1] > 1 else full[:, 0] > 0
            return np.asarray(best.numpy(), np.int32)

    return run


def predict(checkpoint: Checkpoint, model: Model) -> Predict:
    """Ultralytics' own `predict`, preprocessed as the model is served, as the task's prediction.

    Args:
        checkpoint: a `.pt` file or an ONNX file.
        model: that is served.
    """
    yolo, settings = checkpoint.load(), checkpoint.settings(model)

    def run(image_hwc: Image) -> ImagePrediction:
        bgr = np.ascontiguousarray(image_hwc[..., ::-1])
        try:
            (result,) = yolo.predict(bgr, **settings)
        except Exception as exc:  # torch, ONNX Runtime and a network's own code may raise anything
            shape = "x".join(map(str, image_hwc.shape[1::-1]))
            raise ExportError(f"Ultralytics' predict fails on an image of {shape}: {first_line(exc)}") from exc
        return read_result(result, model)

    return run


def read_result(result: Any, model: Model) -> ImagePrediction:
    """One of Ultralytics' `Results` as the prediction of the model's task."""
    height, width = result.orig_shape
    if model.task == "depth":
        depth_m = np.asarray(result.depth.data, np.float32)
        return DepthMap(depth_m, (width, height), (float(depth_m.min()), float(depth_m.max())))
    class_map = np.asarray(result.semantic_mask.data).astype(map_dtype(model))
    return Segmentation(class_map, (width, height), count_values(model))
