"""The pod of the manifests, run by podman: started with an empty bucket, served, swapped, stopped, and started again.

The tests are steps of one run, in this order; tests/support/pod.py lists the differences from a cluster.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from rich.table import Table

from loadtest.generator.load import Load, Plan
from tests.manifests.rendering import with_components
from tests.support.machine import find_missing
from tests.support.pod import Pod, convert, render
from tests.support.podman import Running, build_images, play, show
from tests.support.responded import stale, versions
from tests.support.s3 import S3, start_s3
from tests.support.stack import PATIENCE_S, ROOT

OVERLAY = Path(os.environ.get("E2E_OVERLAY") or ROOT / "manifests" / "overlays" / "standard")
URL = "http://127.0.0.1:8080"
SYNC = "http://127.0.0.1:8003"
TRITON = "http://127.0.0.1:8000"
METRICS = "http://127.0.0.1:8002"
MODELS = ("digit-finder", "digits", "iris")
IMAGES = ROOT / "loadtest" / "pictures"
FOUND = ["2", "7", "0"]  # in digits.jpg, at a confidence of 0.9
USER = "10001"
START_S = 120.0
EMPTY_S = 15.0  # longer than the interval between two listings
MANY = 48  # images in one request, so that it takes a while


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("pod") / "s3.log") as server:
        yield server


@pytest.fixture(scope="module")
def pod(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    secrets = {
        "nereid-triton": {"secret": "not-to-be-guessed"},
        "nereid-s3": {key: s3.environment()[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    }
    composed = compose(OVERLAY, tmp_path_factory.mktemp("overlay"))
    return convert(render(composed), settings={"AWS_ENDPOINT_URL": s3.url}, secrets=secrets)


@pytest.fixture(scope="module")
def repository(pod: Pod) -> str:
    (configmap,) = (document for document in pod.documents if document["kind"] == "ConfigMap")
    return str(configmap["data"]["PREDICTOR_REPOSITORY"])


@pytest.fixture(scope="module")
def running(pod: Pod, pytestconfig: pytest.Config) -> Iterator[Running]:
    if missing := find_missing():
        pytest.skip("; ".join(missing))
    show(pytestconfig, build_images())
    with play(pod) as started:
        yield started


def test_pod_is_not_ready_while_the_bucket_is_empty(running: Running) -> None:
    wait_for(lambda: get("/v2/health/live") == 200, running)
    until = time.monotonic() + EMPTY_S
    while time.monotonic() < until:
        assert get(readiness(running)) == 503
        time.sleep(0.5)
    assert "s3://" in httpx.get(f"{SYNC}/ready", trust_env=False).json()["waiting_for"]
    # Triton itself is ready, by the manifest's exec probe.
    assert httpx.get(f"{TRITON}/v2/health/live", trust_env=False).status_code == 200


def test_first_publish_makes_it_ready(running: Running, s3: S3, repository: str) -> None:
    for model in MODELS:
        publish(s3, model, repository)
    wait_for(lambda: get(readiness(running)) == 200, running)
    wait_for(lambda: all(get(f"/v2/models/{model}/ready") == 200 for model in MODELS), running)


@pytest.mark.usefixtures("running")
def test_curl_gets_detections() -> None:
    command = ["curl", "-sS", "--noproxy", "*", "-F", f"image=@{IMAGES / 'digits.jpg'}"]
    run = subprocess.run(
        [*command, f"{URL}/predict/digit-finder?confidence=0.9"], capture_output=True, check=True, timeout=60
    )
    assert [found["class"] for found in json.loads(run.stdout)["predictions"]] == FOUND


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_gets_detections(protocol: str) -> None:
    module: Any = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    address = {"http": "127.0.0.1:8080", "grpc": "127.0.0.1:8081"}[protocol]
    image = module.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([(IMAGES / "digits.jpg").read_bytes()], object))
    with module.InferenceServerClient(address) as client:
        result = client.infer("digit-finder", [image], parameters={"confidence": 0.9})
    assert result.as_numpy("class_ids").tolist() == [[int(name) for name in FOUND]]


@pytest.mark.usefixtures("running")
def test_metrics_of_triton_are_served_by_the_synchroniser() -> None:
    scraped = httpx.get(f"{METRICS}/metrics", trust_env=False)
    assert 'nv_inference_request_success{model="digit-finder"' in scraped.text
    # Nothing else of Triton is at the pod's address, where Prometheus comes to.
    assert {httpx.get(f"{METRICS}{path}", trust_env=False).status_code for path in ("/", "/v2/health/live")} == {404}
    listening = {address.rpartition(":")[0] for address in listeners() if address.endswith((":8000", ":8001", ":8004"))}
    assert listening == {"127.0.0.1", "[::ffff:127.0.0.1]"}  # the second is gRPC's form of the first


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/models/iris/stats", "/v2/logging"])
def test_triton_rejects_restricted_calls(path: str) -> None:
    method = "POST" if path.endswith("index") else "GET"
    response = httpx.request(method, f"{TRITON}{path}", trust_env=False)
    assert response.status_code == 403, response.text


def test_swap_under_load_fails_no_request(running: Running, s3: S3, repository: str) -> None:
    with load() as under:
        assert under.wait_for_version("1", seconds=PATIENCE_S), running.logs()
        publish(s3, "digit-finder", repository, "--force")  # the same model as a new version
        assert under.wait_for_version("2", seconds=START_S), running.logs()
        time.sleep(2)  # the old one is unloaded
        result = under.stop()
    assert not result.failures, result.failures[:3]
    assert (versions(result), stale(result)) == (["1", "2"], [])
    assert len(result.responses) > 20


def test_containers_are_restricted(running: Running) -> None:
    for name, container in running.pod.containers.items():
        status = dict(line.split(":\t", 1) for line in running.read(name, "/proc/1/status").splitlines())
        assert status["Uid"].split() == status["Gid"].split() == [USER] * 4, name
        sets = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert not any(sets.values()), f"{name}: {sets}"
        assert status["NoNewPrivs"] == "1", name
        assert status["Seccomp"] == "2", f"{name}: no filter of system calls"
        host = running.inspect(name)["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["Memory"] == bytes_of(container["resources"]["limits"]["memory"]), name
        mounts = {mount["Destination"]: mount["RW"] for mount in running.inspect(name)["Mounts"]}
        wanted = {mount["mountPath"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert mounts == wanted, name


def test_stop_under_load_finishes_accepted_requests(running: Running) -> None:
    images = [("image", (IMAGES / "digits.jpg").read_bytes())] * MANY
    with load() as under, ThreadPoolExecutor(3) as threads, httpx.Client(trust_env=False, timeout=60) as client:
        assert under.wait_for(lambda each: not each.error, seconds=PATIENCE_S)
        began = time.monotonic()
        stopping = threads.submit(running.stop)
        # The gateway removes the pod at the same time; until then requests still arrive. This is one of them.
        time.sleep(max(0.0, transformer_pause_s(running) - 0.5))
        accepted = [threads.submit(client.post, f"{URL}/predict/digit-finder", files=images) for _ in range(2)]
        for response in accepted:
            assert response.result().status_code == 200, f"{response.result().text}\n{running.logs()}"
            assert len(response.result().json()) == MANY
        codes = stopping.result()
        seconds = time.monotonic() - began
        result = under.stop()
    assert codes == dict.fromkeys(running.pod.containers, 0), running.logs()
    assert seconds < running.pod.grace_s
    # Later requests found no listener; no accepted request failed.
    failed = [failure for failure in result.failures if failure.status not in {"", "UNAVAILABLE"}]
    assert not failed, failed[:3]
    assert not get("/v2/health/live")


def test_nothing_was_written_outside_the_volumes(running: Running) -> None:
    for name in running.pod.containers:
        assert running.written(name) == [], name


@pytest.mark.usefixtures("running")
def test_cold_start_with_a_full_bucket(pod: Pod, pytestconfig: pytest.Config) -> None:
    # The volumes of the first pod are removed with it: this one starts from the bucket.
    phases: dict[str, Callable[[], bool]] = {
        "synchroniser listens": lambda: get("/status", SYNC) == 200,
        "Triton listens": lambda: get("/v2/health/live", TRITON) == 200,
        **{f"{model} serves": partial(responds_to, f"{TRITON}/v2/models/{model}/ready") for model in MODELS},
        "transformer listens": lambda: get("/v2/health/live") == 200,
        "models loaded": lambda: get("/ready", SYNC) == 200,
        "transformer ready": lambda: get("/v2/health/ready") == 200,
        "first response": responds,
    }
    table = Table("phase", "seconds since the start", title="Cold start of the pod")
    began = time.monotonic()
    with play(pod) as again:
        table.add_row("containers started", f"{time.monotonic() - began:.1f}")
        while phases:
            assert time.monotonic() < began + START_S, again.logs()
            for phase in [name for name, reached in phases.items() if reached()]:
                table.add_row(phase, f"{time.monotonic() - began:.1f}")
                del phases[phase]
            time.sleep(0.01)
        # Without a request too.
        assert again.stop() == dict.fromkeys(pod.containers, 0)
    show(pytestconfig, table)


def compose(overlay: Path, folder: Path) -> Path:
    """An overlay of a user: Triton is the image of `make images`."""
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "nereid"}
    resources = [os.path.relpath(overlay, folder.resolve())]
    composed = {**head, "resources": resources, **with_components(folder, "cpu-triton")}
    (folder / "kustomization.yaml").write_text(json.dumps(composed))
    return folder


def publish(s3: S3, model: str, repository: str, *options: str) -> None:
    """Publish a version like `make publish`."""
    command = [str(ROOT / ".venv/bin/python"), "-m", "export", "publish", model, "--repository", repository, *options]
    run = subprocess.run(
        [*command, "--from", "model_repository", "--wait", URL, "--timeout", str(START_S)],
        cwd=ROOT,
        env=os.environ | s3.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def load() -> Load:
    """Load of an image over four connections, all protocols."""
    image = str(IMAGES / "digits.jpg")
    return Load(Plan("127.0.0.1:8080", "127.0.0.1:8081", "digit-finder", image_path=image, pause_s=0.01, timeout_s=30))


def get(path: str, base: str = URL) -> int:
    """The status of a response; 0 without one."""
    try:
        return client().get(f"{base}{path}").status_code
    except httpx.TransportError:
        return 0


@cache
def client() -> httpx.Client:
    """For many requests: one for each would take more CPU than the servers that it waits for.

    It keeps no connection: Triton's stop would wait for it.
    """
    return httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


def responds_to(url: str) -> bool:
    """Whether a server has 200 for an address."""
    return get("", url) == 200


def responds() -> bool:
    """Whether an image gets a response."""
    try:
        image = {"image": (IMAGES / "digits.jpg").read_bytes()}
        return client().post(f"{URL}/predict/digit-finder", files=image).is_success
    except httpx.TransportError:
        return False


def listeners() -> set[str]:
    """Addresses with ports on which anything of this machine listens."""
    run = subprocess.run(["ss", "--listening", "--tcp", "--numeric", "--no-header"], capture_output=True, check=True)
    return {line.split()[3] for line in run.stdout.decode().splitlines()}


def readiness(running: Running) -> str:
    """The path of the readiness probe."""
    probe = running.pod.containers["transformer-container"]["readinessProbe"]["httpGet"]
    assert probe["port"] == 8080
    return str(probe["path"])


def transformer_pause_s(running: Running) -> float:
    """The seconds of its preStop."""
    before = running.pod.containers["transformer-container"].get("lifecycle", {}).get("preStop")
    return float(before["exec"]["command"][-1]) if before else 0.0


def bytes_of(quantity: str) -> int:
    """Bytes of Kubernetes' notation."""
    return int(quantity[:-2]) * {"Mi": 2**20, "Gi": 2**30}[quantity[-2:]]


def wait_for(condition: Callable[[], bool], running: Running) -> None:
    """Wait until a condition holds; fail with the pod's logs when it does not in time."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, running.logs()
        time.sleep(0.1)
