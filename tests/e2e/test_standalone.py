"""The image `standalone` in podman, as SageMaker runs it, and as `docker run` does without an argument."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.table import Table

from containers.build import version
from tests.support.machine import find_missing_programs
from tests.support.podman import build_images, podman, show
from tests.support.ports import find_free_ports
from tests.support.sagemaker import ENDPOINT, open_endpoint
from tests.support.stack import ROOT
from transformer.rest.sagemaker import ATTRIBUTES

# Of another build: E2E_STANDALONE=<name>:<tag>.
IMAGE = os.environ.get("E2E_STANDALONE") or f"nereid/standalone:{version()}"
DIGITS = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
MODELS = ("digit-finder", "digits", "iris")
SHIPPED = (*MODELS, "digit-outlines", "digit-strokes", "tilted-digits", "digit-classes")
# Of Docker, unlike podman's: without a mount of its own Triton has the container's /dev/shm, of 64 MB.
SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["unshare", "mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}
FINDER = {"Content-Type": "image/jpeg", ATTRIBUTES: "model=digit-finder,confidence=0.9"}
FOUND = ["2", "7", "0"]
START_S = 180.0
PING_S = 2.0  # SageMaker's
KILL_S = 30.0  # after SIGTERM, SageMaker's
MANY = 48  # images in one request, so that it takes a while


@dataclass(frozen=True)
class Container:
    """A container that runs in the network of this machine.

    Attributes:
        name: in podman.
        url: of its HTTP.
        began: monotonic time of `podman run`.
    """

    name: str
    url: str
    began: float

    def logs(self) -> str:
        """All that it wrote."""
        command = ["podman", "logs", self.name]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def wait_until_ready(self) -> None:
        """Ping it until it is ready; SageMaker takes a ping that comes too early, or too late, for a failed one."""
        while time.monotonic() < self.began + START_S:
            with suppress(httpx.TransportError):
                if (status := httpx.get(f"{self.url}/ping", trust_env=False, timeout=PING_S).status_code) == 200:
                    return
                assert status == 503
            assert podman("inspect", "--format", "{{.State.Running}}", self.name) == "true", self.logs()
            time.sleep(0.2)
        raise AssertionError(self.logs())


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    if missing := find_missing_programs():
        pytest.skip("; ".join(missing))
    if "E2E_STANDALONE" not in os.environ:
        build_images("--only", "standalone")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("unpacked"), *MODELS)


def unpack(folder: Path, *models: str) -> Path:
    """Copy models to a folder that every user can read, as SageMaker's is."""
    for model in models:
        shutil.copytree(ROOT / "model_repository" / model, folder / model)
    for path in (folder.parent, folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@contextmanager
def run(*words: str, options: tuple[str, ...] = (), ports: dict[str, str] | None = None) -> Iterator[Container]:
    """Run the image; nothing but /tmp can be written.

    Args:
        words: arguments of the container.
        options: of `podman run`.
        ports: variables with the container's ports, HTTP_PORT or SAGEMAKER_BIND_TO_PORT first; several containers share
            the network of an instance of SageMaker like that.
    """
    first, last = find_range()
    ports = ports or {"SAGEMAKER_BIND_TO_PORT": str(first), "SAGEMAKER_SAFE_PORT_RANGE": f"{first}-{last}"}
    variables = [word for name, value in ports.items() for word in ("--env", f"{name}={value}")]
    name = f"nereid-standalone-{os.getpid()}"
    began = time.monotonic()
    podman("run", "--detach", "--name", name, "--network", "host", "--read-only", *variables, *options, IMAGE, *words)
    try:
        yield Container(name, f"http://127.0.0.1:{next(iter(ports.values()))}", began)
    finally:
        podman("rm", "--force", "--time", "0", name)


def find_range() -> tuple[int, int]:
    """The first and the last of six ports, one after the other, on which nothing listens."""
    while True:
        (first,) = find_free_ports(1)
        with ExitStack() as probes, suppress(OSError):
            for port in range(first, first + 6):
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            return first, first + 5


def mounted(folder: Path) -> tuple[str, ...]:
    """Options of `podman run` for what SageMaker unpacked."""
    return ("--volume", f"{folder}:/opt/ml/model:ro")


@pytest.mark.parametrize("user", ["10001:10001", "0:0"], ids=["user", "root"])
def test_container_keeps_sagemakers_contract(tmp_path: Path, user: str) -> None:
    (tmp_path / "seccomp.json").write_text(json.dumps(SECCOMP))
    repository = unpack(tmp_path / "model", *SHIPPED)
    options = ("--user", user, "--security-opt", f"seccomp={tmp_path}/seccomp.json", *mounted(repository))
    with run("serve", options=options) as container:
        container.wait_until_ready()
        with open_endpoint(container.url) as runtime:
            found = invoke(runtime, DIGITS, "image/jpeg", "model=digit-finder,confidence=0.9")
            assert b'"class":"2"' in found["Body"].read()
            assert found["CustomAttributes"].startswith("model=digit-finder,version=")
            for model in set(SHIPPED) - {"iris"}:
                invoke(runtime, DIGITS, "image/jpeg", f"model={model}")
            rows = invoke(runtime, b'{"instances": [[6.3, 3.3, 6.0, 2.5]]}', "application/json", "model=iris")
            assert b"virginica" in rows["Body"].read()
        files = [("image", DIGITS)] * MANY
        with ThreadPoolExecutor(1) as threads:
            attributes = {ATTRIBUTES: FINDER[ATTRIBUTES]}
            url = f"{container.url}/invocations"
            last = threads.submit(httpx.post, url, files=files, headers=attributes, trust_env=False, timeout=60)
            time.sleep(0.3)
            began = time.monotonic()
            podman("kill", "--signal", "TERM", container.name)
            status = podman("wait", container.name)
            seconds = time.monotonic() - began
            assert last.result().status_code == 200, f"{last.result().text}\n{container.logs()}"
        assert len(last.result().json()) == MANY
        assert (status, seconds < KILL_S) == ("0", True), container.logs()
        logs = container.logs()
        assert "synchroniser digits: version" in logs
        assert "successfully loaded 'digits'" in logs
        assert "POST /invocations 200" in logs


def test_container_without_an_argument_serves_what_is_mounted(repository: Path) -> None:
    first, _ = find_range()
    names = ("HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")
    ports = {name: str(first + number) for number, name in enumerate(names)}
    options = ("--env", "REPOSITORY=/models", "--volume", f"{repository}:/models:ro")
    with (
        run(options=options, ports=ports) as container,
        httpx.Client(base_url=container.url, trust_env=False) as client,
    ):
        until = time.monotonic() + START_S
        while time.monotonic() < until and not is_ready(client):
            time.sleep(0.1)
        response = client.post("/predict/digit-finder?confidence=0.9", files={"image": DIGITS})
        assert [each["class"] for each in response.json()["predictions"]] == FOUND, container.logs()
        assert client.get("/ping").status_code == 404


def test_container_ends_where_what_was_unpacked_is_no_repository(tmp_path: Path) -> None:
    unpack(tmp_path / "model_repository", "iris")
    tmp_path.parent.chmod(0o755)
    with run("serve", options=mounted(tmp_path)) as container:
        assert podman("wait", container.name) == "1"
        said = podman_stderr(container.name)
        assert "got the models below model_repository/, expected them here" in said


def test_container_ends_with_a_part_that_cannot_be_kept_alive(repository: Path) -> None:
    with run("serve", options=("--env", "PREDICTOR_VENV=/nowhere", *mounted(repository))) as container:
        assert podman("wait", container.name) == "1"
        assert "error: triton died again and again within seconds of its start" in podman_stderr(container.name)


def test_figures_of_the_container(repository: Path, pytestconfig: pytest.Config) -> None:
    table = Table("figure", "value", title="The container, with three models")
    table.add_row("image, MB", f"{int(podman('image', 'inspect', '--format', '{{.Size}}', IMAGE)) / 1e6:.0f}")
    with run("serve", options=mounted(repository)) as container, httpx.Client(trust_env=False, timeout=60) as client:
        container.wait_until_ready()
        table.add_row("ready after, s", f"{time.monotonic() - container.began:.1f}")
        urls = {"/invocations": FINDER, "/predict/digit-finder?confidence=0.9": {"Content-Type": "image/jpeg"}}
        ms: dict[str, list[float]] = {url: [] for url in urls}
        for number in range(200):
            for url, headers in urls.items():
                began = time.monotonic()
                assert client.post(container.url + url, content=DIGITS, headers=headers).is_success, container.logs()
                ms[url].append((time.monotonic() - began) * 1000)
                if not number and url == "/invocations":
                    table.add_row("first response after, s", f"{time.monotonic() - container.began:.1f}")
        for url, each in ms.items():
            table.add_row(f"p50 of POST {url.partition('?')[0]}, ms", f"{statistics.median(each[20:]):.1f}")
        memory = podman("stats", "--no-stream", "--format", "{{.MemUsage}}", container.name)
        table.add_row("memory", memory.partition(" /")[0])
    show(pytestconfig, table)


def invoke(runtime: Any, body: bytes, content_type: str, attributes: str) -> Any:
    """A request by AWS's client."""
    return runtime.invoke_endpoint(
        EndpointName=ENDPOINT, Body=body, ContentType=content_type, CustomAttributes=attributes
    )


def is_ready(client: httpx.Client) -> bool:
    """Whether it serves."""
    try:
        return client.get("/v2/health/ready").is_success
    except httpx.TransportError:
        return False


def podman_stderr(name: str) -> str:
    """What a container wrote to standard error."""
    return subprocess.run(["podman", "logs", name], capture_output=True, text=True, check=True).stderr
