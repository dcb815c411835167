"""Boxes of the kept candidates alone, with the same numbers: on a real head, and where there is none."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from export.chosen import decode_chosen
from export.compatibility import check
from export.detector import read_detector
from export.distribution import weigh_bins
from export.graph import MAX_CANDIDATES, fuse
from tests.support.detectors import CLASSES, build_detector, build_distributed, draw, run

WEIGHTS = Path(__file__).parents[2] / "export" / "weights" / "digit-finder.onnx"


@pytest.fixture(scope="module", params=[True, False], ids=["weighed", "convolved"])
def fused(request: pytest.FixtureRequest) -> ModelProto:
    detector = read_detector(WEIGHTS)
    graph = weigh_bins(detector.graph) if request.param else detector.graph
    return fuse(graph, classes=len(detector.names), end2end=False)


def softmax_columns(model: ModelProto, images: np.ndarray) -> int:
    """How many candidates the Softmax sees."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    (softmax,) = [node for node in tapped.graph.node if node.op_type == "Softmax"]
    tapped.graph.output.append(helper.make_tensor_value_info(softmax.output[0], TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run([softmax.output[0]], {"image": images})[0].shape[-1])


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 320, 320), (2, 224, 256), (2, 32, 64)])
def test_the_same_numbers_from_fewer_candidates(fused: ModelProto, batch: int, height: int, width: int) -> None:
    before = fused.SerializeToString()
    chosen = decode_chosen(fused)
    assert fused.SerializeToString() == before
    assert chosen is not fused
    check(chosen)
    images = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    got, expected = run(chosen, images), run(fused, images)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=1e-4, err_msg=name)
    anchors = height * width * 21 // 1024  # of strides 8, 16 and 32
    assert softmax_columns(fused, images) == anchors
    assert softmax_columns(chosen, images) == min(anchors, MAX_CANDIDATES)


def test_a_head_of_the_same_kind() -> None:
    fused = fuse(weigh_bins(build_distributed()), classes=CLASSES, end2end=False)
    chosen = decode_chosen(fused)
    assert chosen is not fused
    images = draw(2, 40, 40)
    for name, array in run(fused, images).items():
        np.testing.assert_allclose(run(chosen, images)[name], array, atol=1e-4, err_msg=name)
    assert softmax_columns(chosen, images) == MAX_CANDIDATES


def test_a_head_without_a_distribution_stays() -> None:
    fused = fuse(build_detector(), classes=CLASSES, end2end=False)
    assert decode_chosen(fused) is fused
    assert run(fused, draw(1, 8, 8)).keys() == {"boxes", "scores", "classes"}


def test_decoding_that_somebody_else_reads_stays() -> None:
    fused = fuse(weigh_bins(build_distributed()), classes=CLASSES, end2end=False)
    (softmax,) = [node for node in fused.graph.node if node.op_type == "Softmax"]
    fused.graph.output.append(helper.make_tensor_value_info(softmax.output[0], TensorProto.FLOAT, None))
    fused.graph.node.append(helper.make_node("Identity", [softmax.output[0]], ["watched"]))
    assert decode_chosen(fused) is fused
