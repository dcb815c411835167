"""PROFILE=auto and fast: which profile serves is measured, in the real embedded Triton."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.support.stack import Stack, start_stack, wait_until
from tests.support.versions import Build, reseal, write

SOON = {"SETTLE_S": "0.5", "POLL_S": "0.5"}
FAST = 'backend: "onnxruntime" default_model_filename: "{}" instance_group {{ count: 1 kind: KIND_CPU }}'
ROWS = [[1.0] * 4] * 3


def slow_down(model: ModelProto) -> ModelProto:
    """The same outputs, and products of large matrices that add nothing to them."""
    (inputs, output) = (model.graph.input[0].name, model.graph.output[0].name)
    for node in model.graph.node:
        node.output[:] = ["quick" if name == output else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.full((1200, 1200), 1e-9, np.float32), "waste"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    model.graph.node.extend([
        helper.make_node("ReduceMean", [inputs], ["mean"], keepdims=0),
        helper.make_node("Add", ["waste", "mean"], ["work0"]),
        *(helper.make_node("MatMul", [f"work{i}", "waste"], [f"work{i + 1}"]) for i in range(8)),
        helper.make_node("ReduceMax", ["work8"], ["most"], keepdims=0),
        helper.make_node("Min", ["most", "nothing"], ["lost"]),
        helper.make_node("Sub", ["lost", "lost"], ["none"]),
        helper.make_node("Add", ["quick", "none"], [output]),
    ])  # fmt: skip
    return model


def add_profile(version: Path, model: ModelProto) -> None:
    """Give a version `fast.pbtxt`, which runs another file."""
    path = version / "model.fast.onnx"
    onnx.save(model, path)
    (version / "fast.pbtxt").write_text(FAST.format(path.name))
    reseal(version)


def profile_of(stack: Stack, model: str) -> Any:
    (version,) = stack.http.get("/status").raise_for_status().json()["models"][model]["versions"].values()
    return version["profile"]


def config_of(stack: Stack, model: str) -> dict[str, Any]:
    config: dict[str, Any] = stack.http.get(f"/v2/models/{model}/config").raise_for_status().json()
    return config


def wait_until_measured(stack: Stack, *models: str, of: str) -> None:
    wait_until(
        lambda: all(isinstance(profile_of(stack, model)["measured"].get(of), float) for model in models), log=stack.log
    )


def test_profile_that_is_slower_than_fp32_makes_way_for_it(tmp_path: Path) -> None:
    version = write(tmp_path / "repository", "rows", Build(1))
    add_profile(version, slow_down(onnx.load(version / "model.onnx")))
    variables = {**SOON, "PROFILE": "fast", "MIRROR": str(tmp_path / "mirror")}
    with start_stack(tmp_path / "repository", tmp_path / "log", variables=variables) as stack:
        assert config_of(stack, "rows")["default_model_filename"] == "model.fast.onnx"
        wait_until(lambda: config_of(stack, "rows")["default_model_filename"] == "model.onnx", log=stack.log)
        wait_until(lambda: profile_of(stack, "rows")["chosen"] == "fp32", log=stack.log)
        assert profile_of(stack, "rows")["measured"]["fp32"] < 0.9
        response = stack.http.post("/predict/rows", json=ROWS).raise_for_status().json()
        assert [row["class"] for row in response["predictions"]] == ["build-1-1"] * 3
    # What was measured is remembered.
    with start_stack(tmp_path / "repository", tmp_path / "again", variables=variables) as stack:
        assert config_of(stack, "rows")["default_model_filename"] == "model.onnx"
        wait_until(
            lambda: "rows" in stack.http.get("/status").json()["models"], log=stack.log
        )  # after its first listing
        wait_until(lambda: profile_of(stack, "rows") is not None, log=stack.log)
        assert profile_of(stack, "rows")["chosen"] == "fp32"
        assert "takes" not in stack.log.read_text().partition("ready  http")[0]


def test_auto_measures_openvino_and_serves_the_faster(tmp_path: Path) -> None:
    write(tmp_path / "repository", "rows", Build(1))
    write(tmp_path / "repository", "images", Build(2, task="detect"))
    with start_stack(tmp_path / "repository", tmp_path / "log", variables={**SOON, "PROFILE": "auto"}) as stack:
        assert config_of(stack, "rows")["backend"] == "onnxruntime", "what was published serves first"
        wait_until_measured(stack, "rows", "images", of="openvino")
        for model in ("rows", "images"):
            chosen = profile_of(stack, model)["chosen"]
            share = profile_of(stack, model)["measured"]["openvino"]
            assert chosen == ("openvino" if share < 0.9 else "fp32")
            backend = {"openvino": "openvino", "fp32": "onnxruntime"}[chosen]
            wait_until(lambda: config_of(stack, model)["backend"] == backend, log=stack.log)  # noqa: B023


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_openvino_takes_the_batches_that_onnx_runtime_takes(tmp_path: Path, rows: int) -> None:
    write(tmp_path / "repository", "rows", Build(1))
    with start_stack(tmp_path / "repository", tmp_path / "log", variables={**SOON, "PROFILE": "openvino"}) as stack:
        config = config_of(stack, "rows")
        assert (config["backend"], config["parameters"]["profile"]["string_value"]) == ("openvino", "openvino")
        assert config["max_batch_size"] > 8
        response = infer(stack, rows)
    (probabilities,) = [output["data"] for output in response["outputs"] if output["datatype"] == "FP32"]
    np.testing.assert_allclose(np.reshape(probabilities, (rows, -1)), [Build(1).scores] * rows, atol=1e-6)


def infer(stack: Stack, rows: int) -> Any:
    """Infer with so many rows, straight at Triton."""
    url = f"http://127.0.0.1:{stack.triton_http_port}/v2/models/rows"
    (tensor,) = httpx.get(url).raise_for_status().json()["inputs"]
    shape = [rows, *tensor["shape"][1:]]
    body = {"inputs": [{**tensor, "shape": shape, "data": [1.0] * int(np.prod(shape))}]}
    return httpx.post(f"{url}/infer", json=body, timeout=30).raise_for_status().json()


def test_version_that_openvino_cannot_run_goes_on_as_published(tmp_path: Path) -> None:
    version = write(tmp_path / "repository", "rows", Build(1))
    config = (version / "config.pbtxt").read_text()
    # Options of ONNX Runtime, which OpenVINO has none for.
    (version / "config.pbtxt").write_text(config + "\noptimization { graph { level: 1 } }\n")
    reseal(version)
    with start_stack(tmp_path / "repository", tmp_path / "log", variables={**SOON, "PROFILE": "auto"}) as stack:
        wait_until(lambda: "openvino" in profile_of(stack, "rows")["measured"], log=stack.log)
        assert profile_of(stack, "rows") == {"chosen": "fp32", "measured": {"openvino": "it runs as fp32 does"}}
        status = stack.http.get("/status").json()["models"]["rows"]
        assert (status["state"], status["error"]) == ("serving", None)
        assert config_of(stack, "rows")["backend"] == "onnxruntime"
