"""COCO's mean average precision, by pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# One detection: x1, y1, x2, y2 in pixels, score, class id.
Rows = Sequence[Sequence[float]]


def mean_average_precision(
    detections: Mapping[str, Rows], labels: Mapping[str, Rows], sizes_wh: Mapping[str, tuple[int, int]]
) -> tuple[float, float]:
    """mAP50-95 and mAP50.

    Args:
        detections: by image: x1, y1, x2, y2, score, class id.
        labels: by image: x1, y1, x2, y2, class id, in pixels.
        sizes_wh: of each image.
    """
    from pycocotools.coco import COCO  # noqa: PLC0415 - only where a precision is measured
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    ids = {name: index for index, name in enumerate(labels)}
    classes = sorted({int(row[-1]) for rows in labels.values() for row in rows})
    annotations = [
        _box(row) | {"image_id": ids[name], "category_id": int(row[-1]), "iscrowd": 0}
        for name, rows in labels.items()
        for row in rows
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": ids[name], "width": w, "height": h} for name, (w, h) in sizes_wh.items()],
        "categories": [{"id": class_id, "name": str(class_id)} for class_id in classes],
        "annotations": [annotation | {"id": index + 1} for index, annotation in enumerate(annotations)],
    }
    results = [
        _box(row) | {"image_id": ids[name], "category_id": int(row[5]), "score": row[4]}
        for name, rows in detections.items()
        for row in rows
    ]
    if not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def read_yolo_labels(path: Path, size_wh: tuple[int, int]) -> list[list[float]]:
    """Labels of one image, `class cx cy w h` as fractions, as x1, y1, x2, y2, class id in pixels."""
    rows: list[list[float]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        class_id, cx, cy, w, h = (float(value) for value in line.split())
        width, height = size_wh
        corners = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
        rows.append([*corners, class_id])
    return rows


def _box(row: Sequence[float]) -> dict[str, Any]:
    width, height = row[2] - row[0], row[3] - row[1]
    return {"bbox": [row[0], row[1], width, height], "area": width * height}
