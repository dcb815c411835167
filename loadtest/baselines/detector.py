"""Ultralytics, as each baseline calls it: an encoded picture in, detections out."""

import argparse
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO

Detection = dict[str, Any]  # class, confidence, box: x1, y1, x2, y2 in pixels of the picture


class Detector:
    """A model for any number of threads.

    Ultralytics' guide to threads asks that no two of them share a model at a time: whoever detects takes one, and the
    others wait. Pictures are decoded meanwhile.
    """

    def __init__(self, weights: str, *, instances: int = 1) -> None:
        self._models: SimpleQueue[Any] = SimpleQueue()
        for _ in range(instances):
            self._models.put(YOLO(weights, task="detect"))

    def detect(self, encoded: bytes, confidence: float) -> list[Detection]:
        """Detections of one picture, best first.

        Raises:
            ValueError: it is no picture that OpenCV decodes.
        """
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("image: expected a picture, got bytes that OpenCV does not decode")
        model = self._models.get()
        try:
            result = model.predict(picture, conf=confidence, device="cpu", verbose=False)[0]
        finally:
            self._models.put(model)
        return [
            {"class": result.names[int(class_id)], "confidence": score, "box": box}
            for *box, score, class_id in result.boxes.data.tolist()
        ]


def parser(module: str) -> argparse.ArgumentParser:
    """The arguments of every baseline."""
    options = argparse.ArgumentParser(prog=f"python -m loadtest.baselines.{module}")
    options.add_argument("--port", type=int, required=True, help="on loopback")
    options.add_argument("--weights", required=True, help="whatever Ultralytics loads: a .pt, an export of it")
    return options
