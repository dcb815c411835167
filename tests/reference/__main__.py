"""Compute the references again: `python -m tests.reference`, with torch and ultralytics (`make reference`).

yolov8n on the images of `../shared/data/coco128` and the two of ultralytics; digit-finder on held-out scenes. For each,
the smallest rectangle and the square. Maps of semantic segmentation and of depth need no weights: what is compared is
what happens before the network and after it.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from PIL import Image
from rich.progress import track
from ultralytics.models.yolo.depth import DepthPredictor
from ultralytics.models.yolo.semantic import SemanticSegmentationPredictor

from export.examples.digit_finder.scenes import compose
from export.proof.average_precision import Rows, mean_average_precision, read_yolo_labels
from export.sources.trusted_checkpoints import admit
from tests.reference.detections import Reference
from tests.reference.maps import CHOSEN, CLASSES, FOLDER, SIDE, SIZES_WH, UNIT_M, MapCase, draw_gradients, write_cases
from tests.reference.scenes import SCENES, cut_scene

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
MAP_SETTINGS = {"conf": 0.001, "iou": 0.7, "max_det": 300}


def main() -> None:
    """Write the references."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["yolov8n", "digit-finder", "maps"])
    for model in parser.parse_args().models:
        {"yolov8n": yolov8n, "digit-finder": digit_finder, "maps": maps}[model]()


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


def maps() -> None:
    """Invented outputs of a model for images of many sizes, and what the predictors of Ultralytics make of them."""
    random = np.random.default_rng(20)
    cases = []
    for size_wh in SIZES_WH:
        image = draw_gradients(size_wh)
        for task, predictor in (("semantic", SemanticSegmentationPredictor), ("depth", DepthPredictor)):
            forms = (False, True) if task == "semantic" else (False,)
            cases += [map_case(task, predictor, image, random, is_free=is_free) for is_free in forms]
    write_cases(cases)
    print(f"maps: {len(cases)} cases, {(FOLDER / 'maps.npz').stat().st_size} bytes")


def map_case(task: str, kind: Any, image: Any, random: np.random.Generator, *, is_free: bool) -> MapCase:
    """One image, in the square of the model or, where `is_free`, in the smallest rectangle."""
    predictor = kind(overrides={"imgsz": SIDE, "rect": True, "device": "cpu"})
    predictor.imgsz = [SIDE, SIDE]
    names = {index: str(index) for index in range(CLASSES)}
    predictor.model = SimpleNamespace(names=names, stride=32, format="onnx", dynamic=is_free)
    predictor.batch = [["image"]]
    bgr = np.ascontiguousarray(image[..., ::-1])
    (boxed,) = predictor.pre_transform([bgr])
    height, width = boxed.shape[:2]
    smooth = cv2.GaussianBlur(random.random((height, width), np.float32), (0, 0), 4)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    if task == "depth":
        output = np.rint((0.5 + 20 * smooth) / UNIT_M).astype(np.float32) * np.float32(UNIT_M)
    else:
        output = np.minimum(smooth * CLASSES, CLASSES - 1).astype(np.uint8)
    planes = torch.zeros(1, 3, height, width)

    def run(classes: list[int] | None = None) -> Any:
        predictor.args.classes = classes
        predictions = torch.from_numpy(output)[None, None] if task == "depth" else torch.from_numpy(output)[None]
        (result,) = predictor.postprocess(predictions, planes, [bgr])
        return np.asarray((result.depth if task == "depth" else result.semantic_mask).data)

    return MapCase(
        image_hwc=image,
        task=task,
        input_hwc=np.ascontiguousarray(boxed[..., ::-1]),
        output=output,
        expected=run(),
        expected_of_chosen=run(list(CHOSEN)) if task == "semantic" else None,
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


if __name__ == "__main__":
    main()
