"""The comparison with the source program: detections of both sides, found again on the other."""

from typing import Any

import numpy as np
import pytest

from export.config import describe_detector
from export.errors import ExportError
from export.graph import fuse
from export.pictures import draw_pictures
from export.predictions import IOU, MAX_DETECTIONS, choose_confidence, prove
from export.runtime import Session
from tests.support.detectors import CLASSES, build_detector
from transformer.model import Model, describe
from transformer.tasks import detect
from transformer.tasks.detect import Detections

PICTURES = draw_pictures()[:2]
METADATA = {
    "task": "detect",
    "imgsz": [64, 64],
    "stride": 32,
    "args": {"dynamic": True},
    "names": dict.fromkeys(range(CLASSES), "thing"),
}


@pytest.fixture(scope="module")
def served() -> tuple[Session, Model]:
    session = Session(fuse(build_detector(), classes=CLASSES, end2end=False), name="tiny")
    config = describe_detector("tiny", interface="fused", size_hw=None, classes=CLASSES, metadata=METADATA)
    return session, describe(config, version="0")


def predict_by(session: Session, model: Model, change: Any) -> Any:
    """A source program that finds the same, and changes it."""

    def run(picture: Any, confidence: float) -> Detections:
        image, plan = detect.preprocess(picture.image_hwc, model)
        outputs = {name: output[0] for name, output in session.infer(image[None]).items()}
        selection = detect.Selection(confidence=confidence, iou=IOU, max_detections=MAX_DETECTIONS)
        found = detect.postprocess(outputs, model, plan=plan, selection=selection)
        boxes, scores, class_ids = (np.array(part) for part in (found.boxes_xyxy, found.scores, found.class_ids))
        return Detections(*change(boxes, scores, class_ids))

    return run


def moved(boxes: Any, scores: Any, class_ids: Any) -> Any:
    boxes[0] += 40
    return boxes, scores, class_ids


def one_more(boxes: Any, scores: Any, class_ids: Any) -> Any:
    extra = np.array([[1, 2, 400, 300]], np.float32)
    return np.vstack([extra, boxes]), np.concatenate([[0.9], scores]), np.concatenate([[1], class_ids])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda *found: found, None),
        (moved, "would be served"),
        (one_more, "what would be served does not have"),
        (lambda boxes, scores, ids: (boxes[1:], scores[1:], ids[1:]), "Ultralytics' predict does not find"),
        (lambda boxes, scores, ids: (boxes, scores - np.float32(0.01), ids), "expected the same on both sides"),
        (lambda boxes, scores, ids: (boxes, scores, (ids + 1) % CLASSES), "expected the same on both sides"),
        (lambda boxes, scores, ids: (boxes[:0], scores[:0], ids[:0]), "Ultralytics' predict does not find"),
    ],
)
def test_what_one_side_finds_alone_is_refused(served: tuple[Session, Model], change: Any, message: str | None) -> None:
    session, model = served
    arguments: Any = {"pictures": PICTURES, "confidence": 0.001}
    if message is not None:
        with pytest.raises(ExportError, match=message):
            prove(session, model, predict_by(session, model, change), **arguments)
        return
    figures = prove(session, model, predict_by(session, model, change), **arguments)
    assert (figures["boxes_px"], figures["scores"], figures["on_the_verge_of_iou"]) == (0, 0, 0)
    assert figures["found"] > 0


def test_something_is_compared_however_little_is_known_of_the_pictures() -> None:
    assert choose_confidence(0.9) == 0.001
    assert choose_confidence(0.0005) == pytest.approx(0.00005)
