"""How profiles are compared, and what a setting leaves open."""

import json
import time
from typing import Any

import numpy as np
import pytest

from predictor.synchroniser.comparison import compare_calls, compose_inputs
from predictor.synchroniser.traffic import Traffic
from predictor.synchroniser.triton_client import Requests
from registry import config as configs
from registry.judgement.version import judge_changes
from registry.profiles import alternatives, first_of

TABLE = """
name: "rows" backend: "onnxruntime" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
parameters { key: "metadata" value { string_value: "{}" } }
"""


def test_a_pair_that_meets_something_else_does_not_decide() -> None:
    calls = iter([0.0] * 2 + [0.004, 0.008, 0.2, 0.008] + [0.004, 0.008] * 100)

    def sleep() -> None:
        time.sleep(next(calls))

    assert compare_calls(sleep, sleep) < 0.9


def test_what_serves_first_is_what_was_published() -> None:
    assert [first_of(setting) for setting in ("auto", "fp32", "fast", "int8", "mine")] == [
        "fp32", "fp32", "fast", "int8", "mine",
    ]  # fmt: skip
    assert alternatives("int8") == ("int8",), "a setting that names a profile is obeyed"


def test_openvino_keeps_batches_tensors_and_metadata_of_the_published_config() -> None:
    own = configs.parse(TABLE.encode(), where="config.pbtxt")
    derived = configs.in_openvino(configs.resolve(own))
    assert derived is not None
    assert (derived.backend, derived.max_batch_size) == ("openvino", 8)
    assert configs.contract(derived) == configs.contract(own)


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace('backend: "onnxruntime"', 'backend: "openvino"'),
        TABLE + "optimization { graph { level: 1 } }",
        TABLE + "instance_group { kind: KIND_GPU }",
        TABLE + 'parameters { key: "intra_op_thread_count" value { string_value: "3" } }',
        'backend: "onnxruntime"',
    ],
)
def test_config_that_says_more_has_no_such_form(text: str) -> None:
    assert configs.in_openvino(configs.resolve(configs.parse(text.encode(), where="config.pbtxt"))) is None


IMAGES = """
backend: "onnxruntime" max_batch_size: 8
input { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
parameters { key: "metadata" value { string_value: "{'imgsz': %s}" } }
"""


@pytest.mark.parametrize(
    ("trained", "shape"),
    [
        ("[320, 640]", (1, 320, 640, 3)),
        ("96", (1, 96, 96, 3)),
        ("[9000, 9000]", (1, 8, 8, 3)),
        ("'large'", (1, 8, 8, 3)),
    ],
)
def test_images_have_the_size_that_the_model_was_made_for(trained: str, shape: tuple[int, ...]) -> None:
    config = configs.parse((IMAGES % trained).encode(), where="config.pbtxt")
    golden: dict[str, Any] = {
        "image": np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3),
        "y": np.zeros((2, 2), np.float32),
    }
    assert compose_inputs(golden, config)["image"].shape == shape


def test_traffic_is_quiet_while_no_count_of_a_served_model_changes() -> None:
    now = 0.0
    traffic = Traffic(lambda: now)
    now = 3.0
    traffic.note({"rows": Requests(1, 0)})
    assert traffic.quiet_s == 0
    now = 10.0
    traffic.note({"rows": Requests(1, 0), "candidate~rows": Requests(5, 0)})
    assert traffic.quiet_s == 7
    traffic.note({"rows": Requests(1, 1)})
    assert traffic.quiet_s == 0
    now = 20.0
    traffic.note_unknown()
    assert traffic.quiet_s == 0, "an overloaded Triton gives no counts either"


def test_changes_of_accuracy_are_read_from_the_manifest() -> None:
    zeros = "0" * 64
    manifest = {
        "model": "m",
        "version": "1",
        "task": "detect",
        "interface": "fused",
        "created": "2026-11-27T00:00:00+00:00",
        "source": {"name": "a", "sha256": zeros},
        "tools": {"onnx": "1"},
        "precisions": {
            "int8": {"metric": "box", "map50_95": 0.41, "fp32": 0.42, "change": -0.01, "pictures": 9, "truth": "labels"}
        },
        "files": {name: {"sha256": zeros, "size_bytes": 1} for name in ("config.pbtxt", "model.onnx")},
    }
    assert judge_changes(json.dumps(manifest).encode()) == {"int8": -0.01}
    del manifest["precisions"]
    assert judge_changes(json.dumps(manifest).encode()) == {}
