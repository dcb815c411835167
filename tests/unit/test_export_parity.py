from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph.fused_interface import fuse
from export.proof.drawn_images import NamedImage, draw_images
from export.proof.parity import Reference, decode, measure, run_source, verify
from export.proof.plausibility import COMPARED, Candidates
from export.proof.session import Session
from export.writer.config import describe_detector
from tests.support.detectors import CLASSES, FINISHED, PLAIN, build_detector
from transformer.tasks import describe
from transformer.triton.model import Model

METADATA = {
    "task": "detect",
    "imgsz": [32, 32],
    "stride": 32,
    "args": {"dynamic": True},
    "names": dict.fromkeys(range(CLASSES), "thing"),
}


def model(interface: Any) -> Model:
    config = describe_detector("tiny", interface=interface, size_hw=None, classes=CLASSES, metadata=METADATA)
    return describe(config, version="0")


def reference(found: Candidates) -> Reference:
    return Reference(draw_images()[0], found)


def candidates(count: int, *, move_px: float = 0, raise_score: float = 0, other_class: int = 0) -> Candidates:
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0, 300, (count, 4)).astype(np.float32)
    classes = rng.integers(0, CLASSES, count)
    boxes[0, 0] += move_px
    scores = np.linspace(0.9, 0.1, count).astype(np.float32)
    scores[0] += raise_score
    classes[:other_class] += 1
    return Candidates(boxes, scores, classes)


@pytest.mark.parametrize(
    ("change", "boxes_px", "scores", "classes"),
    [
        ({}, 0, 0, 0),
        ({"move_px": 2.0}, 2, 0, 0),
        ({"raise_score": 0.03}, 0, 0.03, 0),
        ({"other_class": 4}, 0, 0, 4),
    ],
)
def test_measure_finds_the_largest_difference(
    change: dict[str, Any], boxes_px: float, scores: float, classes: int
) -> None:
    exported = candidates(40, **change)
    shuffled = np.random.default_rng(4).permutation(40)
    mixed = Candidates(exported.boxes[shuffled], exported.scores[shuffled], exported.classes[shuffled])
    difference = measure(reference(candidates(40)), reference(mixed), PLAIN)
    assert difference["boxes_px"] == pytest.approx(boxes_px, abs=1e-4)
    assert difference["scores"] == pytest.approx(scores, abs=1e-6)
    assert difference["classes"] == classes


def test_decode_reads_both_heads_alike() -> None:
    corners = np.array([[10, 20, 30, 60]], np.float32)
    finished = np.concatenate([corners, [[0.7, 2]]], axis=1).astype(np.float32)
    plain = np.array([[20], [40], [20], [40], [0.1], [0.2], [0.7]], np.float32)
    for output, layout in ((finished, FINISHED), (plain, PLAIN)):
        decoded = decode({"output0": output}, layout, (64, 64))
        np.testing.assert_allclose(decoded.boxes, [[20, 40, 20, 40]])
        np.testing.assert_allclose(decoded.scores, [0.7])
        np.testing.assert_array_equal(decoded.classes, [2])


def test_proof_passes_for_the_same_detector_and_compares_every_image_alone_and_in_a_batch() -> None:
    detector = build_detector()
    session = Session(detector, name="source")
    references = run_source(session.infer, model("ultralytics"), layout=PLAIN, images=draw_images())
    fused = Session(fuse(detector, PLAIN), name="fused")
    parity = verify(fused, model("fused"), layout=PLAIN, references=references, source="tiny.onnx")
    assert parity["boxes_px"] < 1e-3
    assert parity["scores"] < 1e-5
    assert parity["classes"] == 0
    assert [(row["name"], row["batch"]) for row in parity["pictures"]] == [
        (image.name, batch) for image in draw_images() for batch in (1, 2)
    ]
    assert {row["candidates"] for row in parity["pictures"]} == {COMPARED}


def test_proof_rejects_an_exported_model_with_other_outputs() -> None:
    session = Session(build_detector(), name="source")
    references = run_source(session.infer, model("ultralytics"), layout=PLAIN, images=draw_images())
    damaged = fuse(build_detector(), PLAIN)
    (bias,) = (initializer for initializer in damaged.graph.initializer if initializer.name == "bias")
    values = np.frombuffer(bias.raw_data, np.float32).copy()
    values[0] += 2
    bias.raw_data = values.tobytes()
    with pytest.raises(ExportError, match=r"boxes differ from the source: got 2 px"):
        verify(
            Session(damaged, name="damaged"), model("fused"), layout=PLAIN, references=references, source="tiny.onnx"
        )


def _head(**changes: float) -> NDArray[np.float32]:
    head = np.full((1, 4 + CLASSES, 7), 0.5, np.float32)
    head[0, 4:, 0] = 0.6
    for place, value in changes.items():
        head[0, int(place.removeprefix("row_")), 0] = value
    return head


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (_head(row_5=1.66), "scores: got 0.5 to 1.66, expected 0 to 1"),
        (_head(row_4=-0.01, row_5=-0.01, row_6=-0.01), "scores: got -0.01"),
        (_head(row_5=float("nan")), "NaN"),
        (_head(row_1=float("inf")), "infinite"),
        (_head(row_2=1e5), "boxes: got a coordinate of 1e"),
        (np.zeros((1, 4 + CLASSES, 7), np.float32), "got 0.0 for everything"),
    ],
)
def test_source_with_impossible_outputs_is_rejected(head: NDArray[np.float32], message: str) -> None:
    image = NamedImage("grey", np.full((32, 32, 3), 127, np.uint8))
    with pytest.raises(ExportError, match=message):
        run_source(lambda _: {"output0": head}, model("ultralytics"), layout=PLAIN, images=[image])
