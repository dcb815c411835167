"""Labels of each task in YOLO's form, and the metric that they are for."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from export.errors import ExportError
from export.proof.calibration import Folder
from export.proof.labels import take, to_objects, to_pixels
from export.proof.metrics import measure_precision
from export.writer.config import describe_detector
from transformer.tasks import describe
from transformer.triton.model import Model

SIZE_WH = (200, 100)
REST = {"detect": 0, "segment": 4, "pose": 6, "obb": 1}
LINES = {
    "detect": "1 0.5 0.5 0.2 0.4",
    "segment": "1 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7",
    "pose": "1 0.5 0.5 0.2 0.4 0.45 0.4 2 0.55 0.6 0",
    "obb": "1 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7",
}


def model_of(task: str) -> Model:
    metadata: dict[str, Any] = {"task": task, "imgsz": [64, 64], "names": {0: "a", 1: "b"}, "kpt_shape": [2, 3]}
    config = describe_detector("m", interface="fused", size_hw=None, classes=2, metadata=metadata, rest=REST[task])
    return describe(config, version="0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "one.png"), np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize("task", list(LINES))
def test_labels_of_a_task_are_what_a_perfect_model_finds(folder: Path, task: str) -> None:
    model = model_of(task)
    (folder / "labels" / "one.txt").write_text(f"{LINES[task]}\n\n")
    labels = Folder(folder).labelled_for(model)[0].labels
    assert labels is not None
    objects = to_objects(labels, model, SIZE_WH)
    np.testing.assert_allclose(objects.boxes_xyxy, [[80, 30, 120, 70]], atol=1e-3)
    assert (objects.class_ids.tolist(), objects.objects) == ([1], 1)
    truth, sizes = {"one": objects}, {"one": SIZE_WH}
    perfect = measure_precision(truth, truth, sizes, model)
    assert perfect == pytest.approx(0.995 if task == "obb" else 1, abs=1e-6)
    nothing = {"one": take(objects, np.zeros(1, np.bool_))}
    assert measure_precision(nothing, truth, sizes, model) == 0


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_what_belongs_to_a_box_counts_beside_it(task: str) -> None:
    """The boxes are alike: only the mask, the keypoints or the angle are wrong."""
    model = model_of(task)
    right, wrong = {
        "segment": ([80, 30, 120, 30, 120, 70, 80, 70, 1], [80, 30, 120, 30, 80, 70, 1]),
        "pose": ([80, 30, 120, 70, 90, 40, 2, 110, 60, 2, 1], [80, 30, 120, 70, 119, 31, 2, 81, 69, 2, 1]),
        "obb": ([80, 45, 120, 45, 120, 55, 80, 55, 1], [95, 30, 105, 30, 105, 70, 95, 70, 1]),
    }[task]
    truth, found = ({"one": to_objects([row], model, SIZE_WH)} for row in (right, wrong))
    assert measure_precision(truth, truth, {"one": SIZE_WH}, model) > 0.99
    assert measure_precision(found, truth, {"one": SIZE_WH}, model) < 0.5


def test_polygons_are_boxes_for_a_detector() -> None:
    assert to_pixels([1, 0.4, 0.3, 0.6, 0.5, 0.5, 0.7], SIZE_WH, task="detect") == pytest.approx([80, 30, 120, 70, 1])


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("segment", "1 0.5 0.5 0.2 0.4"),
        ("obb", "1 0.5 0.5 0.2 0.4"),
        ("pose", "1 0.5 0.5 0.2 0.4 0.45 0.4 2"),
        ("pose", LINES["detect"]),
        ("detect", "1 0.5"),
        ("detect", "1 0.5 0.5 0.2 x"),
    ],
)
def test_labels_of_another_task_are_rejected(folder: Path, task: str, line: str) -> None:
    (folder / "labels" / "one.txt").write_text(line)
    samples = Folder(folder).labelled_for(model_of(task))
    with pytest.raises(ExportError, match=rf"one\.txt: got no labels of the task {task} .* expected lines of: class"):
        samples[0]
