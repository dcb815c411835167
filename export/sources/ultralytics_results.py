"""Runs Ultralytics' own `predict`, and reads its results as the predictions of the tasks here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.proof.drawn_images import NamedImage
from export.proof.predictions import IOU, MAX_DETECTIONS, Predict
from export.sources.ultralytics_checkpoint import Checkpoint
from transformer.tasks.objects import Detections
from transformer.triton.model import Model


def predict_objects(checkpoint: Checkpoint, model: Model) -> Predict:
    """Ultralytics' own `predict`, with images letterboxed or stretched as the model is served."""
    yolo, settings, read = checkpoint.load(), checkpoint.settings(model), _READERS[checkpoint.task]

    def run(image: NamedImage, confidence: float) -> Detections:
        try:
            (result,) = yolo.predict(
                np.ascontiguousarray(image.image_hwc[..., ::-1]),  # it takes BGR
                conf=confidence,
                iou=IOU,
                max_det=MAX_DETECTIONS,
                **settings,
            )
        except Exception as exc:  # torch, ONNX Runtime and a network's own code may raise anything
            raise ExportError(f"Ultralytics' predict fails on image {image.name}: {first_line(exc)}") from exc
        return read(result)

    return run


def _read_boxes(result: Any) -> Detections:
    found = result.boxes
    return Detections(found.xyxy.numpy(), found.conf.numpy(), found.cls.numpy().astype(np.int64))


_READERS: Mapping[str, Callable[[Any], Detections]] = {"detect": _read_boxes}
