"""Configs compared with the tensors of real ONNX Runtime sessions: accepted, rejected, completed."""

import json
from typing import Any

import onnxruntime as ort
import pytest

from predictor.backends.errors import IncompleteConfigError, ModelRejectedError
from predictor.backends.signature import (
    Tensor,
    check_inputs,
    check_outputs,
    complete_config,
    read_tensors,
    reject_completed,
    reject_unsupported,
)
from predictor.triton_conventions import INCOMPLETE_CONFIG
from tests.support.models import build_identity, build_optional, build_scalar, build_sequence_output


def describe(name: str, dims: list[int], *, datatype: str = "TYPE_FP32", **more: Any) -> dict[str, Any]:
    """Return an input or output of a config."""
    return {"name": name, "data_type": datatype, "dims": dims, **more}


def compose(max_batch_size: int, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a config."""
    return {"max_batch_size": max_batch_size, "input": inputs, "output": outputs}


def check(onnx_file: bytes, config: dict[str, Any]) -> None:
    """Check a config as the backend does when it loads a model."""
    session = ort.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    reject_unsupported(config)
    overridable = read_tensors(session.get_overridable_initializers())
    check_inputs(config, read_tensors(session.get_inputs()), overridable=overridable)
    check_outputs(config, read_tensors(session.get_outputs()))


PAIRS = build_identity()  # [-1, 2]
FREE = build_identity(["n", "m"])  # [-1, -1]
ROWS = build_identity(["n"])  # [-1]
SCALAR = build_scalar([])
X, Y = describe("x", [2]), describe("y", [2])


@pytest.mark.parametrize(
    ("onnx_file", "config"),
    [
        (PAIRS, compose(8, [X], [Y])),
        (PAIRS, compose(0, [describe("x", [-1, 2])], [describe("y", [-1, 2])])),
        (PAIRS, compose(0, [describe("x", [5, 2])], [describe("y", [-1, 2])])),
        (PAIRS, compose(8, [X], [])),
        (FREE, compose(8, [describe("x", [3])], [describe("y", [-1])])),
        (ROWS, compose(8, [describe("x", [1], reshape={"shape": []})], [describe("y", [1], reshape={"shape": []})])),
        (SCALAR, compose(0, [describe("x", [1])], [describe("y", [1, 1])])),
        (SCALAR, compose(0, [describe("x", [1], reshape={})], [describe("y", [1])])),
        (build_optional(), compose(0, [X], [Y])),
        (build_optional(), compose(0, [X, describe("factor", [1], optional=True)], [Y])),
    ],
)
def test_config_that_fits_is_accepted(onnx_file: bytes, config: dict[str, Any]) -> None:
    check(onnx_file, config)


@pytest.mark.parametrize(
    ("onnx_file", "config", "message"),
    [
        (PAIRS, compose(8, [describe("x", [-1])], [Y]), r"'x'.*\[-1, 2\].*\[-1, -1\]"),
        (PAIRS, compose(8, [describe("x", [2, 1])], [Y]), r"'x'.*\[-1, 2\].*\[-1, 2, 1\]"),
        (PAIRS, compose(0, [X], [Y]), r"'x'.*\[-1, 2\].*\[2\]"),
        (PAIRS, compose(0, [describe("x", [-1, 2])], [describe("y", [5, 2])]), r"'y'.*\[-1, 2\].*\[5, 2\]"),
        (FREE, compose(8, [X], [Y]), r"'y'.*\[-1, -1\].*\[-1, 2\]"),
        (ROWS, compose(8, [describe("x", [1])], [describe("y", [1])]), r"'x'.*\[-1\].*\[-1, 1\]"),
        (SCALAR, compose(0, [describe("x", [2])], [Y]), "'x' is a scalar"),
        (SCALAR, compose(0, [describe("x", [1])], [Y]), "'y' is a scalar"),
        (PAIRS, compose(0, [describe("x", [2], optional=True)], [Y]), "0 inputs that are not optional, .* takes 1: x"),
        (PAIRS, compose(8, [], [Y]), "0 inputs that are not optional"),
        (PAIRS, compose(8, [describe("x", [2], allow_ragged_batch=True)], [Y]), "allow_ragged_batch of 'x'"),
        (PAIRS, compose(8, [X], [Y]) | {"batch_input": [{}]}, "batch_input"),
        (build_sequence_output(), compose(8, [X], [Y]), r"'y' is a seq\(tensor\(float\)\)"),
    ],
)
def test_config_that_does_not_fit_is_rejected(onnx_file: bytes, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRejectedError, match=message):
        check(onnx_file, config)


FP32_ROWS = {"t": Tensor("TYPE_FP32", (-1,))}
FP32_PAIRS = {"t": Tensor("TYPE_FP32", (-1, 2))}
FP32_FIXED = {"t": Tensor("TYPE_FP32", (1, 2))}


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        (
            compose(0, [], []),
            FP32_PAIRS,
            compose(4, [describe("t", [2])], [describe("t", [2])]) | {"dynamic_batching": {}},
        ),
        (compose(1, [], []), FP32_PAIRS, compose(1, [describe("t", [2])], [describe("t", [2])])),
        (compose(0, [X], []), FP32_PAIRS, compose(4, [X], [describe("t", [2])]) | {"dynamic_batching": {}}),
        (
            compose(9, [], [Y]) | {"dynamic_batching": {"max_queue_delay_microseconds": 5}},
            FP32_ROWS,
            compose(9, [describe("t", [1], reshape={"shape": []})], [Y])
            | {"dynamic_batching": {"max_queue_delay_microseconds": 5}},
        ),
        (compose(0, [], []), FP32_FIXED, compose(0, [describe("t", [1, 2])], [describe("t", [1, 2])])),
        (
            compose(0, [], []),
            {"t": Tensor("TYPE_FP32", ())},
            compose(0, [describe("t", [1])], [describe("t", [1])]),
        ),
    ],
)
def test_empty_config_is_completed(
    config: dict[str, Any], tensors: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    complete_config(config, tensors, tensors)
    assert config == expected


def test_config_that_was_completed_here_is_rejected_with_what_it_lacked() -> None:
    config = compose(0, [X], [])
    complete_config(config, FP32_PAIRS, FP32_PAIRS)
    with pytest.raises(IncompleteConfigError) as caught:
        reject_completed(config, ["output"])
    found = {"max_batch_size": 4, "dynamic_batching": {}, "output": [describe("t", [2])]}
    assert str(caught.value) == INCOMPLETE_CONFIG + json.dumps(found)
    reject_completed(config, [])


def test_batching_config_of_a_model_without_batches_is_rejected() -> None:
    with pytest.raises(ModelRejectedError, match="max_batch_size is 8"):
        complete_config(compose(8, [], []), FP32_PAIRS, FP32_FIXED)
