"""The comparison with the source program: detections of both sides, found again on the other.

The source program is played here, by what is served; Ultralytics itself takes its part in tests/export.
"""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from export.errors import ExportError
from export.graph.fused_interface import fuse
from export.proof.drawn_images import draw_images
from export.proof.predictions import IOU, MAX_DETECTIONS, choose_confidence, verify
from export.proof.session import Session
from export.writer.config import describe_detector
from tests.support.detectors import CLASSES, PLAIN, build_detector, build_model
from transformer.tasks import describe
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection
from transformer.tasks.objects import Detections
from transformer.triton.model import Model

IMAGES = draw_images()[:2]
METADATA = {
    "task": "detect",
    "imgsz": [64, 64],
    "stride": 32,
    "args": {"dynamic": True},
    "names": dict.fromkeys(range(CLASSES), "thing"),
}


@pytest.fixture(scope="module")
def served() -> tuple[Session, Model]:
    session = Session(fuse(build_detector(), PLAIN), name="tiny")
    config = describe_detector("tiny", interface="fused", size_hw=None, classes=CLASSES, metadata=METADATA)
    return session, describe(config, version="0")


def predict_by(session: Session, model: Model, change: Any) -> Any:
    """A source program that finds the same, and changes it."""

    def run(image: Any, confidence: float) -> Detections:
        pixels, plan = DETECT.preprocess(image.image_hwc, model)
        outputs = {name: output[0] for name, output in session.infer(pixels[None]).items()}
        selection = Selection(confidence=confidence, iou=IOU, max_detections=MAX_DETECTIONS)
        found = DETECT.postprocess(outputs, model, plan=plan, options=selection)
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
def test_detection_on_one_side_only_is_rejected(
    served: tuple[Session, Model], change: Any, message: str | None
) -> None:
    session, model = served
    arguments: Any = {"images": IMAGES, "confidence": 0.001}
    if message is not None:
        with pytest.raises(ExportError, match=message):
            verify(session, model, predict_by(session, model, change), **arguments)
        return
    figures = verify(session, model, predict_by(session, model, change), **arguments)
    assert (figures["boxes_px"], figures["scores"], figures["suppressed_on_one_side"]) == (0, 0, 0)
    assert figures["found"] > 0


@pytest.mark.parametrize(("score", "changed", "fits"), [(0.0, 1, True), (0.0005, 1, False), (0.0, 3, False)])
def test_either_of_two_classes_with_the_same_score_may_win(
    served: tuple[Session, Model], score: float, changed: int, fits: bool
) -> None:
    def change(boxes: Any, scores: Any, class_ids: Any) -> Any:
        class_ids[:changed] = (class_ids[:changed] + 1) % CLASSES
        scores[:changed] -= np.float32(score)
        return boxes, scores, class_ids

    session, model = served
    arguments: Any = {"images": IMAGES, "confidence": 0.001}
    if fits:
        figures = verify(session, model, predict_by(session, model, change), **arguments)
        assert (figures["class_ties"], figures["suppressed_on_one_side"]) == (2 * len(IMAGES) * changed, 0)
    else:
        with pytest.raises(ExportError, match="expected the same on both sides"):
            verify(session, model, predict_by(session, model, change), **arguments)


def build_pair(scores: tuple[float, float]) -> ModelProto:
    """Two boxes of one class that overlap by 0.8, whatever the image, among others far away."""
    head = np.zeros((4 + CLASSES, 120), np.float32)
    head[:4] = np.array([[200], [200], [2], [2]])
    head[0] += np.arange(120) * 3
    head[:4, :2] = np.array([[30, 32], [30, 30], [20, 20], [8, 8]])
    head[4, :2] = scores
    head[5, 2:] = np.linspace(0.01, 0.3, 118)
    constants: dict[str, Any] = {"head": head[None], "flat": np.array([0, 1, 1], np.int64)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("ReduceMean", ["means"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["number"]),
        helper.make_node("Sub", ["number", "number"], ["nothing"]),
        helper.make_node("Add", ["head", "nothing"], ["output0"]),
    ]
    return build_model(nodes, constants, output=["batch", *head.shape], opset=17, batch="batch")


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ((0.9, 0.90001), (0.90001, 0.9), None),
        ((0.9, 0.91), (0.91, 0.9), "expected the same on both sides"),
        ((0.9, 0.0), (0.0, 0.9), "expected the same on both sides"),
    ],
)
def test_either_of_two_equally_good_boxes_may_stay(theirs: Any, ours: Any, message: str | None) -> None:
    config = describe_detector("tiny", interface="fused", size_hw=None, classes=CLASSES, metadata=METADATA)
    model = describe(config, version="0")
    there, here = (Session(fuse(build_pair(scores), PLAIN), name="tiny") for scores in (theirs, ours))
    arguments: Any = {"images": IMAGES, "confidence": 0.001}
    predict = predict_by(there, model, lambda *found: found)
    if message is not None:
        with pytest.raises(ExportError, match=message):
            verify(here, model, predict, **arguments)
    else:
        assert verify(here, model, predict, **arguments)["suppressed_on_one_side"] == 2 * len(IMAGES)


def test_lowest_score_for_the_comparison_is_reached_by_some_detection() -> None:
    assert choose_confidence(0.9) == 0.001
    assert choose_confidence(0.0005) == pytest.approx(0.00005)
