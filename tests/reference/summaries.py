"""Ultralytics' own `Results.summary()` of the shipped networks: what `format=ultralytics` is compared with."""

import json
from pathlib import Path
from typing import Any

from ultralytics import YOLO

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).parent / "summaries.json"
IMAGES = ROOT / "loadtest" / "pictures"
# By model: the task, an image that it finds something in, and the size of its input.
SHIPPED = {
    "digit-finder": ("detect", "digits.jpg", 320),
    "digit-outlines": ("segment", "digits.jpg", 320),
    "digit-strokes": ("pose", "digits.jpg", 320),
    "tilted-digits": ("obb", "tilted-digits.jpg", 320),
    "digit-classes": ("classify", "middle-two.jpg", 64),
}


def write_summaries() -> None:
    """Compute them again, with torch and ultralytics."""
    summaries: dict[str, Any] = {}
    for model, (task, image, size) in SHIPPED.items():
        network = YOLO(ROOT / "export" / "weights" / f"{model}.onnx", task=task)
        # retina_masks: in pixels of the image, as masks are here
        (result,) = network.predict(IMAGES / image, imgsz=size, conf=0.25, iou=0.7, verbose=False, retina_masks=True)
        summaries[model] = {"image": image, "summary": result.summary()}
    FILE.write_text(json.dumps(summaries) + "\n")
