"""Train `digit-finder`: YOLOv8n from scratch on composed scenes, then the ONNX file that Ultralytics exports.

`make train-digit-finder` runs it; it needs the `export` extra (torch and ultralytics) and about an hour on two cores.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import onnx
import yaml
from rich.progress import track

from export.examples.digit_finder.scenes import SCENE_SIZE, Split, compose

WEIGHTS = Path(__file__).parents[2] / "weights" / "digit-finder.onnx"


def main() -> None:
    """Compose the scenes, train, export, and write the ONNX file where the product reads it."""
    args = _parse()
    # Ultralytics installs nothing, and of the network that it has just trained it loads nothing but its classes.
    os.environ |= {"YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "true"}
    trained = _train(args, _write_data(args))
    # Opset 21 is the newest that ONNX Runtime 1.19 (Triton 24.10) knows; older ones know 17 too.
    onnx_file = trained.export(format="onnx", imgsz=SCENE_SIZE, dynamic=True, opset=17, simplify=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    graph = onnx.load(onnx_file)
    for entry in graph.metadata_props:
        if entry.key == "description":  # Ultralytics writes the path of the data here
            entry.value = "digit-finder: YOLOv8n trained on composed scenes of handwritten digits"
    onnx.save(graph, args.output)
    print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.examples.digit_finder", description=__doc__.splitlines()[0])
    parser.add_argument("--train-scenes", type=int, default=3000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--held-out-scenes", type=int, default=500, help="scenes to test on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=16, help="passes over the scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and of the training (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path(".cache/digit-finder"), help="scratch folder")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="ONNX file to write (default: %(default)s)")
    return parser.parse_args()


def _write_data(args: argparse.Namespace) -> Path:
    """Write the scenes of both splits, and return the description of the data set for Ultralytics."""
    _write_scenes(args.work, "train", count=args.train_scenes, seed=args.seed)
    _write_scenes(args.work, "held-out", count=args.held_out_scenes, seed=args.seed)
    data: Path = args.work / "data.yaml"
    described = {
        "path": str(args.work.resolve()),
        "train": "train/images",
        "val": "held-out/images",
        "names": {digit: str(digit) for digit in range(10)},
    }
    data.write_text(yaml.safe_dump(described))
    return data


def _train(args: argparse.Namespace, data: Path) -> Any:
    """The trained network, with its figures on the held-out scenes printed."""
    from ultralytics import YOLO  # noqa: PLC0415  # here, so that --help needs no torch

    model = YOLO("yolov8n.yaml")
    model.train(
        data=str(data),
        imgsz=SCENE_SIZE,
        epochs=args.epochs,
        batch=16,
        seed=args.seed,
        fliplr=0.0,  # a mirrored 2 is not a 2
        cos_lr=True,
        close_mosaic=max(1, args.epochs // 4),
        val=False,  # once, at the end
        amp=False,  # to try it on a GPU, Ultralytics would download weights and unpickle them
        workers=0,
        plots=False,
        project=str(args.work.resolve()),
        name="run",
        exist_ok=True,
    )
    trained = YOLO(args.work / "run" / "weights" / "last.pt")
    figures = trained.val(data=str(data), imgsz=SCENE_SIZE, plots=False, project=str(args.work.resolve()), name="val")
    print(f"held-out scenes: mAP50 {figures.box.map50:.4f}, mAP50-95 {figures.box.map:.4f}")
    return trained


def _write_scenes(work: Path, split: Split, *, count: int, seed: int) -> None:
    """Write images and YOLO-format labels (class cx cy w h, as fractions) for Ultralytics' trainer."""
    shutil.rmtree(work / split, ignore_errors=True)
    images, labels = work / split / "images", work / split / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for index, scene in enumerate(track(compose(split, count=count, seed=seed), f"compose {split}", total=count)):
        cv2.imwrite(str(images / f"{index:05}.png"), cv2.cvtColor(scene.image_hwc, cv2.COLOR_RGB2BGR))
        x1, y1, x2, y2 = scene.boxes_xyxy.T / SCENE_SIZE
        rows = zip(scene.class_ids, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, strict=True)
        (labels / f"{index:05}.txt").write_text(
            "".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in rows)
        )


if __name__ == "__main__":
    main()
