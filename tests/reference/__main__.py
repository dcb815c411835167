"""Compute the references again: `python -m tests.reference`, with torch and ultralytics (`make reference`).

yolov8n on the images of `../shared/data/coco128` and the two of ultralytics; digit-finder on held-out scenes. For each,
the smallest rectangle and the square. Masks of a few images of coco128. Of drawn crowds of rotated boxes, those that
its NMS keeps; of drawn images, the heads of networks with random weights and what it finds in them. Of invented maps,
what its predictors make of them.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from PIL import Image
from rich.progress import track

from export.examples.scenes import compose
from export.proof.average_precision import Rows, mean_average_precision, read_yolo_labels
from export.sources.trusted_checkpoints import admit
from tests.reference.detections import Reference
from tests.reference.map_writer import write_maps
from tests.reference.raw_heads import write_heads
from tests.reference.rotated import write_kept
from tests.reference.scenes import SCENES, cut_scene
from tests.reference.segmenting import write_segments
from tests.reference.summaries import write_summaries
from tests.support.networks import build_network

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
# Images, and whether in the smallest rectangle: prototypes are enlarged by 4, 2 and 1 before the padding is cut.
SEGMENTED = (
    ("000000000049.jpg", True),
    ("000000000138.jpg", False),
    ("000000000064.jpg", False),
    ("000000000061.jpg", True),
    ("000000000009.jpg", True),
    ("000000000322.jpg", False),
)
MAP_SETTINGS = {"conf": 0.001, "iou": 0.7, "max_det": 300}


def main() -> None:
    """Write the references."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(_WRITERS))
    for model in parser.parse_args().models:
        _WRITERS[model]()


def yolov8n() -> None:
    """80 classes on photos."""
    weights = DATA / "weights" / "yolov8n.pt"
    assets = Path(ultralytics.__file__).parent / "assets"
    photos = {path.name: path for path in sorted((DATA / "coco128" / "images").glob("*.jpg"))}
    sizes_wh = {name: size_of(path) for name, path in photos.items()}
    labels = {
        name: read_yolo_labels(DATA / "coco128" / "labels" / f"{path.stem}.txt", sizes_wh[name])
        for name, path in photos.items()
    }
    images = photos | {name: assets / name for name in ("bus.jpg", "zidane.jpg")}
    for letterbox in ("rectangle", "square"):
        with admit(weights, allowed=False) as checkpoint:
            model = ultralytics.YOLO(checkpoint)
        write(f"yolov8n-{letterbox}", model, letterbox, 640, images, labels, sizes_wh)


def digit_finder() -> None:
    """Ten classes on composed scenes in several shapes, with the committed ONNX file run by Ultralytics."""
    scenes = {f"{index:03}": scene for index, scene in enumerate(compose("held-out", **SCENES))}
    whole = {name: cv2.cvtColor(scene.image_hwc, cv2.COLOR_RGB2BGR) for name, scene in scenes.items()}
    cut = {f"cut-{name}": cut_scene(image, int(name)) for name, image in whole.items()}
    sizes_wh = {name: (image.shape[1], image.shape[0]) for name, image in whole.items()}
    labels = {name: np.column_stack([scene.boxes_xyxy, scene.class_ids]).tolist() for name, scene in scenes.items()}
    weights = ROOT / "export" / "weights" / "digit-finder.onnx"
    for letterbox in ("rectangle", "square"):
        model = ultralytics.YOLO(weights, task="detect")
        write(f"digit-finder-{letterbox}", model, letterbox, 320, whole | cut, labels, sizes_wh)


def segment() -> None:
    """Masks of both heads: trained weights, and a network with random ones whose head needs no NMS."""
    photos = {path.name: path for path in sorted((DATA / "coco128" / "images").glob("*.jpg"))}
    chosen = {f"{name} {rectangle}": (photos[name], rectangle) for name, rectangle in SEGMENTED}
    with admit(DATA / "weights" / "yolov8n-seg.pt", allowed=False) as checkpoint:
        model = ultralytics.YOLO(checkpoint)
    write_segments("segment-nms", model, chosen, imgsz=192, conf=0.1, max_det=300)
    few = dict(list(chosen.items())[:3])
    write_segments(
        "segment-nms-free", build_network("yolo26n-seg.yaml"), few, imgsz=192, conf=0.25, nms=False, max_det=10
    )


def write(
    name: str,
    model: Any,
    letterbox: str,
    imgsz: int,
    images: Mapping[str, Any],
    labels: Mapping[str, Rows],
    sizes_wh: Mapping[str, tuple[int, int]],
) -> None:
    """Write a reference file."""

    def predict(**settings: Any) -> Callable[[Any], Rows]:
        fixed = {"rect": letterbox == "rectangle", "imgsz": imgsz, "verbose": False, "device": "cpu"}
        return lambda image: rows_of(model.predict(image, **fixed, **settings)[0])

    found = {key: predict()(image) for key, image in track(images.items(), f"{name}, confidence 0.25")}
    low = {key: predict(**MAP_SETTINGS)(images[key]) for key in track(labels, f"{name}, mAP")}
    map50_95, map50 = mean_average_precision(low, labels, sizes_wh)
    made_by = f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, {letterbox}, imgsz {imgsz}"
    Reference(made_by, map50_95, map50, found).write(name)
    print(f"{name}: {sum(map(len, found.values()))} detections, mAP50-95 {map50_95:.4f}, mAP50 {map50:.4f}")


def rows_of(result: Any) -> list[list[float]]:
    """Ultralytics' boxes as rows of numbers."""
    return [[round(float(value), 4) for value in row] for row in result.boxes.data.tolist()]


def size_of(path: Path) -> tuple[int, int]:
    """`(width, height)`."""
    with Image.open(path) as image:
        return image.size


_WRITERS: dict[str, Callable[[], None]] = {
    "yolov8n": yolov8n,
    "digit-finder": digit_finder,
    "rotated-crowds": write_kept,
    "heads": write_heads,
    "maps": write_maps,
    "summaries": write_summaries,
}

if __name__ == "__main__":
    main()
