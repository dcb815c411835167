"""YOLOv8n as the stack serves it against Ultralytics' own results on real photos."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from export.proof.average_precision import mean_average_precision, read_yolo_labels
from tests.reference.detections import compare, read_reference
from tests.support.stack import ROOT, Stack, start_stack

CONFIGURATIONS = [
    (f"yolov8n-{interface}-{letterbox}", letterbox)
    for interface in ("fused", "ultralytics")
    for letterbox in ("rectangle", "square")
]


@pytest.fixture(scope="module")
def coco(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over YOLOv8n exported four ways from its weights."""
    repository = tmp_path_factory.mktemp("coco")
    for name, letterbox in CONFIGURATIONS:
        interface = name.split("-")[1]
        command = [sys.executable, "-m", "export", "ultralytics", name, str(shared / "weights" / "yolov8n.pt")]
        options = ["--interface", interface, "--letterbox", letterbox, "--repository", str(repository)]
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with start_stack(repository, tmp_path_factory.mktemp("coco-log") / "log") as running:
        yield running


def images(shared: Path) -> dict[str, Path]:
    """The 128 photos, and the two that come with ultralytics."""
    found = importlib.util.find_spec("ultralytics")
    assert found is not None
    assert found.origin is not None
    assets = Path(found.origin).parent / "assets"
    photos = {path.name: path for path in sorted((shared / "coco128" / "images").glob("*.jpg"))}
    return photos | {name: assets / name for name in ("bus.jpg", "zidane.jpg")}


def send(client: httpx.Client, model: str, image: Path, **query: str) -> list[list[float]]:
    response = client.post(f"/predict/{model}", params=query, files={"image": image.read_bytes()})
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return [[*p["box"].values(), p["confidence"], p["class_id"]] for p in predictions]


@pytest.mark.parametrize(("model", "letterbox"), CONFIGURATIONS)
def test_detections_are_those_of_ultralytics(coco: Stack, shared: Path, model: str, letterbox: str) -> None:
    expected = read_reference(f"yolov8n-{letterbox}").detections
    differences = {
        name: compare(send(coco.http, model, path), expected[name], box_px=1, score=0.005)
        for name, path in images(shared).items()
    }
    assert len(differences) == 130
    assert not {name: words for name, words in differences.items() if words}


@pytest.mark.parametrize(("model", "letterbox"), CONFIGURATIONS)
def test_mean_average_precision_is_that_of_ultralytics(coco: Stack, shared: Path, model: str, letterbox: str) -> None:
    photos = {name: path for name, path in images(shared).items() if name not in ("bus.jpg", "zidane.jpg")}
    sizes_wh = {}
    for name, path in photos.items():
        with Image.open(path) as image:
            sizes_wh[name] = image.size
    labels = {
        name: read_yolo_labels(shared / "coco128" / "labels" / f"{path.stem}.txt", sizes_wh[name])
        for name, path in photos.items()
    }
    found = {name: send(coco.http, model, path, confidence="0.001") for name, path in photos.items()}
    map50_95, _ = mean_average_precision(found, labels, sizes_wh)
    print(f"{model}: mAP50-95 {map50_95:.4f}")
    assert map50_95 == pytest.approx(read_reference(f"yolov8n-{letterbox}").map50_95, abs=0.003)


@pytest.mark.parametrize("server", ["triton", "transformer"])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_ultralytics_client_works_unmodified(
    coco: Stack, shared: Path, scheme: str, server: str, tmp_path: Path
) -> None:
    port = {
        "triton http": coco.triton_http_port,
        "triton grpc": coco.triton_grpc_port,
        "transformer http": coco.http_port,
        "transformer grpc": coco.grpc_port,
    }[f"{server} {scheme}"]
    bus = images(shared)["bus.jpg"]
    script = (
        "import sys, json\n"
        "from ultralytics import YOLO\n"
        "result = YOLO(sys.argv[1], task='detect')(sys.argv[2], verbose=False)[0]\n"
        "print(json.dumps([[*box.data.tolist()[0], result.names[int(box.cls)]] for box in result.boxes]))\n"
    )
    url = f"{scheme}://127.0.0.1:{port}/yolov8n-ultralytics-rectangle"
    done = subprocess.run(
        [sys.executable, "-c", script, url, str(bus)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert sorted(row[6] for row in rows) == ["bus", "person", "person", "person", "person", "stop sign"]
    expected = read_reference("yolov8n-rectangle").detections["bus.jpg"]
    assert not compare([row[:6] for row in rows], expected, box_px=1, score=0.005)
