"""Semantic segmentation and depth of Ultralytics: exported, served, and compared with its own `predict`."""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import openvino
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image

from export.__main__ import main
from export.proof.drawn_images import draw_images
from export.writer.config import read_config
from tests.support.fixtures import SHARED
from tests.support.map_networks import build_network
from tests.support.stack import Stack, start_stack
from transformer.tasks import describe, image_task

COCO = SHARED / "coco128" / "images"
SIDE = 320
HIGHEST_M = np.float32(65.535)  # in a PNG of millimetres
_IMAGES = 30

pytestmark = [
    pytest.mark.skipif(not COCO.is_dir(), reason="needs ../shared/data"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python integer"),
]
HEADS = ("sem", "depth")
MODELS = ("sem", "sem-ultralytics", "depth", "depth-ultralytics")


@dataclass(frozen=True)
class Photo:
    """An image as BGR, which Ultralytics takes, and as a PNG, whose pixels are the same in every decoder."""

    bgr: NDArray[np.uint8]
    png: bytes


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    paths = sorted(COCO.glob("*.jpg"))[:_IMAGES]
    found = [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]
    return [Photo(image, cv2.imencode(".png", image)[1].tobytes()) for image in found]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ONNX file of each head as Ultralytics exports it, and its checkpoint beside it."""
    from ultralytics import YOLO  # noqa: PLC0415 - only in the environment of `make test-export`

    folder = tmp_path_factory.mktemp("maps")
    return {
        head: Path(
            YOLO(build_network(f"yolo26n-{head}", folder, side=SIDE)).export(
                format="onnx", dynamic=True, opset=17, imgsz=SIDE, device="cpu"
            )
        )
        for head in HEADS
    }


@pytest.fixture(scope="module")
def server(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("served")
    for name in MODELS:
        head, _, interface = name.partition("-")
        command = ["ultralytics", name, str(files[head]), "--interface", interface or "fused"]
        assert main([*command, "--repository", str(folder / "repository")]) == 0
    with start_stack(folder / "repository", folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def expected(files: dict[str, Path], photos: list[Photo]) -> dict[str, list[NDArray[Any]]]:
    """The maps of Ultralytics' predict with the ONNX files, in the size of each image."""
    return {head: predict(str(files[head]), head, photos) for head in HEADS}


def predict(weights: str, head: str, photos: list[Photo], **options: Any) -> list[NDArray[Any]]:
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    yolo = YOLO(weights, task="semantic" if head == "sem" else "depth")
    results = [yolo.predict(photo.bgr, imgsz=SIDE, verbose=False, **options)[0] for photo in photos]
    return [np.asarray((result.semantic_mask if head == "sem" else result.depth).data) for result in results]


def decode(text: str) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def read_map(response: Any) -> NDArray[Any]:
    """Classes, or metres."""
    if "segmentation_mask" in response:
        return decode(response["segmentation_mask"])
    return decode(response["depth_map"]) * np.float32(response["scale"])


def apart(head: str, found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The share of other classes, or the largest difference by the distance beyond half a millimetre of rounding."""
    assert found.shape == wanted.shape
    if head == "sem":
        return float(np.mean(found != wanted))
    if found.max() <= HIGHEST_M:  # of a PNG
        wanted = np.minimum(wanted, HIGHEST_M)
    return float((np.maximum(np.abs(found - wanted) - 0.0006, 0) / wanted).max())


def ok(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("name", MODELS)
def test_predict_serves_the_maps_of_ultralytics(
    server: Stack, photos: list[Photo], expected: dict[str, list[NDArray[Any]]], name: str
) -> None:
    head = name.partition("-")[0]
    alone = [ok(server.http.post(f"/predict/{name}", files={"image": photo.png})) for photo in photos]
    together = []
    for first in range(0, _IMAGES, 6):
        files = [("image", (f"{index}.png", photo.png)) for index, photo in enumerate(photos[first : first + 6])]
        together += ok(server.http.post(f"/predict/{name}", files=files))
    worst = 0.0
    for wanted, one, other in zip(expected[head], alone, together, strict=True):
        maps = [read_map(response) for response in (one, other)]
        worst = max(worst, *(apart(head, found, wanted) for found in maps))
        if head == "sem":
            assert sum(each["pixel_ratio"] for each in one["predictions"]) == pytest.approx(1, abs=1e-4)
            assert one["present_class_ids"] == np.unique(maps[0]).tolist()
        else:
            assert one["limits_reached"] == ({"depth_map": 65535} if wanted.max() > HIGHEST_M else {})
            assert (one["min"], one["max"]) == pytest.approx((wanted.min(), wanted.max()), rel=1e-3)
    # The same tensors in; what `fused` differs by is that 1/255 is part of the weights of its first convolution.
    assert worst <= (1e-5 if name.endswith("ultralytics") else 2e-3)
    assert len(np.unique(expected["sem"][0])) > 5
    assert np.ptp(expected["depth"][0]) > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_v1_serves_maps(server: Stack, photos: list[Photo], expected: dict[str, list[NDArray[Any]]], name: str) -> None:
    instances = [{"image": {"b64": base64.b64encode(photo.png).decode()}} for photo in photos[:2]]
    response = ok(server.http.post(f"/v1/models/{name}:predict", json={"instances": instances}))
    head = name.partition("-")[0]
    for found, wanted in zip(response["predictions"], expected[head], strict=False):
        assert apart(head, read_map(found), wanted) <= 2e-3


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc])
@pytest.mark.parametrize("name", MODELS)
def test_v2_serves_maps_of_mixed_sizes(
    server: Stack, photos: list[Photo], expected: dict[str, list[NDArray[Any]]], name: str, library: Any
) -> None:
    head = name.partition("-")[0]
    port = server.http_port if library is tritonclient.http else server.grpc_port
    tensor = library.InferInput("image", [4], "BYTES")
    tensor.set_data_from_numpy(np.array([photo.png for photo in photos[:4]], np.object_))
    wanted = ["class_map", "pixel_ratios"] if head == "sem" else ["depth", "depth_range"]
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        described = {each["name"]: each for each in server.http.get(f"/v2/models/{name}").json()["outputs"]}
        result = client.infer(name, [tensor], outputs=[library.InferRequestedOutput(each) for each in wanted])
        everything = client.infer(name, [tensor])
    stacked, figures = (result.as_numpy(each) for each in wanted)
    sizes = [each.shape for each in expected[head][:4]]
    assert len(set(sizes)) > 1
    assert stacked.shape == (4, max(height for height, _ in sizes), max(width for _, width in sizes))
    assert stacked.dtype == (np.uint8 if head == "sem" else np.float32)
    for index, each in enumerate(expected[head][:4]):
        height, width = each.shape
        assert apart(head, stacked[index, :height, :width], each) <= 2e-3
        assert (stacked[index, height:] == (255 if head == "sem" else 0)).all()
        assert (stacked[index, :, width:] == (255 if head == "sem" else 0)).all()
    assert figures.shape == ((4, 19) if head == "sem" else (4, 2))
    assert list(described) == ["predictions", *wanted]
    texts = everything.as_numpy("predictions")
    assert apart(head, read_map(json.loads(texts[1])), expected[head][1]) <= 2e-3


def test_options_of_a_request(server: Stack, photos: list[Photo], files: dict[str, Path]) -> None:
    image = {"image": photos[0].png}
    chosen = ok(server.http.post("/predict/sem-ultralytics", files=image, params={"classes": "2,7"}))
    (wanted,) = predict(str(files["sem"]), "sem", photos[:1], classes=[2, 7])
    np.testing.assert_array_equal(read_map(chosen), wanted)
    assert {each["class_id"] for each in chosen["predictions"]} <= {2, 7}
    left_out = ok(server.http.post("/predict/sem", files=image, data={"segmentation_mask": "none"}))
    assert (left_out["segmentation_mask"], len(left_out["predictions"]) > 5) == (None, True)
    both = ok(server.http.post("/predict/depth", files=image, params={"depth_map": "both", "depth_scale": 0.01}))
    assert both["scale"] == 0.01
    assert decode(both["normalized_depth"]).max() == 65535
    none = ok(server.http.post("/predict/depth", files=image, params={"depth_map": "none"}))
    assert (none["depth_map"], none["normalized_depth"], none["max"]) == (None, None, both["max"])
    clipped = server.http.post(
        "/predict/depth", files=image, params={"depth_scale": 1e-6}, headers={"Accept": "image/png"}
    )
    assert json.loads(clipped.headers["X-Limits-Reached"]) == [{"depth_map": 65535}]
    wrong = server.http.post("/predict/sem", files=image, params={"confidence": 0.5})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("name", ["sem", "depth"])
def test_maps_are_drawn_and_described(server: Stack, photos: list[Photo], name: str) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    content = server.http.post(f"/predict/{name}", content=photos[0].png, headers=headers).raise_for_status().content
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    assert drawn.shape == photos[0].bgr.shape
    document = ok(server.http.get("/openapi.json"))
    schema = {"$ref": f"#/components/schemas/{'Segmentation' if name == 'sem' else 'DepthMap'}", **document}
    response = ok(server.http.post(f"/predict/{name}", files={"image": photos[0].png}))
    jsonschema.Draft202012Validator(schema).validate(response)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_ultralytics_own_client_gets_the_maps_of_the_file(
    server: Stack, photos: list[Photo], expected: dict[str, list[NDArray[Any]]], head: str, scheme: str
) -> None:
    port = server.http_port if scheme == "http" else server.grpc_port
    found = predict(f"{scheme}://127.0.0.1:{port}/{head}-ultralytics", head, photos[:6])
    for got, wanted in zip(found, expected[head], strict=False):
        assert apart(head, got, wanted) <= 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_checkpoint_is_compared_with_predict(files: dict[str, Path], tmp_path: Path, head: str) -> None:
    weights = files[head].with_suffix(".pt")
    command = ["ultralytics", "m", str(weights), "--allow-unpickling", "--imgsz", str(SIDE)]
    assert main([*command, "--repository", str(tmp_path)]) == 0
    parity = json.loads((tmp_path / "m" / "1" / "parity.json").read_bytes())
    assert parity["compared_with"] == "the network of the checkpoint"
    figure = "pixels_apart" if head == "sem" else "relative"
    assert max(parity[figure], parity["predict"][figure]) <= 1e-3
    assert parity["predict_of_checkpoint"][figure] <= (0.5 if head == "sem" else 1e-3)
    manifest = json.loads((tmp_path / "m" / "1" / "manifest.json").read_bytes())
    assert manifest["task"] == ("semantic" if head == "sem" else "depth")


def test_predict_that_fails_is_reported_in_its_words(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("ultralytics.engine.model.Model.predict", fail)
    weights = files["sem"].with_suffix(".pt")
    command = ["ultralytics", "m", str(weights), "--allow-unpickling", "--imgsz", str(SIDE)]
    assert main([*command, "--repository", str(tmp_path / "to")]) == 1
    assert re.search(r"Ultralytics' predict fails on an image of \d+x\d+: MemoryError", capsys.readouterr().err)
    assert not (tmp_path / "to").exists()


def _predict_maps(version: Path, precision: str) -> list[NDArray[Any]]:
    """The map of each drawn image, by OpenVINO in a precision."""
    model = describe(read_config(version.parent / "config.pbtxt"), version=version.name)
    compiled = openvino.Core().compile_model(version / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": precision})
    task, found = image_task(model), []
    for image in draw_images():
        height, width = image.image_hwc.shape[:2]
        pixels, plan = task.preprocess(image.image_hwc, model, size_wh=(width, height))
        (output,) = compiled(pixels[None]).values()
        prediction = task.postprocess({model.outputs[0].name: output[0]}, model, plan=plan, options=task.options())
        found.append(np.concatenate([strip for _, strip in prediction.whole.strips()]))
    return found


def _mean_iou(ones: list[NDArray[Any]], others: list[NDArray[Any]]) -> float:
    one, other = (np.concatenate([each.ravel() for each in maps]) for maps in (ones, others))
    classes = np.union1d(one, other)
    ious = [np.sum((one == each) & (other == each)) / np.sum((one == each) | (other == each)) for each in classes]
    return float(np.mean(ious))


def _mean_error(ones: list[NDArray[Any]], others: list[NDArray[Any]]) -> float:
    one, other = (np.concatenate([each.ravel() for each in maps]).astype(np.float64) for maps in (ones, others))
    return float(np.mean(np.abs(one - other) / other))


@pytest.mark.parametrize("head", HEADS)
def test_cost_of_bf16_is_what_a_calculation_of_its_own_gives(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    command = ["ultralytics", "m", str(files[head]), "--repository", str(tmp_path)]
    assert main(command) == 0
    maps = [_predict_maps(tmp_path / "m" / "1", precision) for precision in ("bf16", "f32")]
    if head == "sem":
        name, figure = "miou", _mean_iou(*maps)
        fits = figure >= 0.95
    else:
        name, figure = "relative_error", _mean_error(*maps)
        fits = figure <= 0.02
    # Random weights amplify noise: where the CPU computes in bf16 it may cost too much, else it costs nothing.
    assert main([*command, "--precision", "bf16"]) == (0 if fits else 1)
    if fits:
        manifest = json.loads((tmp_path / "m" / "2" / "manifest.json").read_bytes())
        assert manifest["precisions"]["bf16"][name] == pytest.approx(figure, abs=0.002)
    else:
        found = re.search(rf"bf16: {name} against what FP32 finds: got ([\d.]+)", capsys.readouterr().err)
        assert found is not None
        assert float(found[1]) == pytest.approx(figure, abs=0.002)
