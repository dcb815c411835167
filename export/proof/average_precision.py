"""COCO's mean average precision of boxes, masks and keypoints, by pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

# One detection: x1, y1, x2, y2 in pixels, score, class id.
Rows = Sequence[Sequence[float]]
Entry = dict[str, Any]  # of an object, as COCO has it: bbox, segmentation or keypoints, area, category_id, score


def mean_average_precision(
    detections: Mapping[str, Rows], labels: Mapping[str, Rows], sizes_wh: Mapping[str, tuple[int, int]]
) -> tuple[float, float]:
    """mAP50-95 and mAP50 of boxes.

    Args:
        detections: by image: x1, y1, x2, y2, score, class id.
        labels: by image: x1, y1, x2, y2, class id, in pixels.
        sizes_wh: of each image.
    """
    found = {
        name: [_box(row) | {"category_id": int(row[5]), "score": row[4]} for row in rows]
        for name, rows in detections.items()
    }
    truth = {name: [_box(row) | {"category_id": int(row[-1])} for row in rows] for name, rows in labels.items()}
    return evaluate(found, truth, sizes_wh, kind="bbox")


def evaluate(
    found: Mapping[str, Sequence[Entry]],
    truth: Mapping[str, Sequence[Entry]],
    sizes_wh: Mapping[str, tuple[int, int]],
    *,
    kind: Literal["bbox", "segm", "keypoints"],
    sigmas: Sequence[float] | None = None,
) -> tuple[float, float]:
    """mAP50-95 and mAP50.

    Args:
        found: by image.
        truth: by image; classes without an object here do not count.
        sizes_wh: of each image.
        kind: COCO's `iouType`.
        sigmas: of keypoints, how far each may be off.
    """
    from pycocotools.coco import COCO  # noqa: PLC0415 - only where a precision is measured
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    ids = {name: index for index, name in enumerate(truth)}
    annotations = [
        entry | {"image_id": ids[name], "iscrowd": 0} for name, entries in truth.items() for entry in entries
    ]
    expected = COCO()
    expected.dataset = {
        "images": [{"id": ids[name], "width": w, "height": h} for name, (w, h) in sizes_wh.items()],
        "categories": [
            {"id": class_id, "name": str(class_id)}
            for class_id in sorted({each["category_id"] for each in annotations})
        ],
        "annotations": [annotation | {"id": index + 1} for index, annotation in enumerate(annotations)],
    }
    results = [entry | {"image_id": ids[name]} for name, entries in found.items() for entry in entries]
    if not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected.createIndex()
        evaluation = COCOeval(expected, expected.loadRes(results), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def read_yolo_labels(path: Path, size_wh: tuple[int, int]) -> list[list[float]]:
    """Labels of one image, `class cx cy w h` as fractions, as x1, y1, x2, y2, class id in pixels."""
    return [_to_box(row, size_wh) for row in read_rows(path)]


def read_rows(path: Path) -> list[list[float]]:
    """Lines of a label file in YOLO's form: a class and numbers; none where it is missing.

    Raises:
        ValueError: something is not a number.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    return [[float(value) for value in line.split()] for line in lines if line.strip()]


def _to_box(row: Sequence[float], size_wh: tuple[int, int]) -> list[float]:
    class_id, cx, cy, w, h = row
    width, height = size_wh
    return [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height, class_id]


def _box(row: Sequence[float]) -> Entry:
    width, height = row[2] - row[0], row[3] - row[1]
    return {"bbox": [row[0], row[1], width, height], "area": width * height}
