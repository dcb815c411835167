"""Graph surgery on tiny hand-made detectors, against NumPy."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from export.compatibility import check
from export.graph import MAX_CANDIDATES, free_batch, fuse
from tests.support.detectors import CLASSES, build_detector, build_finished, draw, run, scale


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (40, 30)])
def test_fused_plain_head_gives_the_best_class_of_the_best_boxes(
    opset: int, sigmoid: bool, height: int, width: int
) -> None:
    model = build_detector(opset=opset, sigmoid=sigmoid)
    images = draw(2, height, width)
    head = run(model, scale(images))["output0"]
    outputs = run(fuse(model, classes=CLASSES, end2end=False), images)
    count = min(MAX_CANDIDATES, height * width)
    assert outputs["boxes"].shape == (2, count, 4)
    assert outputs["classes"].dtype == np.int32
    for row in range(2):
        order = np.argsort(-head[row, 4:].max(axis=0), kind="stable")[:count]
        np.testing.assert_allclose(outputs["scores"][row], head[row, 4:].max(axis=0)[order], atol=1e-6)
        np.testing.assert_allclose(outputs["boxes"][row], head[row, :4].T[order], atol=1e-4)
        np.testing.assert_array_equal(outputs["classes"][row], head[row, 4:].argmax(axis=0)[order])


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_fused_finished_head_turns_corners_into_centres_best_first(rows: int) -> None:
    model = build_finished(rows=rows)
    images = draw(2, 8, 8)
    head = run(model, scale(images))["output0"]
    outputs = run(fuse(model, classes=CLASSES, end2end=True), images)
    for row in range(2):
        best = head[row][np.argsort(-head[row, :, 4], kind="stable")]
        centre, size = (best[:, :2] + best[:, 2:4]) / 2, best[:, 2:4] - best[:, :2]
        np.testing.assert_allclose(outputs["boxes"][row], np.concatenate([centre, size], axis=1), atol=1e-6)
        np.testing.assert_array_equal(outputs["scores"][row], best[:, 4])
        np.testing.assert_array_equal(outputs["classes"][row], best[:, 5].astype(np.int32))


@pytest.mark.parametrize(
    ("model", "end2end"), [(build_detector(), False), (build_detector(batch=1), False), (build_finished(), True)]
)
def test_fused_tensors_are_those_of_the_config(model: ModelProto, end2end: bool) -> None:
    fused = fuse(free_batch(model), classes=CLASSES, end2end=end2end)
    check(fused)
    dims = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*fused.graph.input, *fused.graph.output)
    }
    assert dims == {
        "image": ["batch", "height", "width", 3],
        "boxes": ["batch", "candidates", 4],
        "scores": ["batch", "candidates"],
        "classes": ["batch", "candidates"],
    }
    used = {name for node in fused.graph.node for name in node.input}
    assert {initializer.name for initializer in fused.graph.initializer} <= used


def test_scale_moves_into_the_convolution_only_where_one_reads_the_input() -> None:
    plain = fuse(build_detector(), classes=CLASSES, end2end=False)
    quantised = build_detector()
    quantised.graph.node.insert(0, helper.make_node("Identity", ["images"], ["copied"]))
    quantised.graph.node[1].input[0] = "copied"
    other = fuse(quantised, classes=CLASSES, end2end=False)
    assert "Div" not in {node.op_type for node in plain.graph.node}
    assert "Div" in {node.op_type for node in other.graph.node}
    images = draw(1, 6, 7)
    np.testing.assert_allclose(run(plain, images)["scores"], run(other, images)["scores"], atol=1e-5)


def test_freed_batch_gives_what_single_pictures_give() -> None:
    model = build_detector(batch=1)
    images = scale(draw(3, 6, 7))
    together = run(free_batch(model), images)["output0"]
    alone = [run(model, images[row : row + 1])["output0"][0] for row in range(3)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_fuse_leaves_its_argument_as_it_is() -> None:
    model = build_detector()
    before = model.SerializeToString()
    fuse(model, classes=CLASSES, end2end=False)
    free_batch(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(model)
