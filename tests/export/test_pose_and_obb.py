"""Poses and oriented boxes of Ultralytics' heads, on photos, as its own `predict` finds them."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from export.proof.session import Session
from export.writer.config import describe_model
from tests.support.fixtures import SHARED
from tests.support.networks import build_network, read_photos
from transformer.imaging.letterbox import Image
from transformer.tasks import describe, image_task
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections, match
from transformer.tasks.pose import Poses
from transformer.triton.model import Model, TensorMetadata

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python"),
]

PHOTOS, BATCH = 32, 8
IMGSZ = 320
_SAME_PX, _SAME_SCORE = 4.0, 0.004  # within both, and of one class, two objects are the same one
# Configuration, whether its head without NMS is exported, what the network is built with.
HEADS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "v8-pose": ("yolov8n-pose.yaml", False, {"classes": 2}),
    "v8-pose-of-places": ("yolov8n-pose.yaml", False, {"classes": 1, "keypoints": (5, 2)}),
    "11-pose": ("yolo11n-pose.yaml", False, {"classes": 1}),
    "26-pose": ("yolo26n-pose.yaml", False, {"classes": 3}),
    "26-pose-nms-free": ("yolo26n-pose.yaml", True, {"classes": 3}),
    "v8-obb": ("yolov8n-obb.yaml", False, {"classes": 3}),
    "11-obb": ("yolo11n-obb.yaml", False, {"classes": 15}),
    "26-obb": ("yolo26n-obb.yaml", False, {"classes": 3}),
    "26-obb-nms-free": ("yolo26n-obb.yaml", True, {"classes": 3}),
}
# Beside what a task tolerates: both run the same graph on the same tensor.
SAME_GRAPH = {"boxes_px": 2e-3, "scores": 1e-5, "keypoints_px": 2e-3, "visibility": 1e-5}
SAME_GRAPH |= {"corners_px": 2e-3, "rotation": 1e-5}


@dataclass(frozen=True)
class Exported:
    """A network in Ultralytics, as a checkpoint and as the file that it exports, and how it is served."""

    checkpoint: Any
    file: Any
    is_nms_free: bool
    session: Session
    model: Model

    def predict(self, yolo: Any, images: Sequence[Image], **settings: Any) -> list[Detections]:
        """What Ultralytics finds, with the checkpoint or with the exported file."""
        settings = {"imgsz": IMGSZ, "verbose": False, "nms": False if self.is_nms_free else None, **settings}
        bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        return [read_result(result) for result in yolo.predict(bgr, **settings)]

    def serve(self, images: Sequence[Image], **options: Any) -> list[Detections]:
        """What is found in each image alone, in the smallest rectangle around it."""
        return [found for image in images for found in self._serve(self.model, [image], options)]

    def serve_batches(self, images: Sequence[Image]) -> list[Detections]:
        """What is found in batches of squares, since the images have several sizes."""
        square = replace(self.model, inputs=(TensorMetadata("images", "FP32", (-1, 3, IMGSZ, IMGSZ)),))
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return [found for batch in batches for found in self._serve(square, batch, {})]

    def _serve(self, model: Model, images: Sequence[Image], given: Mapping[str, Any]) -> list[Detections]:
        task = image_task(model)
        options = task.read_options(given, model)
        placed = [task.preprocess(image, model, size_wh=image.shape[1::-1]) for image in images]
        outputs = self.session.infer(np.stack([tensor for tensor, _ in placed]))
        return [
            task.postprocess(
                {name: output[index] for name, output in outputs.items()}, model, plan=plan, options=options
            )
            for index, (_, plan) in enumerate(placed)
        ]


def read_result(result: Any) -> Detections:
    """A result of Ultralytics as a prediction of the task."""
    found = (result.obb if result.obb is not None else result.boxes).data.numpy()
    scores, class_ids = found[:, -2], found[:, -1].astype(np.int64)
    if result.obb is not None:
        size_wh = result.orig_shape[::-1]
        return OrientedBoxes.within(size_wh, found[:, :5], scores=scores, class_ids=class_ids)
    keypoints = result.keypoints.data.numpy()
    visibility = keypoints[..., 2:] if keypoints.shape[2] == 3 else np.ones((*keypoints.shape[:2], 1), np.float32)
    whole = np.concatenate([keypoints[..., :2], visibility], axis=2)
    return Poses(found[:, :4], scores, class_ids, keypoints=whole)


@pytest.fixture(scope="module")
def photos() -> dict[str, Image]:
    return read_photos(PHOTOS)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, photos: Mapping[str, Image]) -> Callable[[str], Exported]:
    from ultralytics import YOLO  # noqa: PLC0415 - only in the environment of `make test-export`

    @cache
    def make(head: str) -> Exported:
        config, is_nms_free, arguments = HEADS[head]
        folder = tmp_path_factory.mktemp(head)
        build_network(config, images=list(photos.values())[::3], **arguments).save(folder / "network.pt")
        nms = False if is_nms_free else None
        yolo = YOLO(folder / "network.pt")
        file = Path(yolo.export(format="onnx", imgsz=IMGSZ, dynamic=True, opset=17, nms=nms, verbose=False))
        model = read_model(file)
        session = Session(file, name=head)
        # Another one: what has been exported predicts as the file does.
        return Exported(YOLO(folder / "network.pt"), YOLO(file, task=model.task), is_nms_free, session, model)

    return make


def read_model(file: Path) -> Model:
    """A file of Ultralytics as it is served with its own interface."""
    metadata = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    facts: dict[str, Any] = {
        key: ast.literal_eval(metadata[key]) for key in ("names", "imgsz", "end2end", "kpt_shape") if key in metadata
    }
    columns = [dim.dim_value for dim in onnx.load(file).graph.output[0].type.tensor_type.shape.dim][1:]
    config = describe_model(
        "network",
        ("images", "TYPE_FP32", (3, -1, -1)),
        outputs=[("output0", "TYPE_FP32", [size or -1 for size in columns])],
        max_batch_size=8,
        metadata={"task": metadata["task"], "stride": 32, **facts},
    )
    return describe(config, version="1")


def largest(served: Sequence[Detections], expected: Sequence[Detections]) -> dict[str, float]:
    """The largest figure of each name, over all images."""
    assert [len(one.scores) for one in served] == [len(other.scores) for other in expected]
    figures = [one.compare(other) for one, other in zip(served, expected, strict=True)]
    return {name: max(figure[name] for figure in figures) for name in figures[0]}


def pair(one: Detections, other: Detections) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the objects that are on both sides, whatever their order."""
    pairs = [
        (index, partner)
        for index, partner in match(one, other)
        if partner is not None
        and np.abs(one.places[index] - other.places[partner]).max() < _SAME_PX
        and abs(one.scores[index] - other.scores[partner]) < _SAME_SCORE
    ]
    ones, others = np.array(pairs, np.int64).reshape(-1, 2).T
    return ones, others


@pytest.mark.parametrize("head", HEADS)
def test_objects_of_the_exported_file_are_those_of_predict(
    export: Callable[[str], Exported], photos: Mapping[str, Image], head: str
) -> None:
    exported = export(head)
    images = list(photos.values())
    served = exported.serve(images)
    expected = [exported.predict(exported.file, [image])[0] for image in images]
    figures = largest(served, expected)
    assert all(figure <= SAME_GRAPH[name] for name, figure in figures.items()), figures
    assert sum(len(each.scores) for each in served) > 100


@pytest.mark.parametrize("head", HEADS)
def test_objects_of_batches_are_those_of_predict_with_the_checkpoint(
    export: Callable[[str], Exported], photos: Mapping[str, Image], head: str
) -> None:
    exported = export(head)
    images = list(photos.values())
    served, expected = exported.serve_batches(images), exported.predict(exported.checkpoint, images, batch=BATCH)
    tolerances = image_task(exported.model).tolerances
    figures, unpaired, count = [], 0, 0
    for one, other in zip(served, expected, strict=True):
        ones, others = pair(one, other)
        figures.append(one.compare_pairs(other, ones, others))
        unpaired += len(one.scores) + len(other.scores) - len(set(ones)) - len(set(others))
        count += len(one.scores)
    # Twice: the boxes of random weights are larger than the image, their angles several turns.
    most = {name: max(figure[name] for figure in figures) for name in tolerances}
    assert all(most[name] <= 2 * tolerance for name, tolerance in tolerances.items()), most
    # Torch and ONNX Runtime differ in last bits, which decide what NMS drops where two overlap just so much.
    assert unpaired <= 0.01 * count, (unpaired, count)
    assert count > 100


@pytest.mark.parametrize("head", ["v8-pose", "26-obb"])
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"confidence": 0.01, "max_detections": 1000}, {"conf": 0.01, "max_det": 1000}),
        ({"iou": 0.2}, {"iou": 0.2}),
        ({"classes": "1", "max_detections": 7}, {"classes": [1], "max_det": 7}),
    ],
)
def test_options_choose_as_those_of_predict(
    export: Callable[[str], Exported],
    photos: Mapping[str, Image],
    head: str,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    exported = export(head)
    images = list(photos.values())[:8]
    served = exported.serve(images, **options)
    expected = [exported.predict(exported.file, [image], **settings)[0] for image in images]
    figures = largest(served, expected)
    assert all(figure <= SAME_GRAPH[name] for name, figure in figures.items()), figures
