"""Ultralytics, as each baseline calls it: an encoded picture in, detections out."""

import argparse
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO

from export.sources.trusted_checkpoints import CheckpointError, admit

Detection = dict[str, Any]  # class, confidence, box: x1, y1, x2, y2 in pixels of the picture


class Detector:
    """A model for any number of threads.

    Ultralytics' guide to threads asks that no two of them share a model at a time: whoever detects takes one, and the
    others wait. Pictures are decoded meanwhile.
    """

    def __init__(self, weights: str, *, allowed: bool = False, instances: int = 1) -> None:
        """Load the model.

        Args:
            weights: an ONNX file or an OpenVINO folder that Ultralytics exported; anything else is a checkpoint.
            allowed: whether a checkpoint that is not official is loaded too, which runs whatever code it holds.
            instances: models that run at a time.

        Raises:
            CheckpointError: it is not official, and not allowed.
            OSError: there is no such file.
        """
        self._models: SimpleQueue[Any] = SimpleQueue()
        if _is_export(Path(weights)):
            self._load(weights, instances)
        else:
            with admit(Path(weights), allowed=allowed) as checkpoint:
                self._load(str(checkpoint), instances)

    def _load(self, weights: str, instances: int) -> None:
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


def _is_export(path: Path) -> bool:
    """Whether it is a graph, which Ultralytics loads without unpickling; a name with two suffixes may be either."""
    if path.is_dir():
        return path.name.endswith("_openvino_model") and not path.suffixes
    return path.suffixes == [".onnx"] and path.is_file()


def check(arguments: argparse.Namespace) -> None:
    """End the program where the weights must not be loaded, before a server starts that would do it."""
    path = Path(arguments.weights)
    try:
        if not _is_export(path):
            with admit(path, allowed=arguments.allow_unpickling):
                pass
    except (CheckpointError, OSError) as exc:
        sys.exit(f"error: {exc}")


def parser(module: str) -> argparse.ArgumentParser:
    """The arguments of every baseline."""
    options = argparse.ArgumentParser(prog=f"python -m loadtest.baselines.{module}")
    options.add_argument("--port", type=int, required=True, help="on loopback")
    options.add_argument("--weights", required=True, help="a .pt file, or an ONNX or OpenVINO export of it")
    options.add_argument("--allow-unpickling", action="store_true", help="run the code that a .pt file may hold")
    return options
