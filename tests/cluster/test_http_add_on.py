"""Scaling to zero without Knative: overlays/http-add-on behind the interceptor of KEDA's HTTP add-on.

The tests are steps of one run, in this order.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from rich.table import Table

from cluster.kubectl import kubectl
from cluster.layout import ROOT
from tests.support import cluster
from tests.support.cluster import wait_for

URL = "http://nereid.scaled.example.com:8080"
IMAGE = ROOT / "loadtest/pictures/digits.jpg"
STARTS = 3
BURST = 20


@pytest.fixture(scope="module", autouse=True)
def applied() -> Iterator[None]:
    if missing := cluster.find_missing("keda/keda-operator", "keda/keda-add-ons-http-interceptor"):
        pytest.skip(missing)
    cluster.deploy("http-add-on")
    yield
    kubectl("delete", "namespace", cluster.NAMESPACE, "--wait=false")


def test_first_pod_serves() -> None:
    wait_for("a pod that is ready", lambda: ready() == 1)
    assert [each["class"] for each in detect()["predictions"]] == ["2", "7", "0"]


def test_idle_time_scales_to_zero() -> None:
    wait_for("no pod", lambda: not cluster.pods())


def test_request_to_zero_pods_succeeds(pytestconfig: pytest.Config) -> None:
    seconds = []
    for _ in range(STARTS):
        wait_for("no pod", lambda: not cluster.pods())
        began = time.monotonic()
        assert detect()["predictions"]
        seconds.append(time.monotonic() - began)
    table = Table("a request to zero pods", "seconds")
    table.add_row(f"response, median of {STARTS}", f"{statistics.median(seconds):.1f}")
    table.add_row("all", ", ".join(f"{each:.1f}" for each in seconds))
    show(pytestconfig, table)


def test_burst_to_zero_pods_succeeds(pytestconfig: pytest.Config) -> None:
    wait_for("no pod", lambda: not cluster.pods())
    began = time.monotonic()
    with ThreadPoolExecutor(BURST) as threads:
        codes = list(threads.map(lambda _: status_code(), range(BURST)))
    assert codes == [200] * BURST
    show(pytestconfig, f"{BURST} requests to zero pods: all succeeded after {time.monotonic() - began:.1f} s")


def test_concurrency_scales_up_and_idle_time_down() -> None:
    until = time.monotonic() + 60
    with ThreadPoolExecutor(8) as threads:
        runs = [threads.submit(request_until, until) for _ in range(8)]
        wait_for("a second pod", lambda: ready() > 1, 60)
        failures = [failure for run in runs for failure in run.result()]
    assert not failures
    wait_for("no pod", lambda: not cluster.pods())


def request_until(end: float) -> list[int]:
    """Statuses of failed requests until a condition holds."""
    codes = []
    while time.monotonic() < end:
        codes.append(status_code())
        time.sleep(0.01 if codes[-1] == 200 else 1)  # the value of Retry-After
    # A full pod responds with 429 and Retry-After.
    return [code for code in codes if code not in {200, 429}]


def detect() -> dict[str, list[dict[str, str]]]:
    """Send an image by curl."""
    command = ["curl", "-sS", "-m", "120", "-F", f"image=@{IMAGE}", f"{URL}/predict/digit-finder?confidence=0.9"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def status_code() -> int:
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "120", "-F", f"image=@{IMAGE}"]
    run = subprocess.run([*command, f"{URL}/predict/digit-finder"], capture_output=True, text=True, check=False)
    return int(run.stdout or 0)


def ready() -> int:
    """Number of ready pods."""
    conditions = [each for pod in cluster.pods() for each in pod["status"].get("conditions", [])]
    return sum(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def show(config: pytest.Config, what: Table | str) -> None:
    """Print past pytest's capture: the figures are a purpose of the run."""
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture
    with capture.global_and_fixture_disabled():
        Console(width=110, highlight=False).print("", what, sep="\n")
