"""PROFILE: which config a version runs with, composed where everybody can read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment.cpus import cpu_limit
from tests.support.stack import Stack, start_stack, wait_until, wait_until_announced
from tests.support.versions import Build, reseal, write

FAST = """
backend: "openvino" max_batch_size: 1 instance_group { count: 2 kind: KIND_CPU }
default_model_filename: "model.onnx" parameters { key: "HINT_BF16" value { string_value: "YES" } }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles") / "repository"
    own = write(folder, "own", Build(1))
    (own / "fast.pbtxt").write_text(FAST)
    reseal(own)
    # Not of this version, which has a config of its own.
    shared = write(folder, "exported", Build(2)).parent
    (shared / "configs").mkdir()
    (shared / "configs" / "fast.pbtxt").write_text(FAST)
    # A plain model.onnx under the model's configs.
    plain = write(folder, "plain", Build(3))
    for name in ("manifest.json", "golden.npz", "parity.json", "config.pbtxt"):
        (plain / name).unlink()
    (plain.parent / "configs").mkdir()
    (plain.parent / "configs" / "fast.pbtxt").write_text(FAST.replace("HINT_BF16", "NUM_STREAMS").replace("YES", "2"))
    lacking = write(folder, "lacking", Build(4))
    (lacking / "fast.pbtxt").write_text(FAST.replace("model.onnx", "model.int8.onnx"))
    reseal(lacking)
    evil = write(folder, "evil", Build(5))
    (evil / "fast.pbtxt").write_text(FAST + 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/" } }')
    reseal(evil)
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    variables = {"PROFILE": "fast", "SETTLE_S": "0.5", "POLL_S": "0.5"}
    with start_stack(repository, tmp_path_factory.mktemp("stack") / "log", variables=variables) as running:
        wait_until(lambda: running.http.get("/v2/models/lacking").status_code == 503, log=running.log)
        yield running


def config_of(stack: Stack, model: str) -> dict[str, Any]:
    config: dict[str, Any] = stack.http.get(f"/v2/models/{model}/config").raise_for_status().json()
    return config


def parameters_of(stack: Stack, model: str) -> dict[str, str]:
    return {name: value["string_value"] for name, value in config_of(stack, model)["parameters"].items()}


@pytest.mark.parametrize(("model", "number"), [("own", 1), ("exported", 2), ("plain", 3)])
def test_every_model_responds(stack: Stack, model: str, number: int) -> None:
    response = stack.http.post(f"/predict/{model}", json=[[1.0] * 4] * 3).raise_for_status().json()
    assert [row["class"] for row in response["predictions"]] == [f"build-{number}-{number % 3}"] * 3


def test_a_version_brings_its_own_profile(stack: Stack) -> None:
    config = config_of(stack, "own")
    assert (config["backend"], config["max_batch_size"], config["instance_group"][0]["count"]) == ("openvino", 1, 2)
    parameters = parameters_of(stack, "own")
    assert parameters["profile"] == "fast"
    assert parameters["INFERENCE_NUM_THREADS"] == str(max(int(cpu_limit()), 1))
    assert "task" in parameters["metadata"]


def test_a_model_without_the_profile_runs_as_ever(stack: Stack) -> None:
    assert config_of(stack, "exported")["backend"] == "onnxruntime"
    assert "profile" not in parameters_of(stack, "exported")
    wait_until_announced(stack.log)
    announced = stack.log.read_text()
    assert "own 1 tabular (fast)" in announced
    assert "exported 1 tabular\n" in announced


def test_a_plain_upload_takes_the_profile_of_its_model(stack: Stack) -> None:
    parameters = parameters_of(stack, "plain")
    assert (parameters["profile"], parameters["NUM_STREAMS"]) == ("fast", "2"), "what it sets, stays"


@pytest.mark.parametrize(("model", "reason"), [("lacking", "model.int8.onnx"), ("evil", "EXECUTION_ENV_PATH")])
def test_invalid_profiles_are_rejected(stack: Stack, model: str, reason: str) -> None:
    (version,) = stack.http.get("/status").json()["models"][model]["versions"].values()
    assert version["state"] in {"refused", "incomplete"}
    assert reason in version["reason"]


def test_another_profile_over_the_same_mirror(repository: Path, tmp_path: Path) -> None:
    mirror = {"MIRROR": str(tmp_path / "mirror"), "SETTLE_S": "0.5", "POLL_S": "0.5"}
    for profile, backend in (("fast", "openvino"), ("fp32", "onnxruntime")):
        log = tmp_path / f"log-{profile}"
        with start_stack(repository, log, variables=mirror | {"PROFILE": profile}) as again:
            wait_until(lambda: config_of(again, "own")["backend"] == backend, log=log)  # noqa: B023
            assert again.http.post("/predict/own", json=[[1.0] * 4]).is_success
