"""Train one of the shipped YOLO models from scratch on composed scenes, and export it as Ultralytics does.

`make train-examples EXAMPLE=...` runs it; it needs torch and ultralytics. On a GPU it takes minutes,
on two cores an hour or more.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import yaml

from export.examples.scenes import ENDS, MAX_TILT, SCENE_SIZE, Image, Scene, Split, compose, compose_single
from export.graph.half_weights import store_half

_HERE = Path(__file__).parent
_WEIGHTS = _HERE.parent / "weights"
# Seeds of further chunks; those of the calibration (1) and of the proof are not among them.
_SEED_STEP = 1000
# The small networks were trained on a GPU with `--minutes 5`; `epochs` below is what they came to.
_SMALL = {"optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9, "warmup_bias_lr": 0.0, "warmup_epochs": 1.0}
_SCENES = {"mosaic": 0.3, "scale": 0.3, "close_mosaic": 6, "batch": 64}


@dataclass(frozen=True)
class Training:
    """How one model is trained.

    Attributes:
        task: of Ultralytics.
        network: the YAML file of the network, or the name of one that comes with Ultralytics.
        about: in a few words, for the ONNX file.
        imgsz: side of the network's input in pixels.
        epochs: passes over the scenes.
        scenes: to train on.
        chunk: scenes of one seed, which one process composes.
        settings: of Ultralytics' trainer.
    """

    task: str
    network: str
    about: str
    epochs: int
    scenes: int
    imgsz: int = SCENE_SIZE
    chunk: int = 500
    settings: dict[str, Any] = field(default_factory=dict)


TRAININGS = {
    "digit-finder": Training(
        "detect", "yolov8n.yaml", "YOLOv8n", 16, 3000, chunk=3000, settings={"batch": 16, "close_mosaic": 4}
    ),
    "digit-outlines": Training(
        "segment", "digit-outlines.yaml", "a small YOLO11-seg", 7, 8000, settings=_SMALL | _SCENES
    ),
    "digit-strokes": Training("pose", "digit-strokes.yaml", "a small YOLO26-pose", 14, 8000, settings=_SMALL | _SCENES),
    "tilted-digits": Training("obb", "tilted-digits.yaml", "a small YOLOv8-obb", 31, 8000, settings=_SMALL | _SCENES),
    "digit-classes": Training(
        "classify", "digit-classes.yaml", "a small YOLO26-cls", 40, 20000, imgsz=64,
        settings=_SMALL | {"batch": 128, "scale": 0.2, "erasing": 0.0, "auto_augment": None},
    ),
}  # fmt: skip


def main() -> None:
    """Compose the scenes, train, and write the ONNX file where the product reads it."""
    args = _parse()
    # Ultralytics installs nothing, and of the network that it has just trained it loads nothing but its classes.
    os.environ |= {"YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "true"}
    work = args.work / args.example
    data = write_data(args.example, work, scenes=args.scenes, held_out=args.held_out_scenes, seed=args.seed)
    trained = args.trained or _train(args, work, data)
    _write_onnx(args.example, trained, args.output or _WEIGHTS / f"{args.example}.onnx")
    _validate(args.example, args.output or _WEIGHTS / f"{args.example}.onnx", work, data)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.examples.train", description=__doc__.splitlines()[0])
    parser.add_argument("example", choices=TRAININGS)
    parser.add_argument("--scenes", type=int, help="scenes to train on (default: as the shipped file)")
    parser.add_argument("--held-out-scenes", type=int, default=500, help="scenes to test on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="passes over the scenes (default: as the shipped file)")
    parser.add_argument("--minutes", type=float, help="train for this long instead")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and of the training (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path(".cache/examples"), help="scratch folder")
    parser.add_argument("--trained", type=Path, metavar="PT", help="what an earlier run trained, instead of training")
    parser.add_argument("--output", type=Path, help="ONNX file to write (default: the shipped one)")
    return parser.parse_args()


def write_data(example: str, work: Path, *, scenes: int | None, held_out: int, seed: int) -> Path:
    """Write the scenes of both splits for Ultralytics, and return what its `data` takes."""
    training = TRAININGS[example]
    counts: dict[Split, int] = {"train": scenes or training.scenes, "held-out": held_out}
    for split in counts:
        shutil.rmtree(work / split, ignore_errors=True)
    jobs = [
        (split, start, min(training.chunk, count - start))
        for split, count in counts.items()
        for start in range(0, count, training.chunk)
    ]
    with ProcessPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(_write_chunk, repeat(training), repeat(work), repeat(seed), jobs), 1):
            print(f"{example}: {done} of {len(jobs)} parts composed", flush=True)
    if training.task == "classify":
        (work / "val").unlink(missing_ok=True)
        (work / "val").symlink_to("held-out")
        return work.resolve()
    described = {
        "path": str(work.resolve()),
        "train": "train/images",
        "val": "held-out/images",
        "names": {digit: str(digit) for digit in range(10)},
    }
    if training.task == "pose":
        described |= {"kpt_shape": [len(ENDS), 3], "kpt_names": {digit: list(ENDS) for digit in range(10)}}
    data = work / "data.yaml"
    data.write_text(yaml.safe_dump(described))
    return data


def _write_chunk(training: Training, work: Path, seed: int, job: tuple[Split, int, int]) -> None:
    task, (split, start, count) = training.task, job
    cv2.setNumThreads(1)  # there is a process for each core
    chunk_seed = seed + _SEED_STEP * (start // training.chunk)
    if task == "classify":
        for index, (image, digit) in enumerate(compose_single(split, count=count, seed=chunk_seed), start):
            folder = work / split / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / f"{index:05}.png", image if split == "held-out" else _middle_square(image))
        return
    images, labels = work / split / "images", work / split / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    max_turn = MAX_TILT if task == "obb" else 12
    for index, scene in enumerate(compose(split, count=count, seed=chunk_seed, max_turn=max_turn), start):
        _write(images / f"{index:05}.png", scene.image_hwc)
        rows = (" ".join([str(digit), *(f"{v:.6f}" for v in row)]) for digit, row in _LABELS[task](scene))
        (labels / f"{index:05}.txt").write_text("".join(f"{row}\n" for row in rows))


def _write(path: Path, image_hwc: Image) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))


def _middle_square(image_hwc: Image) -> Image:
    height, width = image_hwc.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    return image_hwc[y : y + side, x : x + side]


# Ultralytics' label rows: a class, then fractions of the image's width and height.
_Rows = Iterator[tuple[int, list[float]]]


def _box_rows(scene: Scene) -> _Rows:
    x1, y1, x2, y2 = scene.boxes_xyxy.T / SCENE_SIZE
    boxes = np.column_stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    yield from zip(scene.class_ids, boxes.tolist(), strict=True)


def _keypoint_rows(scene: Scene) -> _Rows:
    for (digit, box), ends in zip(_box_rows(scene), scene.ends / [SCENE_SIZE, SCENE_SIZE, 1], strict=True):
        yield digit, [*box, *ends.ravel().tolist()]


def _polygon_rows(scene: Scene, polygons: Any) -> _Rows:
    for digit, polygon in zip(scene.class_ids, polygons, strict=True):
        yield digit, np.clip(polygon / SCENE_SIZE, 0, 1).ravel().tolist()


_LABELS: dict[str, Callable[[Scene], _Rows]] = {
    "detect": _box_rows,
    "segment": lambda scene: _polygon_rows(scene, scene.outlines),
    "pose": _keypoint_rows,
    "obb": lambda scene: _polygon_rows(scene, scene.corners),
}


def _train(args: argparse.Namespace, work: Path, data: Path) -> Path:
    """The file of the trained network."""
    from ultralytics import YOLO  # noqa: PLC0415  # here, so that --help needs no torch

    training = TRAININGS[args.example]
    network = _HERE / "networks" / training.network
    YOLO(network if network.is_file() else training.network, task=training.task).train(
        **_common(training, work, data),
        **training.settings,
        epochs=args.epochs or training.epochs,
        time=args.minutes and args.minutes / 60,
        deterministic=args.minutes is None,
        seed=args.seed,
        fliplr=0.0,  # a mirrored 2 is not a 2
        cos_lr=True,
        val=False,  # once, at the end
        amp=False,  # to try it on a GPU, Ultralytics would download weights and unpickle them
        cache=args.minutes is not None,
        workers=args.workers,
        name="run",
    )
    return work / "run" / "weights" / "last.pt"


def _write_onnx(example: str, trained: Path, output: Path) -> None:
    """Export a trained network; its weights are stored in half of their size."""
    from ultralytics import YOLO  # noqa: PLC0415

    # Opset 21 is the newest that ONNX Runtime 1.19 (Triton 24.10) knows; older ones know 17 too.
    side = TRAININGS[example].imgsz
    graph = onnx.load(YOLO(trained).export(format="onnx", imgsz=side, dynamic=True, opset=17, simplify=True))
    for entry in graph.metadata_props:
        if entry.key == "description":  # Ultralytics writes the path of the data here
            entry.value = f"{example}: {TRAININGS[example].about} trained on composed scenes of handwritten digits"
    store_half(graph)
    del graph.graph.value_info[:]  # shapes that any runtime finds again
    onnx.save(graph, output)
    print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")


def _validate(example: str, weights: Path, work: Path, data: Path) -> None:
    """Print the figures of an ONNX file on the held-out scenes."""
    from ultralytics import YOLO  # noqa: PLC0415

    training = TRAININGS[example]
    figures = YOLO(weights, task=training.task).val(**_common(training, work, data), workers=0, name="val")
    print(f"{example} on held-out scenes: {figures.results_dict}")


def _common(training: Training, work: Path, data: Path) -> dict[str, Any]:
    where = {"data": str(data), "project": str(work.resolve()), "exist_ok": True}
    return where | {"imgsz": training.imgsz, "plots": False}


if __name__ == "__main__":
    main()
