"""Ultralytics' own Triton client against the real stack: `val` and `predict` as a user calls them."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from ultralytics import YOLO

from export.__main__ import main
from export.examples.scenes import compose, compose_single
from tests.support.fixtures import SHARED
from tests.support.found import differences, read_result
from tests.support.stack import ROOT, Stack, start_stack

COCO = SHARED / "coco128"
WEIGHTS = SHARED / "weights" / "yolov8n.pt"
_IMAGES = 20  # a batch of 16, and a rest
# Shipped models, their tasks, and the figures that these have beside boxes.
SHIPPED = {
    "digit-outlines": ("segment", {"masks": 0.01}),
    "digit-strokes": ("pose", {"keypoints": 0.01, "visibility": 1e-4}),
    "tilted-digits": ("obb", {"corners": 0.01, "angles": 1e-4}),
}

# Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason="needs ../shared/data")


def weights_of(model: str) -> Path:
    return ROOT / "export" / "weights" / f"{model}.onnx"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of yolov8n and the shipped networks with the interface of Ultralytics' client."""
    repository = tmp_path_factory.mktemp("yolo")
    files = {name: weights_of(name) for name in (*SHIPPED, "digit-classes")}
    for name, file in (files | ({"yolov8n": WEIGHTS} if WEIGHTS.is_file() else {})).items():
        arguments = ["ultralytics", name, str(file), "--interface", "ultralytics", "--repository", str(repository)]
        assert main(arguments) == 0
    return repository


@pytest.fixture(scope="module")
def yolo(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over the exported versions."""
    with start_stack(published, tmp_path_factory.mktemp("yolo-log") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that describes some labelled images."""
    folder = tmp_path_factory.mktemp("labelled")
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        (folder / kind).mkdir()
        for path in sorted((COCO / "images").glob("*.jpg"))[:_IMAGES]:
            shutil.copyfile(COCO / kind / f"{path.stem}.{suffix}", folder / kind / f"{path.stem}.{suffix}")
    described = {"path": str(folder), "train": "images", "val": "images", "names": dict(YOLO(WEIGHTS).names)}
    (folder / "data.yaml").write_text(yaml.safe_dump(described))
    return folder / "data.yaml"


def urls(stack: Stack, model: str = "yolov8n") -> list[str]:
    return [f"http://127.0.0.1:{stack.http_port}/{model}", f"grpc://127.0.0.1:{stack.grpc_port}/{model}"]


@needs_coco
def test_val_with_its_default_batch_has_the_figures_of_the_file(
    yolo: Stack, published: Path, labelled: Path, tmp_path: Path
) -> None:
    def validate(model: Any) -> Any:
        # No batch is named: it is 16, twice what Triton takes at once.
        return model.val(data=str(labelled), plots=False, project=str(tmp_path), workers=0)

    # With a file for ONNX Runtime it preprocesses to the same images; for torch it uses another rectangle.
    expected = validate(YOLO(published / "yolov8n" / "1" / "model.onnx", task="detect")).results_dict
    assert expected["metrics/mAP50-95(B)"] > 0.3
    for url in urls(yolo):
        assert validate(YOLO(url, task="detect")).results_dict == pytest.approx(expected, abs=1e-3)


@needs_coco
def test_predict_of_a_batch_finds_what_the_weights_find(yolo: Stack, labelled: Path) -> None:
    images = [str(path) for path in sorted((labelled.parent / "images").iterdir())]

    def predict(model: Any) -> list[int]:
        return [len(result.boxes) for result in model.predict(images, batch=16, rect=False, verbose=False)]

    expected = predict(YOLO(WEIGHTS))
    assert sum(expected) > 50
    for url in urls(yolo):
        assert predict(YOLO(url, task="detect")) == expected


@pytest.fixture(scope="module")
def scenes() -> list[NDArray[np.uint8]]:
    """BGR, of digits that no model was trained on: of one size, and smaller, larger and oblong ones."""
    images = [np.ascontiguousarray(scene.image_hwc[..., ::-1]) for scene in compose("held-out", count=10, seed=51)]
    enlarged = np.asarray(cv2.resize(images[8], (640, 400), interpolation=cv2.INTER_CUBIC), np.uint8)
    return [*images[:8], enlarged, np.ascontiguousarray(images[9][:, 40:260])]


@pytest.mark.parametrize("model", SHIPPED)
@pytest.mark.parametrize("settings", [{}, {"batch": 10}, {"retina_masks": True, "conf": 0.1, "iou": 0.4}])
def test_predict_of_every_task_finds_what_the_file_finds(
    yolo: Stack, scenes: Sequence[NDArray[np.uint8]], model: str, settings: dict[str, Any]
) -> None:
    task, limits = SHIPPED[model]

    def predict(weights: Path | str) -> list[Any]:
        results = YOLO(weights, task=task).predict(list(scenes), imgsz=320, verbose=False, **settings)
        return [read_result(result) for result in results]

    expected = predict(weights_of(model))
    assert sum(len(each["classes"]) for each in expected) > 15
    for url in urls(yolo, model):
        figures = differences(predict(url), expected)
        print(f"{url}, {settings}: {figures}")
        assert figures.keys() == {"boxes", "scores", *limits}
        for name, limit in {"boxes": 0.01, "scores": 1e-4, **limits}.items():
            assert figures[name] < limit, (url, figures)


def test_predict_of_a_classifier_gives_the_probabilities_of_the_file(yolo: Stack) -> None:
    images = [np.ascontiguousarray(image[..., ::-1]) for image, _ in compose_single("held-out", count=8, seed=51)]

    def predict(weights: Path | str) -> NDArray[np.float32]:
        results = YOLO(weights, task="classify").predict(images, imgsz=64, verbose=False)
        return np.stack([result.probs.data.numpy() for result in results])

    expected = predict(weights_of("digit-classes"))
    for url in urls(yolo, "digit-classes"):
        np.testing.assert_allclose(predict(url), expected, rtol=0, atol=1e-4)
