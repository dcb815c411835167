"""Threads and instances that a config leaves open."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.threads import fit_cpus

CPU = "instance_group { kind: KIND_CPU }"


def fill(text: str, cpus: float) -> tuple[list[int], dict[str, str]]:
    config = text_format.Parse(text, ModelConfig())
    before = config.SerializeToString(deterministic=True)
    filled = fit_cpus(config, cpus=cpus)
    assert config.SerializeToString(deterministic=True) == before
    return [group.count for group in filled.instance_group], {
        name: parameter.string_value for name, parameter in filled.parameters.items()
    }


@pytest.mark.parametrize(("cpus", "threads"), [(0.3, "1"), (1, "1"), (2, "2"), (3.9, "3"), (64, "64")])
def test_onnxruntime_gets_all_cpus_in_one_instance(cpus: float, threads: str) -> None:
    expected = {"intra_op_thread_count": threads, "inter_op_thread_count": "1"}
    assert fill(CPU, cpus) == ([1], expected)
    assert fill("", cpus) == ([], expected)


@pytest.mark.parametrize(("cpus", "threads", "streams"), [(0.3, 1, 1), (2, 2, 2), (3.9, 3, 3), (16, 16, 8)])
def test_openvino_gets_streams(cpus: float, threads: int, streams: int) -> None:
    expected = {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": str(streams)}
    assert fill(f'backend: "openvino" {CPU}', cpus) == ([streams], expected)


def test_values_that_a_config_sets_stay() -> None:
    text = """
    backend: "openvino" instance_group { kind: KIND_CPU count: 3 }
    parameters { key: "NUM_STREAMS" value { string_value: "AUTO" } }
    """
    assert fill(text, 2) == ([3], {"NUM_STREAMS": "AUTO", "INFERENCE_NUM_THREADS": "2"})


@pytest.mark.parametrize(("bf16", "expected"), [(True, True), (False, False)])
def test_bf16_is_left_to_cpus_that_have_it(bf16: bool, expected: bool) -> None:
    text = 'backend: "openvino" parameters { key: "HINT_BF16" value { string_value: "YES" } }'
    config = text_format.Parse(text, ModelConfig())
    assert ("HINT_BF16" in fit_cpus(config, cpus=2, bf16=bf16).parameters) is expected
    assert "HINT_BF16" in config.parameters


def test_a_gpu_gets_nothing() -> None:
    assert fill("instance_group { kind: KIND_GPU count: 1 }", 4) == ([1], {})


def test_no_config_gives_an_empty_one() -> None:
    assert fit_cpus(None, cpus=2).parameters["intra_op_thread_count"].string_value == "2"
