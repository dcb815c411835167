"""Real heads of Ultralytics, built with random weights, against Ultralytics' own `predict`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from export.__main__ import main
from export.proof.average_precision import Rows
from export.proof.drawn_images import draw_images
from export.writer.config import read_config
from tests.reference.detections import compare
from transformer.tasks.detect import DETECT

pytestmark = [
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ultralytics"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean"),  # a network of fixed size
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python integer"),
]
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("heads")

    def make(name: str) -> Path:
        """A checkpoint with outputs worth comparing: its normalisation fits the images, its scores spread."""
        import torch  # noqa: PLC0415 - only in the environment of `make test-export`
        from ultralytics import YOLO  # noqa: PLC0415

        path = folder / f"{name}.pt"
        if path.exists():
            return path
        torch.manual_seed(0)
        yolo = YOLO(f"{name}.yaml")
        network: Any = yolo.model
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        images = np.stack([cv2.resize(image.image_hwc, (320, 320)) for image in draw_images()])
        with torch.no_grad():
            network.train()
            network(torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255)
            network.eval()
            head = network.model[-1]
            for attribute in ("cv3", "one2one_cv3", "cv2", "one2one_cv2"):
                for branch in getattr(head, attribute, None) or []:
                    last, is_class = branch[-1], attribute.endswith("cv3")
                    if is_class or head.reg_max == 1:
                        size = (0.4 if is_class else 0.3) / (last.weight.std() * last.weight.shape[1] ** 0.5)
                        last.weight.mul_(size)
                        last.bias.fill_(-6 if is_class else 3)
        yolo.save(path)
        return path

    return make


def export(tmp_path: Path, weights: Path, *options: str) -> tuple[int, Path]:
    command = ["ultralytics", "m", str(weights), "--allow-unpickling", "--imgsz", "320", *options]
    return main([*command, "--repository", str(tmp_path)]), tmp_path / "m" / "1"


def predict(file: Path, **options: Any) -> list[Rows]:
    """Detections of Ultralytics in the fixed images: corners, score and class of each."""
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    yolo = YOLO(file, task="detect")
    images = [np.ascontiguousarray(image.image_hwc[..., ::-1]) for image in draw_images()]
    settings: dict[str, Any] = {"imgsz": 320, "rect": False, "conf": 0.01, "verbose": False, **options}
    return [yolo.predict(image, **settings)[0].boxes.data.tolist() for image in images]


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
@pytest.mark.parametrize(
    ("name", "options", "end2end", "dims"),
    [
        ("yolo26n", [], False, [84, -1]),
        ("yolo26n", ["--nms-free"], True, [300, 6]),
        ("yolov10n", ["--nms-free", "--letterbox", "square"], True, [300, 6]),
    ],
)
def test_exports_of_both_heads_find_the_detections_of_predict(
    tmp_path: Path, build: Build, name: str, options: list[str], end2end: bool, dims: list[int], interface: str
) -> None:
    status, folder = export(tmp_path, build(name), "--interface", interface, *options)
    assert status == 0
    parity = json.loads((folder / "parity.json").read_bytes())
    assert parity["compared_with"] == "Ultralytics' predict"
    assert parity["detections"]["found"] > 50
    assert parity["detections"]["boxes_px"] < 0.5
    config: Any = read_config(folder / "config.pbtxt")
    assert f"'end2end': {end2end}" in config.parameters["metadata"].string_value
    if interface == "ultralytics":
        assert list(config.output[0].dims) == dims
        # The above is our own record. Here Ultralytics itself runs the published file, and the checkpoint.
        expected = predict(build(name), nms=False if end2end else None)
        assert sum(map(len, expected)) > 50
        for found, wanted in zip(predict(folder / "model.onnx"), expected, strict=True):
            assert compare(found, wanted, box_px=0.5, score=1e-3) == []


def test_head_that_a_checkpoint_lacks_is_rejected(
    tmp_path: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = export(tmp_path, build("yolov8n"), "--nms-free")
    assert status == 1
    assert "got a checkpoint with one head, which needs NMS, expected YOLO26 or YOLOv10" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"half": True}, {"half": True, "dynamic": True}, {"imgsz": [320, 480]}])
def test_onnx_file_that_ultralytics_writes_is_exported(tmp_path: Path, build: Build, options: dict[str, Any]) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    copy = tmp_path / "copy.pt"
    copy.write_bytes(build("yolo26n").read_bytes())
    file = YOLO(copy).export(format="onnx", opset=17, **{"imgsz": 320, **options})
    for number, (option, compared) in enumerate(
        [([], "the ONNX file itself"), (["--predict"], "Ultralytics' predict")], start=1
    ):
        assert main(["ultralytics", "m", str(file), *option, "--repository", str(tmp_path / "r")]) == 0
        parity = json.loads((tmp_path / "r" / "m" / str(number) / "parity.json").read_bytes())
        assert parity["compared_with"] == compared
    assert parity["detections"]["found"] > 0


def test_wrong_scaling_is_found_by_a_comparison_with_predict(
    tmp_path: Path, build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    copy = tmp_path / "copy.pt"
    copy.write_bytes(build("yolov8n").read_bytes())
    file = YOLO(copy).export(format="onnx", opset=17, imgsz=320)
    choose = DETECT.postprocess

    def shifted(*args: Any, **options: Any) -> Any:
        found = choose(*args, **options)
        return replace(found, boxes_xyxy=found.boxes_xyxy + np.float32(20))

    monkeypatch.setattr(DETECT, "postprocess", shifted)
    command = ["ultralytics", "m", str(file), "--repository", str(tmp_path / "r")]
    assert main(command) == 0  # both sides share what is served after the head
    assert main([*command, "--predict"]) == 1
    assert "Ultralytics' predict finds, what would be served does not have" in capsys.readouterr().err
