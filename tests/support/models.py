"""Small ONNX models for the embedded Triton, built in tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

Dim = int | str | None
CPU = "instance_group { count: 1 kind: KIND_CPU }\n"
FLOAT_IO = """
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
BATCHED = CPU + 'backend: "onnxruntime"\nmax_batch_size: 8\n'


def tensor(name: str, shape: Sequence[Dim] | None = ("n", 2), datatype: int = TensorProto.FLOAT) -> ValueInfoProto:
    """Declare an input or output; a name or None in its shape is a dynamic dimension."""
    return helper.make_tensor_value_info(name, datatype, shape)


def build(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    *,
    constants: dict[str, NDArray[np.generic]] | None = None,
    ir_version: int = 9,
    opsets: dict[str, int] | None = None,
) -> bytes:
    """Return an ONNX file; a constant that is also an input can be overridden by a request."""
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        outputs,
        initializer=[onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    return bytes(helper.make_model(graph, ir_version=ir_version, opset_imports=imports).SerializeToString())


def build_identity(
    shape: Sequence[Dim] | None = ("n", 2),
    datatype: int = TensorProto.FLOAT,
    *,
    ir_version: int = 9,
    opsets: dict[str, int] | None = None,
) -> bytes:
    """Return a model with `y = x`."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", shape, datatype)],
        [tensor("y", shape, datatype)],
        ir_version=ir_version,
        opsets=opsets,
    )


def build_optional(*batch: str) -> bytes:
    """Return `y = x * factor`; the factor is an optional input, 3 by default."""
    return build(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", [*batch, 2]), tensor("factor", [1])],
        [tensor("y", [*batch, 2])],
        constants={"factor": np.array([3], np.float32)},
    )


def build_scalar(shape: list[str]) -> bytes:
    """Return `y = -x` and `size`, the number of dimensions of `x`."""
    return build(
        [
            helper.make_node("Neg", ["x"], ["y"]),
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Size", ["shape"], ["size"]),
        ],
        [tensor("x", shape)],
        [tensor("y", shape), tensor("size", [], TensorProto.INT64)],
    )


def build_sequence_output() -> bytes:
    """Return a model whose output is a sequence of tensors."""
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return build([helper.make_node("SequenceConstruct", ["x"], ["y"])], [tensor("x")], [output])


def write_model(
    repository: Path,
    name: str,
    *,
    onnx_file: bytes | None = None,
    config: str | None = CPU,
    filename: str = "model.onnx",
) -> None:
    """Write version 1 of a model.

    Args:
        repository: Made where it is missing.
        name: The model's name.
        onnx_file: `build_identity()` where None.
        config: The text of config.pbtxt; no file where None.
        filename: Inside the version's folder.
    """
    path = repository / name / "1" / filename
    path.parent.mkdir(parents=True)
    path.write_bytes(build_identity() if onnx_file is None else onnx_file)
    if config is not None:
        (repository / name / "config.pbtxt").write_text(config)
