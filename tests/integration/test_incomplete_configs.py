"""Configs without tensors: the synchroniser completes them as Triton does that may complete configs itself."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from onnx import helper
from tritonclient import grpc

from predictor.triton_conventions import INCOMPLETE_CONFIG
from tests.support.models import BATCHED, CPU, FLOAT_IO, Dim, build, build_identity, build_scalar, tensor, write_model
from tests.support.openvino_ir import write_sum
from tests.support.stack import Stack, start_stack, wait_until
from tests.support.triton import start_triton

MANY = [f"an-output-whose-name-is-rather-long-{index}" for index in range(400)]
OPENVINO = CPU + 'backend: "openvino"\n'
OPENVINO_ONNX = OPENVINO + 'default_model_filename: "model.onnx"'


def build_product(*shape: Dim, declared: bool = True) -> bytes:
    """Return `y = x @ w` with three columns, whatever its file declares of them."""
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x")],
        [tensor("y", shape if declared else None)],
        constants={"w": np.ones((2, 3), np.float32)},
    )


def build_many() -> bytes:
    """Return a model with so many outputs that an error with all of them is longer than gRPC allows by default."""
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in MANY]
    return build(nodes, [tensor("x")], [tensor(name) for name in MANY])


def write_incomplete(repository: Path) -> None:
    """Write models whose configs lack tensors."""
    write_model(repository, "bare", config=None)
    write_model(repository, "one-at-a-time", config=CPU + "max_batch_size: 1")
    write_model(repository, "queued", config=BATCHED + "dynamic_batching { max_queue_delay_microseconds: 5 }")
    write_model(repository, "inputs-only", config=BATCHED + FLOAT_IO.splitlines()[1])
    write_model(repository, "fixed", onnx_file=build_identity([3, None]))
    write_model(repository, "rows", onnx_file=build_identity(["n"]))
    write_model(repository, "scalar", onnx_file=build_scalar([]))
    write_model(repository, "symbolic", onnx_file=build_product("a", "b"))
    write_model(repository, "undeclared", onnx_file=build_product(declared=False))
    write_model(repository, "many", onnx_file=build_many())
    write_model(repository, "openvino", onnx_file=build_product("a", "b"), config=OPENVINO_ONNX)
    write_sum(repository / "without-layouts" / "1", layouts=False)
    (repository / "without-layouts" / "config.pbtxt").write_text(OPENVINO)


def tensors(config: Any) -> Any:
    """What is completed of a config; the synchroniser adds instances and threads besides."""
    config = json_format.ParseDict(config, grpc.model_config_pb2.ModelConfig(), ignore_unknown_fields=True)
    return config.max_batch_size, config.dynamic_batching if config.HasField("dynamic_batching") else None, [
        *config.input, *config.output
    ]  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("incomplete") / "models"
    write_incomplete(folder)
    return folder


@pytest.fixture(scope="module")
def completed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configs of a Triton that completes them itself, by model."""
    with (
        start_triton(repository, tmp_path_factory.mktemp("triton") / "log") as triton,
        grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc_port}") as client,
    ):
        return {
            name: client.get_model_config(name, as_json=True)["config"]
            for name in sorted(os.listdir(repository))  # noqa: PTH208 - names alone
        }


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    log = tmp_path_factory.mktemp("stack") / "log"
    with start_stack(repository, log, variables={"POLL_S": "0.5", "SETTLE_S": "0"}) as running:
        yield running


def test_synchroniser_completes_configs_as_triton_does(stack: Stack, completed: dict[str, Any]) -> None:
    def read(name: str) -> Any:
        return stack.http.get(f"/v2/models/{name}/config").raise_for_status().json()

    with ThreadPoolExecutor(2) as pool:
        configs = dict(zip(completed, pool.map(read, completed), strict=True))
    assert {name: tensors(config) for name, config in configs.items()} == {
        name: tensors(config) for name, config in completed.items()
    }
    assert len(configs["many"]["output"]) == len(MANY)


def test_other_tensors_under_a_number_that_serves_are_rejected_though_no_config_names_them(
    stack: Stack, repository: Path
) -> None:
    def version() -> Any:
        return stack.http.get("/status").raise_for_status().json()["models"]["bare"]["versions"]["1"]

    model = repository / "bare" / "1" / "model.onnx"
    model.write_bytes(build_identity(["n", 3]))
    wait_until(lambda: "tensors differ" in (version()["reason"] or ""), log=stack.log)
    double = build([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x")], [tensor("y")])
    model.write_bytes(double)

    def doubles() -> bool:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        response = stack.http.post("/v2/models/bare/infer", json=body).raise_for_status().json()
        return bool(response["outputs"][0]["data"] == [2, 4])

    wait_until(doubles, log=stack.log)


def test_restarted_triton_loads_completed_configs_by_itself(stack: Stack) -> None:
    reports = stack.log.read_text().count(INCOMPLETE_CONFIG)
    assert reports
    stack.part("tritonserver").kill()
    wait_until(lambda: not stack.http.get("/v2/models/rows/ready").is_success, log=stack.log)
    wait_until(lambda: stack.http.get("/v2/models/rows/ready").is_success, log=stack.log)
    assert stack.log.read_text().count(INCOMPLETE_CONFIG) == reports
