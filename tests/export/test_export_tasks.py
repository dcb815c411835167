"""Every head of Ultralytics, exported from its checkpoint, against Ultralytics' own `predict` on photos."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.__main__ import main
from export.proof.drawn_images import NamedImage, draw_images
from export.proof.predictions import verify
from export.proof.session import Session
from export.sources.ultralytics_checkpoint import Checkpoint
from export.sources.ultralytics_results import predict_objects
from export.writer.config import read_config
from tests.support.fixtures import SHARED
from tests.support.networks import (
    build_network,
    build_open_vocabulary,
    build_transformer,
    limit_outputs,
    read_photos,
)
from transformer.tasks import describe

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python"),
]

PHOTOS, BATCHED = 32, 8
IMGSZ = 320
CONFIDENCE = 0.05


@dataclass(frozen=True)
class Head:
    """A network to build, and what becomes of it."""

    config: str
    task: str = "detect"
    options: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


HEADS = {
    "v5u": Head("yolov5n.yaml"),
    "v8": Head("yolov8n.yaml"),
    "v9": Head("yolov9t.yaml"),
    "v10": Head("yolov10n.yaml"),
    "v10, NMS-free": Head("yolov10n.yaml", options=("--nms-free",)),
    "11": Head("yolo11n.yaml"),
    "12": Head("yolo12n.yaml"),
    "26": Head("yolo26n.yaml"),
    "26, NMS-free": Head("yolo26n.yaml", options=("--nms-free",)),
    "v8-seg": Head("yolov8n-seg.yaml", "segment"),
    "11-seg": Head("yolo11n-seg.yaml", "segment"),
    "26-seg": Head("yolo26n-seg.yaml", "segment"),
    "26-seg, NMS-free": Head("yolo26n-seg.yaml", "segment", ("--nms-free",)),
    "v8-pose": Head("yolov8n-pose.yaml", "pose", arguments={"classes": 2}),
    "11-pose": Head("yolo11n-pose.yaml", "pose", arguments={"classes": 1, "keypoints": (5, 2)}),
    "26-pose": Head("yolo26n-pose.yaml", "pose", arguments={"classes": 3}),
    "26-pose, NMS-free": Head("yolo26n-pose.yaml", "pose", ("--nms-free",), {"classes": 3}),
    "v8-obb": Head("yolov8n-obb.yaml", "obb", arguments={"classes": 3}),
    "11-obb": Head("yolo11n-obb.yaml", "obb", arguments={"classes": 15}),
    "26-obb": Head("yolo26n-obb.yaml", "obb", arguments={"classes": 3}),
    "26-obb, NMS-free": Head("yolo26n-obb.yaml", "obb", ("--nms-free",), {"classes": 3}),
    "RT-DETR": Head("rtdetr"),
    "YOLO-World": Head("yolov8s-worldv2.yaml"),
    "YOLOE-seg": Head("yoloe-11s-seg.yaml", "segment"),
}


class InBatch:
    """A model that runs each image behind another one, in one batch."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def infer(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        outputs = self._session.infer(np.concatenate([np.ascontiguousarray(batch[:, ::-1]), batch]))
        return {name: output[1:] for name, output in outputs.items()}


@pytest.fixture(scope="module")
def photos() -> list[NamedImage]:
    return [NamedImage(name, image) for name, image in read_photos(PHOTOS).items()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, photos: list[NamedImage]) -> Callable[[Head], Path]:
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(config: str, arguments: tuple[tuple[str, Any], ...]) -> Path:
        path = folder / f"{config}.pt"
        # An export is compared on the drawn images too.
        images = [image.image_hwc for image in (*draw_images(), *photos[::3])]
        if config == "rtdetr":
            build_transformer().save(path)
        elif "world" in config or "yoloe" in config:
            build_open_vocabulary(config, images).save(path)
        else:
            limit_outputs(build_network(config, images=images, **dict(arguments)), images).save(path)
        return path

    return lambda head: make(head.config, tuple(head.arguments.items()))


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Rows of the table that docs and issues show: printed at the end."""
    rows: list[str] = []
    yield rows
    print("\n| task | head | photos | found | differences |\n|---|---|---|---|---|")
    print("\n".join(rows))


# Of torch, as it exports RT-DETR's queries; they are not negative.
@pytest.mark.filterwarnings("ignore:Exporting aten..index operator of advanced indexing")
@pytest.mark.parametrize("name", HEADS)
def test_version_of_a_checkpoint_finds_what_predict_finds_on_photos(
    tmp_path: Path, checkpoint: Callable[[Head], Path], photos: list[NamedImage], table: list[str], name: str
) -> None:
    head = HEADS[name]
    weights = checkpoint(head)
    command = ["ultralytics", "m", str(weights), "--allow-unpickling", "--imgsz", str(IMGSZ), *head.options]
    assert main([*command, "--repository", str(tmp_path)]) == 0
    parity = json.loads((tmp_path / "m" / "1" / "parity.json").read_bytes())
    assert parity["compared_with"] == "Ultralytics' predict"
    assert parity["detections"]["found"] > 50
    config = read_config(tmp_path / "m" / "config.pbtxt")
    model = describe(config, version="1")
    assert model.task == head.task
    session = Session(tmp_path / "m" / "1" / "model.onnx", name=name)
    program = predict_objects(Checkpoint(weights, name, head.task, "--nms-free" in head.options), model)
    for label, run, images in (("single", session, photos), ("batched", InBatch(session), photos[:BATCHED])):
        found = verify(run, model, program, images=images, confidence=CONFIDENCE)  # type: ignore[arg-type]
        assert found["found"] > len(images)
        apart = ", ".join(f"{figure} {found[figure]:.2g}" for figure in found if figure not in {"confidence", "iou"})
        table.append(f"| {head.task} | {name} | {len(images)} {label} | {found['found']} | {apart} |")
