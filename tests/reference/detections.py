"""Detections of many pictures: their file, the comparison with it, and COCO's mAP."""

import contextlib
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FOLDER = Path(__file__).parent

# One detection: x1, y1, x2, y2 in pixels, score, class id.
Rows = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Reference:
    """What Ultralytics found.

    Attributes:
        made_by: program, versions and settings.
        map50_95, map50: on the labels, best class for each box, confidence 0.001.
        detections: by picture name, confidence 0.25.
    """

    made_by: str
    map50_95: float
    map50: float
    detections: Mapping[str, Rows]

    def write(self, name: str) -> None:
        """Write `<name>.json.gz`, the same bytes for the same content."""
        text = json.dumps(vars(self), indent=None, separators=(",", ":"))
        (FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def read_reference(name: str) -> Reference:
    """Read `<name>.json.gz`."""
    return Reference(**json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes())))


def compare(found: Rows, expected: Rows, *, box_px: float, score: float) -> list[str]:
    """Every difference between two lists of detections, in words.

    Each expected detection takes the nearest one of its class that is left.
    """
    left = [list(row) for row in found]
    differences = []
    for row in expected:
        rivals = [other for other in left if int(other[5]) == int(row[5])]
        nearest = min(rivals, key=lambda other: _distance(other, row), default=None)
        if nearest is None:
            differences.append(f"missing {row}")
            continue
        left.remove(nearest)
        if _distance(nearest, row) > box_px or abs(nearest[4] - row[4]) > score:
            differences.append(f"got {nearest}, expected {row}")
    return differences + [f"unexpected {row}" for row in left]


def mean_average_precision(
    detections: Mapping[str, Rows], labels: Mapping[str, Rows], sizes_wh: Mapping[str, tuple[int, int]]
) -> tuple[float, float]:
    """mAP50-95 and mAP50 by pycocotools.

    Args:
        detections: by picture: x1, y1, x2, y2, score, class id.
        labels: by picture: x1, y1, x2, y2, class id, in pixels.
        sizes_wh: of each picture.
    """
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
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def read_yolo_labels(path: Path, size_wh: tuple[int, int]) -> list[list[float]]:
    """Labels of one picture, `class cx cy w h` as fractions, as x1, y1, x2, y2, class id in pixels."""
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


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    corners: NDArray[np.float64] = np.abs(np.subtract(a[:4], b[:4]))
    return float(corners.max())
