"""Weights that are stored in FP16 and computed with in FP32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.half_weights import restore_float, store_half
from export.sources.onnx_file import normalise, read_onnx

WEIGHTS = sorted((Path(__file__).parents[2] / "export" / "weights").glob("*.onnx"))
MOST_BYTES = 8_000_000  # of all shipped weights


def convolution(scale: float) -> onnx.ModelProto:
    """One convolution with a bias."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, scale, (8, 3, 5, 5)).astype(np.float32), "b": np.ones(8, np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "w", "b"], ["output0"], pads=[2, 2, 2, 2])],
        "convolution",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 8, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def infer(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": np.ones((1, 3, 8, 8), np.float32)})[0])


def test_stored_weights_are_those_of_the_model_to_half_precision() -> None:
    plain, stored = convolution(0.1), convolution(0.1)
    store_half(stored)
    onnx.checker.check_model(stored, full_check=True)
    assert stored.ByteSize() < 0.6 * plain.ByteSize()
    assert {t.name: t.data_type for t in stored.graph.initializer} == {
        "w/half": TensorProto.FLOAT16,
        "b": TensorProto.FLOAT,
    }
    difference = np.abs(infer(stored) - infer(plain)).max()
    assert 0 < difference < 0.01
    restored = onnx.ModelProto()
    restored.CopyFrom(stored)
    restore_float(restored.graph)
    assert [node.op_type for node in restored.graph.node] == ["Conv"]
    assert {t.data_type for t in restored.graph.initializer} == {TensorProto.FLOAT}
    assert np.array_equal(infer(restored), infer(stored))


def test_half_weights_that_something_else_takes_stay() -> None:
    model = convolution(0.1)
    store_half(model)
    model.graph.node.append(helper.make_node("Identity", ["w/half"], ["seen"]))
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT16, [8, 3, 5, 5]))
    before = model.SerializeToString(deterministic=True)
    restore_float(model.graph)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_beyond_half_precision_are_rejected() -> None:
    with pytest.raises(ValueError, match="w: got values beyond FP16's range"):
        store_half(convolution(1e6))


def test_shipped_weights_are_small_and_become_fp32() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS) < MOST_BYTES
    for path in WEIGHTS:
        types = {tensor.data_type for tensor in normalise(read_onnx(path)).graph.initializer}
        assert TensorProto.FLOAT16 not in types
