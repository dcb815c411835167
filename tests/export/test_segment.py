"""Masks of whole networks on photos: what this task makes of the outputs, against Ultralytics' own `predict`."""

from collections.abc import Mapping, Sequence
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
from tests.support.segmenter import encode
from transformer.imaging.letterbox import Image
from transformer.tasks import describe
from transformer.tasks.segment import SEGMENT, SegmentOptions, Segments
from transformer.triton.model import Model

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data: weights and photos"),
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ultralytics"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python"),
]
PHOTOS = 30
BATCH = 5
IMGSZ = 320
# Network, whether its head needs NMS, and the confidence, below which random weights have a crowd.
NETWORKS = [
    ("yolov8n-seg.pt", True, 0.1),
    ("yolo11n-seg.pt", True, 0.1),
    ("yolo26n-seg.yaml", True, 0.6),
    ("yolo26n-seg.yaml", False, 0.6),
]
Outputs = Mapping[str, NDArray[Any]]


class Network:
    """A network of Ultralytics and its ONNX file, as this server describes and runs it."""

    def __init__(self, name: str, *, needs_nms: bool, confidence: float, folder: Path) -> None:
        self.settings = {"conf": confidence, "imgsz": IMGSZ, "retina_masks": True, "verbose": False, "device": "cpu"}
        self.settings |= {} if needs_nms else {"nms": False}
        self.options = SegmentOptions(confidence=confidence)
        self.yolo = _load(name, folder)
        options = {} if needs_nms else {"nms": False}
        file = self.yolo.export(format="onnx", imgsz=IMGSZ, dynamic=True, opset=17, **options)
        # An export changes it. Objects of random weights are almost alike: there Ultralytics runs the ONNX file, so
        # that the last bit of a score does not decide between them.
        self.yolo = _load(name, folder) if name.endswith(".pt") else _load(file, folder)
        self.session = Session(onnx.load(file), name=name)
        self.model = self._describe(needs_nms)

    def _describe(self, needs_nms: bool) -> Model:
        names = self.yolo.names
        rows = (4 + len(names) + 32, -1) if needs_nms else (300, 38)
        config = describe_model(
            "segmenter",
            ("images", "TYPE_FP32", (3, -1, -1)),
            outputs=[("output0", "TYPE_FP32", rows), ("output1", "TYPE_FP32", (32, -1, -1))],
            max_batch_size=8,
            metadata={"task": "segment", "imgsz": [IMGSZ, IMGSZ], "names": names, "end2end": not needs_nms},
        )
        return describe(config, version="1")

    def expected(self, images: Sequence[Image]) -> list[Segments]:
        """Ultralytics' own results; images of several sizes in one call all become squares."""
        results = self.yolo.predict([image[..., ::-1] for image in images], batch=len(images), **self.settings)
        return [_read(result) for result in results]

    def found(self, images: Sequence[Image], model: Model) -> list[Segments]:
        prepared = [
            SEGMENT.preprocess(image, model, size_wh=(image.shape[1], image.shape[0])) for image in images
        ]  # fmt: skip
        outputs = self.session.infer(np.stack([tensor for tensor, _ in prepared]))
        return [
            SEGMENT.postprocess(
                {name: output[index] for name, output in outputs.items()}, model, plan=plan, options=self.options
            )
            for index, (_, plan) in enumerate(prepared)
        ]


def _load(name: str, folder: Path) -> Any:
    from ultralytics import YOLO  # noqa: PLC0415 - only in the environment of `make test-export`

    if name.endswith(".onnx"):
        return YOLO(name, task="segment")
    path = folder / Path(name).with_suffix(".pt")
    if not path.exists() and name.endswith(".pt"):
        path.write_bytes((SHARED / "weights" / name).read_bytes())
    elif not path.exists():
        build_network(name).save(path)
    return YOLO(path)


def _read(result: Any) -> Segments:
    rows = result.boxes.data.numpy().reshape(-1, 6)
    bits = [] if result.masks is None else result.masks.data.byte().numpy()
    masks = [mask for each in bits if (mask := encode(each))]
    return Segments(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), masks=masks, mask_form="rle")


@pytest.fixture(
    scope="module", params=NETWORKS, ids=[f"{name}-{'nms' if nms else 'free'}" for name, nms, _ in NETWORKS]
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    name, needs_nms, confidence = request.param
    folder = tmp_path_factory.mktemp("segment")
    return Network(name, needs_nms=needs_nms, confidence=confidence, folder=folder)


def _fixed(model: Model) -> Model:
    """The model with a square input, in which a batch of any images fits."""
    config = describe_model(
        model.name,
        ("images", "TYPE_FP32", (3, IMGSZ, IMGSZ)),
        outputs=[("output0", "TYPE_FP32", (-1, -1)), ("output1", "TYPE_FP32", (32, -1, -1))],
        max_batch_size=8,
        metadata={"task": "segment", "imgsz": [IMGSZ, IMGSZ], "names": dict(model.names), "end2end": model.end2end},
    )
    return describe(config, version="1")


@pytest.mark.parametrize("size", [1, BATCH])
def test_masks_on_photos_are_those_of_predict(network: Network, size: int) -> None:
    photos = list(read_photos(PHOTOS).values())
    model = network.model if size == 1 else _fixed(network.model)
    compared, largest = 0, dict.fromkeys(Segments.figures, 0.0)
    for first in range(0, len(photos), size):
        images = photos[first : first + size]
        for found, expected in zip(network.found(images, model), network.expected(images), strict=True):
            assert found.objects == len(found.masks) == len(expected.masks)
            # Without NMS several objects of random weights have the same box: the order pairs them.
            order = np.arange(found.objects)
            same = network.model.end2end
            figures = found.compare_pairs(expected, order, order) if same else found.compare(expected)
            for name, figure in figures.items():
                largest[name] = max(largest[name], figure)
            compared += found.objects
    print(f"{network.model.name} {compared} masks: {largest}")
    assert compared > 100
    assert largest["boxes_px"] < 0.5
    assert largest["scores"] < 1e-3
    assert largest["mask_iou"] < 0.01
