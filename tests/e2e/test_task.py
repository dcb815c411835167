"""The task of infra/cloudformation/ecs.yaml, run by podman as Fargate would: tests/support/task.py has the differences.

The tests are steps of one run, in this order.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from containers.build import version
from tests.support.cloudformation import Account, read_text
from tests.support.machine import find_missing
from tests.support.podman import Running, build_images, play, podman
from tests.support.s3 import S3, start_s3
from tests.support.stack import ROOT
from tests.support.task import convert

URL, TRITON = "http://127.0.0.1:8080", "http://127.0.0.1:8000"
IMAGE = ROOT / "loadtest" / "pictures" / "digits.jpg"
MODELS = ("digit-finder", "digits", "iris")
MANY = 48  # images in one request, so that it takes a while
START_S = 120.0


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("task") / "s3.log") as server:
        yield server


@pytest.fixture(scope="module")
def key_and_line(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    lines = tmp_path_factory.mktemp("keys") / "keys"
    command = [str(ROOT / ".venv/bin/python"), "-m", "nereid", "key", "task", str(lines)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (key,) = (word for word in printed.split() if word.startswith("nereid_"))
    return key, lines.read_text()


@pytest.fixture(scope="module")
def running(s3: S3, key_and_line: tuple[str, str]) -> Iterator[Running]:
    if missing := find_missing():
        pytest.skip("; ".join(missing))
    build_images()
    account = Account(s3)
    account.create(
        "task",
        read_text("ecs.yaml"),
        {
            "VpcId": account.vpc,
            "TaskSubnets": account.subnets,
            "LoadBalancerSubnets": account.subnets,
            "ClientCidr": "10.0.0.0/16",
            "TritonImage": f"nereid/cpu-triton:{version()}",
            "SynchroniserImage": f"nereid/predictor:{version()}",
            "TransformerImage": f"nereid/transformer:{version()}",
            "ModelBucket": "models",
            "PollSeconds": "1",
            "ApiKeysSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys",
        },
    )
    definition = account.client("ecs").describe_task_definition(taskDefinition=account.resources("task")["Task"])
    settings = {"AWS_ENDPOINT_URL": s3.url} | {
        name: value for name, value in s3.environment().items() if name.startswith(("AWS_ACCESS", "AWS_SECRET"))
    }
    secrets = {"PREDICTOR_SECRET": "not-to-be-guessed", "KEYS": key_and_line[1]}
    with play(convert(definition["taskDefinition"], secrets=secrets, settings=settings)) as started:
        yield started


def test_published_models_make_it_ready(running: Running, s3: S3) -> None:
    for model in MODELS:
        command = [
            str(ROOT / ".venv/bin/python"),
            "-m",
            "export",
            "publish",
            model,
            "--repository",
            "s3://models/nereid",
        ]
        subprocess.run(
            [*command, "--from", "model_repository"], cwd=ROOT, env=os.environ | s3.environment(), check=True
        )
    wait_for(lambda: get("/v2/health/ready") == 200, running)  # the load balancer's health check


@pytest.mark.usefixtures("running")
def test_image_gets_detections_with_a_key_alone(key_and_line: tuple[str, str]) -> None:
    assert predict().status_code == 401
    found = predict(key_and_line[0], "?confidence=0.9")
    assert [each["class"] for each in found.json()["predictions"]] == ["2", "7", "0"]


def test_health_checks_of_the_containers_pass(running: Running) -> None:
    for name, container in running.pod.containers.items():
        kind, *command = container["healthCheck"]["command"]
        assert kind == "CMD"
        podman("exec", f"{running.pod.name}-{name}", *command)


@pytest.mark.usefixtures("running")
def test_only_the_secret_loads_models() -> None:
    index = f"{TRITON}/v2/repository/index"
    assert httpx.post(index, trust_env=False).status_code == 403
    known = httpx.post(index, headers={"nereid": "not-to-be-guessed"}, trust_env=False)
    assert {each["name"] for each in known.json()} >= set(MODELS)


def test_containers_are_restricted(running: Running) -> None:
    for name in running.pod.containers:
        status = dict(line.split(":\t", 1) for line in running.read(name, "/proc/1/status").splitlines())
        assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4, name
        assert not any(int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd")), name
        assert running.inspect(name)["HostConfig"]["ReadonlyRootfs"], name


def test_transformer_has_no_secret_of_others(running: Running) -> None:
    variables = running.inspect("transformer")["Config"]["Env"]
    assert not [each for each in variables if "SECRET" in each or "KEYS=" in each]


def test_stop_finishes_accepted_requests(running: Running, key_and_line: tuple[str, str]) -> None:
    files: Any = [("image", IMAGE.read_bytes())] * MANY
    with ThreadPoolExecutor(1) as threads:
        accepted = threads.submit(predict, key_and_line[0], files=files)
        time.sleep(0.5)
        # In the reverse order of dependsOn.
        for name in ("transformer", "synchroniser", "triton"):
            timeout_s = running.pod.containers[name]["stopTimeout"]
            podman("stop", "--time", str(timeout_s), f"{running.pod.name}-{name}")
        assert accepted.result().status_code == 200, running.logs()
    codes = {name: running.inspect(name)["State"]["ExitCode"] for name in running.pod.containers}
    assert codes == dict.fromkeys(running.pod.containers, 0), running.logs()


def predict(key: str = "", query: str = "", *, files: Any = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = files or {"image": IMAGE.read_bytes()}
    return httpx.post(f"{URL}/predict/digit-finder{query}", files=body, headers=headers, trust_env=False, timeout=60)


def get(path: str) -> int:
    try:
        return httpx.get(f"{URL}{path}", trust_env=False).status_code
    except httpx.TransportError:
        return 0


def wait_for(condition: Callable[[], bool], running: Running) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, running.logs()
        time.sleep(0.1)
