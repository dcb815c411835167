"""The parts of the onnxruntime backend that need no server."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from predictor.backends.artifact import check_versions, find_artifact
from predictor.backends.batch import join, split, terminate_strings
from predictor.backends.errors import ModelRejectedError
from predictor.backends.onnxruntime.options import FEW_CORES, SPIN_US, compose_run_options, compose_session_options
from registry.judgement.onnx_file import read_versions


def write_model(path: Path, *, ir_version: int = 9, opsets: dict[str, int] | None = None) -> Path:
    """Write a graph that returns its input."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    onnx.save(helper.make_model(graph, ir_version=ir_version, opset_imports=imports), path)
    return path


def parameter(name: str, value: str) -> dict[str, Any]:
    """Return a config with one parameter."""
    return {"parameters": {name: {"string_value": value}}}


def graph_level(level: int) -> dict[str, Any]:
    """Return a config with a level of graph optimization."""
    return {"optimization": {"graph": {"level": level}}}


@pytest.mark.parametrize(
    ("opsets", "expected"),
    [
        ({"": 17}, {"ai.onnx": 17}),
        ({"": 21, "ai.onnx.ml": 5, "com.microsoft": 1}, {"ai.onnx": 21, "ai.onnx.ml": 5, "com.microsoft": 1}),
        ({"custom": 2**40, "": 300}, {"custom": 2**40, "ai.onnx": 300}),
    ],
)
def test_versions_are_those_the_onnx_package_wrote(
    tmp_path: Path, opsets: dict[str, int], expected: dict[str, int]
) -> None:
    assert read_versions(write_model(tmp_path / "m.onnx", ir_version=10, opsets=opsets)) == (10, expected)


@pytest.mark.parametrize(
    ("ir_version", "opsets", "rejected"),
    [
        (10, {"": 21, "ai.onnx.ml": 5}, None),
        (10, {"": 21, "custom": 99}, None),
        (11, {"": 21}, "IR version 11"),
        (10, {"": 22}, "opset 22 of ai.onnx,"),
        (10, {"": 21, "ai.onnx.ml": 6}, "opset 6 of ai.onnx.ml"),
    ],
)
def test_versions_beyond_the_oldest_triton_are_rejected(
    tmp_path: Path, ir_version: int, opsets: dict[str, int], rejected: str | None
) -> None:
    path = write_model(tmp_path / "m.onnx", ir_version=ir_version, opsets=opsets)
    if rejected is None:
        check_versions(path)
    else:
        with pytest.raises(ModelRejectedError, match=rejected):
            check_versions(path)


def test_model_file_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.onnx").touch()
    (tmp_path / "model.onnx").touch()
    assert find_artifact(tmp_path, "") == tmp_path / "model.onnx"
    assert find_artifact(tmp_path, "folder") == tmp_path / "folder" / "model.onnx"
    with pytest.raises(ModelRejectedError, match=r"unable to find .*other\.onnx"):
        find_artifact(tmp_path, "other.onnx")


def test_batch_of_one_request_is_not_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    assert join([array]) is array


def test_batch_is_split_into_views() -> None:
    parts = [np.full((rows, 2), rows, np.int64) for rows in (1, 3, 0, 2)]
    joined = join(parts)
    views = split(joined, [1, 3, 0, 2])
    for part, view in zip(parts, views, strict=True):
        np.testing.assert_array_equal(part, view)
        assert view.base is joined


@pytest.mark.parametrize("shape", [(), (2, 4), (4, 4)])
def test_output_that_does_not_fit_the_batch_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a batch of 3"):
        split(np.zeros(shape), [1, 2])


@pytest.mark.parametrize(
    ("config", "attribute", "expected"),
    [
        ({}, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
        (graph_level(-1), "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_BASIC),
        (graph_level(1), "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED),
        (graph_level(2), "graph_optimization_level", ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
        ({}, "execution_mode", ort.ExecutionMode.ORT_SEQUENTIAL),
        (parameter("execution_mode", "1"), "execution_mode", ort.ExecutionMode.ORT_PARALLEL),
        ({}, "intra_op_num_threads", 0),
        (parameter("intra_op_thread_count", "3"), "intra_op_num_threads", 3),
        (parameter("intra_op_thread_count", "-1"), "intra_op_num_threads", 0),
        (parameter("inter_op_thread_count", "2"), "inter_op_num_threads", 2),
        ({}, "enable_cpu_mem_arena", True),
        (parameter("enable_mem_arena", "0"), "enable_cpu_mem_arena", False),
        (parameter("enable_mem_arena", "OFF"), "enable_cpu_mem_arena", False),
        ({}, "enable_mem_pattern", True),
        (parameter("enable_mem_pattern", "false"), "enable_mem_pattern", False),
    ],
)
def test_options_are_those_of_the_config(config: dict[str, Any], attribute: str, expected: object) -> None:
    assert getattr(compose_session_options(config), attribute) == expected


def test_options_pass_on_what_onnxruntime_names_itself() -> None:
    session = compose_session_options(parameter("session.use_device_allocator_for_initializers", "1"))
    assert session.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    run = compose_run_options(parameter("memory.enable_memory_arena_shrinkage", "cpu:0"))
    assert run.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"


@pytest.mark.parametrize(("cores", "briefly"), [(2, True), (FEW_CORES, True), (FEW_CORES + 1, False)])
def test_threads_spin_long_only_with_many_cores(monkeypatch: pytest.MonkeyPatch, cores: int, briefly: bool) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    options = compose_session_options({})
    for key, value in (("session.intra_op.spin_duration_us", str(SPIN_US)), ("session.inter_op.allow_spinning", "0")):
        if briefly:
            assert options.get_session_config_entry(key) == value
        else:
            with pytest.raises(RuntimeError, match=key):
                options.get_session_config_entry(key)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (parameter("execution_mode", "2"), "execution_mode must be 0 or 1, got 2"),
        (parameter("intra_op_thread_count", "two"), "'intra_op_thread_count' must be a whole number, got 'two'"),
        (parameter("enable_mem_arena", "maybe"), "'enable_mem_arena' must be true or false, got 'maybe'"),
        (parameter("share_session_between_instances", ""), "'share_session_between_instances' must be true or false"),
    ],
)
def test_invalid_options_are_rejected(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRejectedError, match=re.escape(message)):
        compose_session_options(config)


@pytest.mark.parametrize(
    ("strings", "width"),
    [(np.array([], np.object_), 1), (np.array([[b""]], np.object_), 1), (np.array([b"ab", b"\xff"], np.object_), 3)],
)
def test_strings_leave_room_for_the_terminator(strings: np.typing.NDArray[np.object_], width: int) -> None:
    terminated = terminate_strings(strings)
    assert (terminated.shape, terminated.dtype) == (strings.shape, np.dtype(f"S{width}"))
    assert terminated.tolist() == strings.tolist()
