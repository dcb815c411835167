"""OpenVINO's properties from config.pbtxt, where each instance is a process of its own."""

from typing import Any

import pytest

from predictor.backends.openvino.options import compose_properties


def config(instances: int = 1, **parameters: str) -> dict[str, Any]:
    return {
        "instance_group": [{"count": instances}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


@pytest.mark.parametrize(
    ("instances", "parameters", "expected"),
    [
        (1, {}, {}),
        (1, {"HINT_BF16": "yes"}, {"INFERENCE_PRECISION_HINT": "bf16"}),
        (1, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2}),
        (2, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
        (4, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "8"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 4}),
        (2, {"NUM_STREAMS": "4", "INFERENCE_NUM_THREADS": "1"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
        (2, {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2}),
        (2, {"NUM_STREAMS": "NUMA", "PERFORMANCE_HINT": "latency"}, {"NUM_STREAMS": -2, "PERFORMANCE_HINT": "LATENCY"}),
        (1, {"CPU_EXTENSION_PATH": "", "metadata": "{}"}, {}),
    ],
)
def test_properties_of_one_instance(instances: int, parameters: dict[str, str], expected: dict[str, Any]) -> None:
    assert compose_properties(config(instances, **parameters)) == expected
