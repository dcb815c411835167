"""Classifiers of Ultralytics, built with random weights, against Ultralytics' own `predict` on photos."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
import pytest
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image

from export.__main__ import main
from export.proof.drawn_images import draw_images
from export.proof.session import Session
from export.writer.config import read_config
from export.writer.versions import judge
from tests.support.described import CLASSIFIER
from tests.support.fixtures import SHARED
from tests.support.stack import start_stack
from transformer.tasks import describe
from transformer.tasks.classify import CLASSIFY, Choice

PHOTOS = SHARED / "coco128" / "images"
NETWORKS = ("yolov8n-cls", "yolo11n-cls", "yolo26n-cls")
_IMAGES = 32

pytestmark = [
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/data"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
Build = Callable[[str], Path]


def read_photos(count: int = _IMAGES) -> list[NDArray[np.uint8]]:
    """Photos as Ultralytics reads them: BGR."""
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in sorted(PHOTOS.glob("*.jpg"))[:count]]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("classifiers")

    def make(name: str) -> Path:
        """A checkpoint whose probabilities differ: its normalisation fits the images, its last layer spreads them."""
        import torch  # noqa: PLC0415 - only in the environment of `make test-export`
        from ultralytics import YOLO  # noqa: PLC0415

        path = folder / f"{name}.pt"
        if path.exists():
            return path
        torch.manual_seed(0)
        yolo = YOLO(f"{name}.yaml", task="classify")
        network: Any = yolo.model
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        images = np.stack([cv2.resize(image.image_hwc, (224, 224)) for image in draw_images()])
        last = network.model[-1].linear
        with torch.no_grad():
            network.train()
            seen: list[Any] = []
            hook = last.register_forward_hook(lambda _, __, logits: seen.append(logits))
            network(torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255)
            hook.remove()
            network.eval()
            last.weight.mul_(3 / seen[0].std(dim=0).mean())
            last.bias.zero_()
        yolo.save(path)
        return path

    return make


def export(repository: Path, weights: Path, *options: str) -> Path:
    command = ["ultralytics", "m", str(weights), *options, "--repository", str(repository)]
    if weights.suffix == ".pt":  # a network that was trained says its size
        command += ["--allow-unpickling", *([] if "--imgsz" in options else ["--imgsz", "224"])]
    assert main(command) == 0
    return repository / "m" / "1"


def serve(version: Path, images_bgr: list[NDArray[np.uint8]], *, batch: int) -> list[dict[str, Any]]:
    """JSON of each image, all classes, as the transformer makes it of the version's graph."""
    model = describe(read_config(version / "config.pbtxt"), version="1")
    session = Session(version / "model.onnx", name="m")
    found = []
    for start in range(0, len(images_bgr), batch):
        some = [np.ascontiguousarray(image[..., ::-1]) for image in images_bgr[start : start + batch]]
        prepared = [CLASSIFY.preprocess(image, model, size_wh=image.shape[1::-1]) for image in some]
        (output,) = session.infer(np.stack([tensor for tensor, _ in prepared])).values()
        for probabilities, (_, plan) in zip(output, prepared, strict=True):
            outputs = {model.outputs[0].name: probabilities}
            options = Choice(top_k=1000)
            found.append(CLASSIFY.postprocess(outputs, model, plan=plan, options=options).to_json(model))
    return found


def check_equal(found: list[dict[str, Any]], results: list[Any]) -> None:
    """All probabilities within 1e-4, and the five best classes the same; where two of them tie, either may be first."""
    for mine, result in zip(found, results, strict=True):
        expected = result.probs.data.numpy()
        got = np.zeros_like(expected)
        for each in mine["predictions"]:
            got[each["class_id"]] = each["confidence"]
        np.testing.assert_allclose(got, expected, atol=1e-4)
        best = [each["class_id"] for each in mine["predictions"][:5]]
        np.testing.assert_allclose(expected[best], expected[result.probs.top5], atol=1e-4)
        assert expected[best[0]] == pytest.approx(float(result.probs.top1conf), abs=1e-4)
        assert mine["top"] == result.names[best[0]]


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
@pytest.mark.parametrize("name", NETWORKS)
def test_classifier_equals_predict_alone_and_in_batches(
    build: Build, name: str, interface: str, tmp_path: Path
) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    weights = build(name)
    version = export(tmp_path, weights, "--interface", interface)
    parity = json.loads((version / "parity.json").read_text())
    assert (parity["compared_with"], parity["probabilities"] < 1e-4) == ("Ultralytics' predict", True)
    judge(version, where="m")
    assert {"fast.pbtxt", "gpu.pbtxt", "golden.npz"} <= {path.name for path in version.iterdir()}
    photos = read_photos()
    assert len(photos) >= 30
    results = YOLO(weights).predict(photos, imgsz=224, device="cpu", verbose=False)
    assert len({int(result.probs.top1) for result in results}) > 3  # a network that tells images apart
    assert max(float(result.probs.top1conf) for result in results) > 0.1
    for batch in (1, 8):
        check_equal(serve(version, photos, batch=batch), results)


@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_resize_and_crop_equal_torchvision(filter_: str) -> None:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize  # noqa: PLC0415 - as above

    random = np.random.default_rng(0)
    sizes = [image.shape[1::-1] for image in read_photos(4)] + [(1, 1), (1, 200), (200, 1), (600, 20), (224, 224)]
    for width, height in sizes:
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        for size, crop_hw in ((256, (224, 224)), (224, (224, 224)), (96, (64, 33)), ([80, 120], (80, 119))):
            fit = "stretch" if isinstance(size, list) else "shortest"
            resize = {"fit": fit, "size": size, "interpolation": filter_}
            model = replace(CLASSIFIER, channels=3, input_wh=crop_hw[::-1], facts={"resize": resize})
            tensor, _ = CLASSIFY.preprocess(image, model, size_wh=(width, height))
            steps = Resize(size, interpolation=InterpolationMode(filter_)), CenterCrop(crop_hw)
            assert np.array_equal(tensor, np.asarray(steps[1](steps[0](Image.fromarray(image))))), (width, height, size)


def test_image_that_is_not_square_is_stretched_to_a_size_that_is_not(build: Build, tmp_path: Path) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    weights = build(NETWORKS[0])
    source = Path(YOLO(weights).export(format="onnx", imgsz=[192, 256], device="cpu", verbose=False))
    version = export(tmp_path, source)
    model = describe(read_config(version / "config.pbtxt"), version="1")
    assert (model.input_wh, dict(model.facts["resize"])) == (
        (256, 192),
        {"fit": "stretch", "interpolation": "bilinear"},
    )
    photos = read_photos(8)
    results = YOLO(source, task="classify").predict(photos, imgsz=[192, 256], device="cpu", verbose=False)
    check_equal(serve(version, photos, batch=1), results)


def test_onnx_file_of_a_fixed_batch_is_verified_by_itself_or_by_predict(build: Build, tmp_path: Path) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    source = Path(YOLO(build(NETWORKS[1])).export(format="onnx", imgsz=128, device="cpu", verbose=False))
    for number, (options, program) in enumerate(
        [((), "the file, run with Pillow and ONNX Runtime"), (("--predict",), "Ultralytics' predict")], start=1
    ):
        command = ["ultralytics", "m", str(source), *options, "--repository", str(tmp_path)]
        assert main(command) == 0
        parity = json.loads((tmp_path / "m" / str(number) / "parity.json").read_text())
        assert (parity["compared_with"], parity["probabilities"] < 1e-4) == (program, True)


def test_precisions_are_measured_by_the_best_class(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, imgsz = build(NETWORKS[0]), ("--imgsz", "64")
    version = export(tmp_path, weights, *imgsz)
    model = describe(read_config(version.parent / "config.pbtxt"), version="1")
    photos = [np.ascontiguousarray(image[..., ::-1]) for image in read_photos(128)]
    tensors = [CLASSIFY.preprocess(image, model, size_wh=image.shape[1::-1])[0] for image in photos]
    best = []
    for precision in ("bf16", "f32"):
        properties = {"INFERENCE_PRECISION_HINT": precision}
        compiled = openvino.Core().compile_model(version / "model.onnx", "CPU", properties)
        best.append([int(next(iter(compiled(tensor[None]).values())).argmax()) for tensor in tensors])
    top1 = float(np.mean(np.array(best[0]) == np.array(best[1])))
    # Random weights amplify noise: where the CPU computes in bf16 an image or two get another class.
    options = ("--precision", "bf16", "--calibration", str(PHOTOS), "--allow-unpickling")
    status = main(["ultralytics", "m", str(weights), *options, *imgsz, "--repository", str(tmp_path)])
    if top1 >= 0.995:
        assert status == 0
        cost = json.loads((tmp_path / "m" / "2" / "manifest.json").read_text())["precisions"]["bf16"]
        assert (cost["fp32"], cost["truth"], cost["pictures"]) == (1.0, "fp32", 128)
        assert cost["top1"] == pytest.approx(top1, abs=1e-4)
    else:
        assert status == 1
        found = re.search(r"bf16: top-1 against what FP32 finds: got ([\d.]+), expected", capsys.readouterr().err)
        assert found is not None
        assert float(found[1]) == pytest.approx(top1, abs=1e-4)


def test_predict_that_fails_is_reported_in_its_words(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise IndexError("no such layer\nmore")

    monkeypatch.setattr("ultralytics.engine.model.Model.predict", fail)
    command = ["ultralytics", "m", str(build(NETWORKS[0])), "--allow-unpickling", "--imgsz", "64"]
    assert main([*command, "--repository", str(tmp_path / "to")]) == 1
    assert "Ultralytics' predict fails on an image: no such layer\n" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("option", [["--letterbox", "square"], ["--nms-free"]])
def test_options_of_detectors_are_rejected(
    build: Build, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ultralytics", "m", str(build(NETWORKS[0])), "--allow-unpickling", "--repository", str(tmp_path)]
    assert main([*command, *option]) == 1
    assert f"{option[0]}: got a c" in capsys.readouterr().err  # a classifier, or a checkpoint with one head


def test_ultralytics_client_classifies_over_both_protocols(build: Build, tmp_path: Path) -> None:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    weights = build(NETWORKS[2])
    export(tmp_path / "repository", weights, "--interface", "ultralytics")
    photos = read_photos(6)
    expected = YOLO(weights).predict(photos, imgsz=224, device="cpu", verbose=False)
    with start_stack(tmp_path / "repository", tmp_path / "log") as stack:
        urls = [f"http://127.0.0.1:{stack.http_port}/m", f"grpc://127.0.0.1:{stack.grpc_port}/m"]
        for url in urls:
            results = YOLO(url, task="classify").predict(photos, imgsz=224, verbose=False)
            for got, want in zip(results, expected, strict=True):
                np.testing.assert_allclose(got.probs.data.numpy(), want.probs.data.numpy(), atol=1e-4)
                assert got.names[got.probs.top1] == want.names[want.probs.top1]
        files = {"image": cv2.imencode(".png", photos[0])[1].tobytes()}
        response = stack.http.post("/predict/m", files=files, params={"top_k": 3}).raise_for_status().json()
        assert [each["class_id"] for each in response["predictions"]] == expected[0].probs.top5[:3]
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{stack.http_port}") as client:
            assert client.get_model_metadata("m")["parameters"]["resize"]["fit"] == "shortest"
