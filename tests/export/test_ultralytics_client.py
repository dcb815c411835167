"""Ultralytics' own Triton client against the real stack: `val` and `predict` as a user calls them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from export.__main__ import main
from tests.support.fixtures import SHARED
from tests.support.stack import Stack, start_stack

COCO = SHARED / "coco128"
WEIGHTS = SHARED / "weights" / "yolov8n.pt"
_IMAGES = 20  # a batch of 16, and a rest

pytestmark = [
    pytest.mark.skipif(not COCO.is_dir(), reason="needs ../shared/data"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of yolov8n with the interface of Ultralytics' client."""
    repository = tmp_path_factory.mktemp("yolo")
    arguments = ["ultralytics", "yolov8n", str(WEIGHTS), "--interface", "ultralytics", "--repository", str(repository)]
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


def urls(stack: Stack) -> list[str]:
    return [f"http://127.0.0.1:{stack.http_port}/yolov8n", f"grpc://127.0.0.1:{stack.grpc_port}/yolov8n"]


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


def test_predict_of_a_batch_finds_what_the_weights_find(yolo: Stack, labelled: Path) -> None:
    images = [str(path) for path in sorted((labelled.parent / "images").iterdir())]

    def predict(model: Any) -> list[int]:
        return [len(result.boxes) for result in model.predict(images, batch=16, rect=False, verbose=False)]

    expected = predict(YOLO(WEIGHTS))
    assert sum(expected) > 50
    for url in urls(yolo):
        assert predict(YOLO(url, task="detect")) == expected
