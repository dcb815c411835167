"""Graph surgery on tiny hand-made detectors, against NumPy."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from export.graph.compatibility import check
from export.graph.dims import free_batch
from export.graph.fused_interface import MAX_CANDIDATES, fuse
from export.graph.head import Layout
from tests.support.detectors import CLASSES, FINISHED, PLAIN, build_detector, build_finished, draw, run, scale


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (40, 30)])
def test_fused_plain_head_gives_the_best_class_of_every_box(opset: int, sigmoid: bool, height: int, width: int) -> None:
    model = build_detector(opset=opset, sigmoid=sigmoid)
    images = draw(2, height, width)
    head = run(model, scale(images))["output0"]
    outputs = run(fuse(model, PLAIN), images)
    assert outputs["boxes"].shape == (2, height * width, 4)  # none is left out, though 1,200 are more than 1,000
    assert outputs["classes"].dtype == np.int32
    for row in range(2):
        np.testing.assert_allclose(outputs["scores"][row], head[row, 4:].max(axis=0), atol=1e-6)
        np.testing.assert_allclose(outputs["boxes"][row], head[row, :4].T, atol=1e-4)
        np.testing.assert_array_equal(outputs["classes"][row], head[row, 4:].argmax(axis=0))


@pytest.mark.parametrize("sigmoid", [True, False])
def test_of_classes_with_one_score_the_first_is_taken(sigmoid: bool) -> None:
    model = build_detector(sigmoid=sigmoid)
    for initializer in model.graph.initializer:
        if initializer.name in {"weight", "bias"}:
            values = numpy_helper.to_array(initializer).copy()
            values[4:] = values[4]
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    outputs = run(fuse(model, PLAIN), draw(2, 6, 7))
    assert not outputs["classes"].any()


@pytest.mark.parametrize("axis", [2, -1])
def test_best_classes_of_a_head_of_several_levels_are_put_together(axis: int) -> None:
    model = build_detector()
    place = next(i for i, node in enumerate(model.graph.node) if "probability" in node.output)
    (model.graph.node[place]).input[0] = "levels"
    for node in (
        helper.make_node("Concat", ["near", "middle", "far"], ["levels"], axis=axis),
        helper.make_node("Split", ["logits", "anchors_of_each"], ["near", "middle", "far"], axis=2),
    ):
        model.graph.node.insert(place, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([20, 9, 6], np.int64), "anchors_of_each"))
    fused = fuse(model, PLAIN)
    check(fused)
    images = draw(2, 7, 5)
    got, expected = run(fused, images), run(fuse(build_detector(), PLAIN), images)
    assert [node.op_type for node in fused.graph.node].count("TopK") == 3
    assert len(set(got["classes"].ravel())) == CLASSES
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_fused_finished_head_turns_corners_into_centres(rows: int) -> None:
    model = build_finished(rows=rows)
    images = draw(2, 8, 8)
    head = run(model, scale(images))["output0"]
    outputs = run(fuse(model, FINISHED), images)
    for row in range(2):
        table = head[row]
        centre, size = (table[:, :2] + table[:, 2:4]) / 2, table[:, 2:4] - table[:, :2]
        np.testing.assert_allclose(outputs["boxes"][row], np.concatenate([centre, size], axis=1), atol=1e-6)
        np.testing.assert_array_equal(outputs["scores"][row], table[:, 4])
        np.testing.assert_array_equal(outputs["classes"][row], table[:, 5].astype(np.int32))


@pytest.mark.parametrize(
    ("model", "layout"), [(build_detector(), PLAIN), (build_detector(batch=1), PLAIN), (build_finished(), FINISHED)]
)
def test_fused_tensors_are_those_of_the_config(model: ModelProto, layout: Layout) -> None:
    fused = fuse(free_batch(model), layout)
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


REST = {"segment": 4, "pose": 6, "obb": 1}
OUTPUT = {"segment": "coefficients", "pose": "keypoints", "obb": "angles"}


def layout_of(task: str, *, end2end: bool = False) -> Layout:
    return Layout(task, CLASSES, end2end, REST[task], (2, 3) if task == "pose" else None)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("task", list(REST))
@pytest.mark.parametrize(("height", "width"), [(3, 5), (60, 50)])
def test_best_candidates_of_a_head_with_more_than_boxes_are_taken(
    task: str, opset: int, sigmoid: bool, height: int, width: int
) -> None:
    model = build_detector(opset=opset, sigmoid=sigmoid, rest=REST[task], prototypes=task == "segment")
    images = draw(2, height, width)
    source = run(model, scale(images))
    outputs = run(fuse(model, layout_of(task)), images)
    count = min(height * width, MAX_CANDIDATES)
    for row in range(2):
        head = source["output0"][row]
        scores = head[4 : 4 + CLASSES].max(axis=0)
        order = np.argsort(-scores, kind="stable")[:count]
        np.testing.assert_allclose(outputs["scores"][row], scores[order], atol=1e-6)
        # Of scores that differ by a last bit either may come first.
        found = np.abs(outputs["boxes"][row][:, None] - head[:4].T[None]).max(axis=2).argmin(axis=1)
        assert len(set(found)) == count
        np.testing.assert_allclose(scores[found], scores[order], atol=1e-6)
        np.testing.assert_array_equal(outputs["classes"][row], head[4 : 4 + CLASSES, found].argmax(axis=0))
        rest = outputs[OUTPUT[task]][row]
        assert rest.shape == {"segment": (count, 4), "pose": (count, 2, 3), "obb": (count,)}[task]
        np.testing.assert_allclose(rest.reshape(count, -1), head[4 + CLASSES :, found].T, atol=1e-4)
    if task == "segment":
        np.testing.assert_allclose(outputs["prototypes"], source["output1"], atol=1e-5)


@pytest.mark.parametrize("task", list(REST))
def test_finished_head_with_more_than_boxes_is_split(task: str) -> None:
    model = build_finished(rows=7, rest=REST[task], prototypes=task == "segment")
    images = draw(2, 8, 8)
    table = run(model, scale(images))["output0"]
    outputs = run(fuse(model, layout_of(task, end2end=True)), images)
    boxes = table[..., :4]
    if task != "obb":  # whose boxes are centre and size
        corners = boxes
        boxes = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=2)
    np.testing.assert_allclose(outputs["boxes"], boxes, atol=1e-6)
    np.testing.assert_array_equal(outputs["scores"], table[..., 4])
    np.testing.assert_array_equal(outputs["classes"], table[..., 5].astype(np.int32))
    np.testing.assert_array_equal(outputs[OUTPUT[task]].reshape(2, 7, -1), table[..., 6:])


def test_scale_moves_into_the_convolution_only_where_one_reads_the_input() -> None:
    plain = fuse(build_detector(), PLAIN)
    quantised = build_detector()
    quantised.graph.node.insert(0, helper.make_node("Identity", ["images"], ["copied"]))
    quantised.graph.node[1].input[0] = "copied"
    other = fuse(quantised, PLAIN)
    assert "Div" not in {node.op_type for node in plain.graph.node}
    assert "Div" in {node.op_type for node in other.graph.node}
    images = draw(1, 6, 7)
    np.testing.assert_allclose(run(plain, images)["scores"], run(other, images)["scores"], atol=1e-5)


def test_freed_batch_gives_what_single_images_give() -> None:
    model = build_detector(batch=1)
    images = scale(draw(3, 6, 7))
    together = run(free_batch(model), images)["output0"]
    alone = [run(model, images[row : row + 1])["output0"][0] for row in range(3)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_fuse_leaves_its_argument_as_it_is() -> None:
    model = build_detector()
    before = model.SerializeToString()
    fuse(model, PLAIN)
    free_batch(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(model)
