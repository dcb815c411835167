"""Ultralytics, as each baseline calls it: an encoded image in, detections out."""

import argparse
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO

from export.sources.trusted_checkpoints import CheckpointError, admit

Detection = dict[str, Any]  # class, confidence, box: x1, y1, x2, y2 in pixels of the image


class Detector:
    """A model for any number of threads.

    Ultralytics' guide to threads requires that no two threads share a model at a time: a thread that detects takes a
    model, and the others wait. Images are decoded meanwhile.
    """

    def __init__(self, weights: str, *, allowed: bool = False, instances: int = 1) -> None:
        """Load the model.

        Args:
            weights: an ONNX file or an OpenVINO folder that Ultralytics exported; anything else is a checkpoint.
            allowed: whether an unofficial checkpoint is loaded too, which runs the code that it contains.
            instances: models that run at a time.

        Raises:
            CheckpointError: it is unofficial, and not allowed.
            OSError: the file is missing.
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
        """Detections in one image, best first.

        Raises:
            ValueError: OpenCV does not decode it.
        """
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("image: got bytes that OpenCV does not decode, expected an encoded image")
        model = self._models.get()
        try:
            result = model.predict(image, conf=confidence, device="cpu", verbose=False)[0]
        finally:
            self._models.put(model)
        return [
            {"class": result.names[int(class_id)], "confidence": score, "box": box}
            for *box, score, class_id in result.boxes.data.tolist()
        ]


def _is_export(path: Path) -> bool:
    """Whether it is a graph, which Ultralytics loads without unpickling; two suffixes may be those of a checkpoint."""
    if path.is_dir():
        return path.name.endswith("_openvino_model") and not path.suffixes
    return path.suffixes == [".onnx"] and path.is_file()


def check(arguments: argparse.Namespace) -> None:
    """End the program where the weights must not be loaded, before a server starts."""
    path = Path(arguments.weights)
    try:
        if not _is_export(path):
            with admit(path, allowed=arguments.allow_unpickling):
                pass
    except (CheckpointError, OSError) as exc:
        sys.exit(f"error: {exc}")


def parser(module: str) -> argparse.ArgumentParser:
    """The arguments of every baseline."""
    options = argparse.ArgumentParser(prog=f"python -m loadtest.compare.baselines.{module}")
    options.add_argument("--port", type=int, required=True, help="on loopback")
    options.add_argument("--weights", required=True, help="a .pt file, or an ONNX or OpenVINO export of it")
    options.add_argument("--allow-unpickling", action="store_true", help="run the code that a .pt file may contain")
    return options
