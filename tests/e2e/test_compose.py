"""compose.yaml, run by podman-compose: started with nothing, served, swapped, crashed, stopped, and started again.

The tests are steps of one run, in this order. Differences from docker compose: the images of others are stand-ins
(tests/e2e/compose); healthchecks are run by the tests, since podman leaves that to systemd, and nothing waits for one.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console
from rich.table import Table

from loadtest.generator.load import Load, Plan
from tests.support.composed import (
    BIN,
    FILE,
    FOLDER,
    Composed,
    build_stand_ins,
    find_missing,
    left_behind,
    read_services,
)
from tests.support.dashboard import PANELS, queries_of
from tests.support.podman import podman
from tests.support.ports import find_free_ports
from tests.support.responded import versions
from tests.support.stack import PATIENCE_S, ROOT

IMAGE = ROOT / "loadtest" / "pictures" / "digits.jpg"
FOUND = ["2", "7", "0"]  # at a confidence of 0.9
MODELS = ("digit-finder", "digits", "iris")
VARIABLES = ("HTTP_PORT", "GRPC_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
SERVICES = read_services()
LASTING = [name for name in SERVICES if name != "models"]
START_S = 240.0
# Panels of which Kubernetes, a GPU, a queue worker, keys, a failure or a rejected version fills all or a part.
SILENT = {
    "Age of messages", "CPU", "From creation to ready", "GPU", "Loads, rejections and failures",
    "Mean of each step of a message", "Memory, of its limit", "Messages by outcome", "Pods that do not start", "Queue",
    "Rejected for their key, by route", "Rejected versions", "Replicas", "Replicas missing", "Requests by key",
    "Restarts", "Throttled at the limit of CPU",
}  # fmt: skip


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return dict(zip(VARIABLES, find_free_ports(len(VARIABLES)), strict=True))


@pytest.fixture(scope="module")
def composed(ports: dict[str, int]) -> Iterator[Composed]:
    if missing := find_missing():
        pytest.skip("; ".join(missing))
    build_stand_ins()
    running = Composed(ports)
    running.compose("build")
    try:
        yield running
    finally:
        running.compose("down", "--volumes")


@pytest.fixture(scope="module")
def client(ports: dict[str, int]) -> Iterator[httpx.Client]:
    # It keeps no connection: a container's stop would wait for it.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=base(ports, "HTTP_PORT"), trust_env=False, timeout=30, limits=limits) as opened:
        yield opened


@pytest.mark.skipif(
    not (BIN / "check-jsonschema").exists(), reason="needs .venv-compose: make .venv-compose/.installed"
)
@pytest.mark.parametrize(
    "file", [FILE, ROOT / "compose.gpu.yaml", FOLDER / "stand-ins.yaml"], ids=lambda file: file.name
)
def test_file_fits_the_schema_of_compose(file: Any, tmp_path: Any) -> None:
    plain = tmp_path / file.name
    plain.write_text(re.sub(".*: !reset null\n", "", file.read_text()))  # compose's own: it takes a key away
    checker = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", plain]
    run = subprocess.run(checker, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_first_start_publishes_and_serves(
    composed: Composed, client: httpx.Client, pytestconfig: pytest.Config
) -> None:
    table = start(composed, client, "First start: nothing published, no volumes")
    assert detected(client) == (FOUND, "1")
    show(pytestconfig, table)


def test_health_is_good(composed: Composed) -> None:
    for service in (name for name in LASTING if name != "pod"):
        # It prints that it fails until the service is ready.
        wait_for(partial(is_healthy, composed.name(service)), composed)


def test_containers_are_restricted(composed: Composed) -> None:
    for service in LASTING:
        found = inspect(composed, service)
        status = dict(
            line.split(":\t", 1)
            for line in podman("exec", composed.name(service), "cat", "/proc/1/status").splitlines()
        )
        user = SERVICES[service]["user"].split(":")[0]
        assert status["Uid"].split() == [user] * 4, service
        sets = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert not any(sets.values()), f"{service}: {sets}"
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), service
        assert found["HostConfig"]["ReadonlyRootfs"], service
        assert found["HostConfig"]["Memory"] > 0, service


def test_ports_are_published_on_loopback_alone(composed: Composed, ports: dict[str, int]) -> None:
    bindings = [
        (binding["HostIp"], int(binding["HostPort"]))
        for service in ("pod", "s3", "prometheus", "grafana")
        for of_port in inspect(composed, service)["HostConfig"]["PortBindings"].values()
        for binding in of_port or []
    ]
    assert sorted(bindings) == sorted(("127.0.0.1", port) for port in ports.values())


def test_bucket_is_in_another_network_than_prometheus_and_grafana(composed: Composed) -> None:
    def reaches(service: str, url: str) -> bool:
        program = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).status)"
        return podman("exec", composed.name(service), "python3", "-c", program, check=False) == "200"

    assert reaches("s3", "http://127.0.0.1:8333/healthz")
    # By its name; podman, unlike docker, passes packets between networks.
    assert not any(reaches(service, "http://s3:8333/healthz") for service in ("prometheus", "grafana"))
    # What Grafana does reach: the source that it is given.
    text = podman("exec", composed.name("grafana"), "cat", "/etc/grafana/provisioning/datasources/prometheus.yaml")
    (source,) = yaml.safe_load(text)["datasources"]
    assert reaches("grafana", f"{source['url']}/-/ready")


def test_swap_under_load_fails_no_request(composed: Composed, ports: dict[str, int]) -> None:
    http, grpc = (f"127.0.0.1:{ports[name]}" for name in ("HTTP_PORT", "GRPC_PORT"))
    with Load(Plan(http, grpc, "digit-finder", image_path=str(IMAGE), pause_s=0.05, timeout_s=30)) as under:
        assert under.wait_for_version("1", seconds=PATIENCE_S), composed.logs()
        composed.compose("run", "--rm", "models", "publish", "digit-finder", "--force", "--wait", "http://pod:8080")
        assert under.wait_for_version("2", seconds=PATIENCE_S), composed.logs()
        result = under.stop()
    assert not result.failures, result.failures[:3]
    assert versions(result) == ["1", "2"]


def test_prometheus_scrapes_all_and_no_alert_fires(composed: Composed, ports: dict[str, int]) -> None:
    with prometheus(ports) as api:
        wait_for(lambda: sorted(series["value"][1] for series in query(api, "up")) == ["1"] * 3, composed)
        assert {series["metric"]["container"] for series in query(api, "up")} == {
            "kserve-container", "synchroniser", "transformer-container",
        }  # fmt: skip
        wait_for(lambda: bool(query(api, 'nv_inference_request_success{model="digit-finder"} > 0')), composed)
        rules = yaml.safe_load((ROOT / "manifests" / "monitoring" / "prometheusrule.yaml").read_text())["spec"][
            "groups"
        ]
        evaluated = [rule for group in api.get("/rules").json()["data"]["groups"] for rule in group["rules"]]
        assert len(evaluated) == sum(len(group["rules"]) for group in rules)
        assert not [rule for rule in evaluated if rule["health"] == "err"]
        alerts = api.get("/alerts").json()["data"]["alerts"]
        assert not [alert for alert in alerts if alert["state"] == "firing"]


def test_panels_have_data(composed: Composed, client: httpx.Client, ports: dict[str, int]) -> None:
    empty: set[str] = set()

    def are_filled() -> bool:
        detected(client)  # a rate needs requests while Prometheus looks
        empty.clear()
        empty.update(panel["title"] for panel in PANELS for request in queries_of(panel) if not query(api, request))
        time.sleep(1)
        return empty <= SILENT

    with prometheus(ports) as api:
        try:
            wait_for(are_filled, composed)
        except AssertionError as exc:
            raise AssertionError(f"nothing of {sorted(empty - SILENT)}") from exc


@pytest.mark.parametrize("service", ["transformer", "synchroniser", "triton"])
def test_crash_is_survived(composed: Composed, client: httpx.Client, service: str) -> None:
    before = inspect(composed, service)["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: inspect(composed, service)["State"]["Pid"] not in {0, before}, composed)
    wait_for(
        lambda: responds(client, "/v2/health/ready") and responds(client, "/v2/models/digit-finder/ready"), composed
    )
    assert detected(client) == (FOUND, "2")


def test_memory(composed: Composed, pytestconfig: pytest.Config) -> None:
    table = Table("service", "memory", title="Memory of the containers, of their limits")
    for service in LASTING:
        table.add_row(service, podman("stats", "--no-stream", "--format", "{{.MemUsage}}", composed.name(service)))
    show(pytestconfig, table)


def test_second_start_has_what_was_published(
    composed: Composed, client: httpx.Client, pytestconfig: pytest.Config
) -> None:
    composed.compose("down")
    table = start(composed, client, "Second start: with its volumes")
    assert detected(client) == (FOUND, "2")
    show(pytestconfig, table)


def test_down_leaves_nothing(composed: Composed) -> None:
    assert left_behind()
    composed.compose("down", "--volumes")
    assert left_behind() == ""


def start(composed: Composed, client: httpx.Client, title: str) -> Table:
    """Start all, and measure until each model serves."""
    table = Table("phase", "seconds since the start", title=title)
    began = time.monotonic()
    composed.compose("up", "--detach")
    phases: dict[str, Callable[[], bool]] = {
        "containers started": lambda: True,
        "transformer listens": partial(responds, client, "/v2/health/live"),
        "transformer ready": partial(responds, client, "/v2/health/ready"),
        **{f"{model} serves": partial(responds, client, f"/v2/models/{model}/ready") for model in MODELS},
        "first response": lambda: responds(client, "/v2/models/digit-finder/ready") and bool(detected(client)),
    }
    while phases:
        assert time.monotonic() < began + START_S, composed.logs()
        for phase in [name for name, reached in phases.items() if reached()]:
            table.add_row(phase, f"{time.monotonic() - began:.1f}")
            del phases[phase]
        time.sleep(0.05)
    return table


def detected(client: httpx.Client) -> tuple[list[str], str]:
    """What is found in an image, and the version that found it."""
    image = {"image": IMAGE.read_bytes()}
    response = client.post("/predict/digit-finder?confidence=0.9", files=image).raise_for_status().json()
    return [found["class"] for found in response["predictions"]], response["model"]["version"]


def responds(client: httpx.Client, path: str) -> bool:
    """Whether an address has a response of 200."""
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def is_healthy(container: str) -> bool:
    """Whether a container's own check passes."""
    return podman("healthcheck", "run", container, check=False) == ""


def prometheus(ports: dict[str, int]) -> httpx.Client:
    """A client of Prometheus' API."""
    return httpx.Client(base_url=f"{base(ports, 'PROMETHEUS_PORT')}/api/v1", trust_env=False)


def query(api: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """Series that an expression gives now."""
    result: list[dict[str, Any]] = (
        api.get("/query", params={"query": expression}).raise_for_status().json()["data"]["result"]
    )
    return result


def base(ports: dict[str, int], variable: str) -> str:
    """The address of a published port."""
    return f"http://127.0.0.1:{ports[variable]}"


def inspect(composed: Composed, service: str) -> dict[str, Any]:
    """The result of `podman inspect`."""
    (found,) = yaml.safe_load(podman("inspect", composed.name(service)))
    return dict(found)


def wait_for(condition: Callable[[], bool], composed: Composed) -> None:
    """Wait until a condition holds; fail with the containers' logs when it does not in time."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, composed.logs()
        time.sleep(0.2)


def show(config: pytest.Config, what: Table) -> None:
    """Print past pytest's capture: the table is a purpose of the run."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        Console(width=110, highlight=False).print("", what, sep="\n")
