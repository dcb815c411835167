"""The decoding of boxes without a convolution, and FP16 up to it, on a tiny head of YOLOv8's shape."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph.compatibility import check
from export.graph.dfl import split, weigh_bins
from export.graph.fp16 import fix_size, to_fp16
from export.graph.fused_interface import fuse
from export.graph.nodes import constants
from tests.support.detectors import BINS, PLAIN, build_detector, build_distributed, draw, run, scale


def convolutions(model: ModelProto) -> list[tuple[int, ...]]:
    known = constants(model.graph)
    return [known[node.input[1]].shape for node in model.graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_bins_are_weighed_without_a_convolution_to_the_same_numbers(opset: int) -> None:
    model = build_distributed(opset=opset)
    before = model.SerializeToString()
    weighed = weigh_bins(model)
    check(weighed)
    assert model.SerializeToString() == before
    assert (1, BINS, 1, 1) in convolutions(model)
    assert (1, BINS, 1, 1) not in convolutions(weighed)
    images = scale(draw(2, 6, 7))
    expected = run(model, images)["output0"]
    assert np.ptp(expected[:, :4]) > 5  # the boxes differ
    np.testing.assert_allclose(run(weighed, images)["output0"], expected, atol=1e-4)
    operators = [node.op_type for node in weighed.graph.node]
    assert "Softmax" not in operators  # along the second axis it takes ONNX Runtime ten times as long
    assert operators.count("Transpose") == 1  # of the sides alone, not of the bins


@pytest.mark.parametrize("opset", [13, 18])
def test_bins_that_are_second_are_weighed_there(opset: int) -> None:
    model = build_distributed(opset=opset)
    shape = next(each for each in model.graph.initializer if each.name == "sides")
    shape.CopyFrom(numpy_helper.from_array(np.array([0, BINS, 4, -1], np.int64), "sides"))
    (swapped,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    model.graph.node.remove(swapped)
    next(node for node in model.graph.node if node.op_type == "Softmax").input[0] = "by_side"
    weighed = weigh_bins(model)
    check(weighed)
    assert {"Transpose", "Softmax"}.isdisjoint({node.op_type for node in weighed.graph.node})
    images = scale(draw(2, 6, 7))
    np.testing.assert_allclose(run(weighed, images)["output0"], run(model, images)["output0"], atol=1e-4)


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_bins_of_any_size_are_weighed(logit: float) -> None:
    model = build_distributed()
    bias = next(each for each in model.graph.initializer if each.name == "bias")
    values = numpy_helper.to_array(bias).copy()
    values[1 : 4 * BINS : BINS] = logit
    bias.CopyFrom(numpy_helper.from_array(values, "bias"))
    images = scale(draw(2, 6, 7))
    expected = run(model, images)["output0"]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(run(weigh_bins(model), images)["output0"], expected, atol=1e-4)


def test_bins_of_an_old_opset_are_summed_by_an_attribute() -> None:
    model = build_distributed()
    model.opset_import[0].version = 12
    weighed = weigh_bins(model)
    (softmax,) = [node for node in weighed.graph.node if node.op_type == "Softmax"]
    assert helper.get_node_attr_value(softmax, "axis") == 1  # there it takes all axes behind it too
    (total,) = [node for node in weighed.graph.node if node.op_type == "ReduceSum"]
    assert len(total.input) == 1
    assert helper.get_node_attr_value(total, "axes") == [1]


@pytest.mark.parametrize(
    "model", [build_detector(), build_distributed(bins=np.arange(BINS, dtype=np.float32) + np.float32(0.5))]
)
def test_other_convolutions_stay(model: ModelProto) -> None:
    assert convolutions(weigh_bins(model)) == convolutions(model)
    assert "ReduceSum" not in {node.op_type for node in weigh_bins(model).graph.node}


def test_split_ends_the_body_at_the_last_convolutions() -> None:
    fused = fuse(weigh_bins(build_distributed()), PLAIN)
    body, last, decoding = split(fused.graph)
    assert [node.op_type for node in body] == ["Transpose", "Cast", "Conv", "Relu"]
    assert [node.output[0] for node in last] == ["map"]
    assert len(body) + len(last) + len(decoding) == len(fused.graph.node)
    assert {"Exp", "ReduceSum", "TopK"} <= {node.op_type for node in decoding}


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
def test_half_runs_the_convolutions_in_fp16_and_decodes_in_fp32(interface: str) -> None:
    model = weigh_bins(build_distributed())
    images: NDArray[Any] = draw(2, 6, 7)
    if interface == "fused":
        model = fuse(model, PLAIN)
    else:
        images = scale(images)
    converted = to_fp16(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(converted).graph.value_info
    }
    assert {types[name] for name in ("mixed", "features", "map")} == {TensorProto.FLOAT16}
    (powers,) = [node for node in converted.graph.node if node.op_type == "Exp"]
    assert {types[name] for name in (powers.output[0], "distances", "sides_px")} == {TensorProto.FLOAT}
    assert [value.SerializeToString() for value in (*converted.graph.input, *converted.graph.output)] == [
        value.SerializeToString() for value in (*model.graph.input, *model.graph.output)
    ]
    for name, expected in run(model, images).items():
        got = run(converted, images)[name]
        if name in {"output0", "scores"}:
            np.testing.assert_allclose(got, expected, atol=0.1)
            assert (got != expected).any()  # it was FP16


def test_half_of_a_graph_that_has_none_is_rejected() -> None:
    model = build_distributed()
    model.graph.node.insert(2, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.node.insert(2, helper.make_node("Shape", ["features"], ["shape"]))
    model.graph.node.insert(4, helper.make_node("Add", ["features", "zeros"], ["sum"]))
    model.graph.node[5].input[0] = "sum"
    with pytest.raises(ExportError, match="FP16: the graph cannot be run in it"):
        to_fp16(model)


@pytest.mark.parametrize(("interface", "dims"), [("fused", [0, 64, 96, 3]), ("ultralytics", [0, 3, 64, 96])])
def test_size_is_fixed_to_what_the_file_says(interface: str, dims: list[int]) -> None:
    model = build_detector()
    model.metadata_props.add(key="imgsz", value="[64, 96]")
    if interface == "fused":
        model = fuse(model, PLAIN)
    fixed = fix_size(model).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in fixed] == dims
    assert fixed[0].dim_param == "batch"
