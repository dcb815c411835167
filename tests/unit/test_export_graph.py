"""Graph surgery on tiny hand-made detectors, against NumPy."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.compatibility import check
from export.graph import MAX_CANDIDATES, free_batch, fuse
from export.runtime import Session

CLASSES = 3


def build_detector(*, opset: int = 17, batch: int | str = "batch", sigmoid: bool = True) -> ModelProto:
    """One convolution; each pixel is an anchor: `(batch, 4 + CLASSES, height * width)`."""
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "weight": rng.normal(size=(4 + CLASSES, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=4 + CLASSES).astype(np.float32),
        "flat": np.array([1 if batch == 1 else 0, 4 + CLASSES, -1], np.int64),
        **{name: np.array([value], np.int64) for name, value in (("zero", 0), ("four", 4), ("end", 99), ("one", 1))},
    }
    nodes = [
        helper.make_node("Conv", ["images", "weight", "bias"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["map", "flat"], ["head"]),
        helper.make_node("Slice", ["head", "zero", "four", "one"], ["box"]),
        helper.make_node("Slice", ["head", "four", "end", "one"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
        # An operator between Sigmoid and Concat hides the end that the surgery knows.
        helper.make_node("Identity", ["probability"], ["hidden"]),
        helper.make_node("Concat", ["box", "probability" if sigmoid else "hidden"], ["output0"], axis=1),
    ]
    return build_model(nodes, constants, output=[batch, 4 + CLASSES, "anchors"], opset=opset, batch=batch)


def build_finished(*, rows: int = 5) -> ModelProto:
    """A head that needs no NMS: `(batch, rows, 6)`, unsorted, corners that follow from the picture's mean."""
    table = np.random.default_rng(1).uniform(0, 1, (1, rows, 6)).astype(np.float32)
    table[..., 2:4] += 5
    table[..., 5] = np.arange(rows) % CLASSES
    constants: dict[str, NDArray[Any]] = {"table": table, "flat": np.array([0, 1, 1], np.int64)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("ReduceMean", ["means"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["factor"]),
        helper.make_node("Sub", ["factor", "factor"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output0"]),
    ]
    return build_model(nodes, constants, output=["batch", rows, 6], opset=17, batch="batch")


def build_model(
    nodes: list[Any], constants: dict[str, NDArray[Any]], *, output: list[Any], opset: int, batch: int | str
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: ModelProto, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return dict(Session(model, name="tiny").infer(batch))


def draw(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, 3), np.uint8)


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


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
