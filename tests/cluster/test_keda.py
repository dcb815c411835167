"""Scaling by Triton's queues: overlays/keda, with KEDA, Prometheus and the gateway of Standard mode.

The tests are steps of one run, in this order.
"""

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.kubectl import get, kubectl
from cluster.layout import ROOT
from tests.support import cluster
from tests.support.cluster import wait_for

IMAGE = ROOT / "loadtest/pictures/digits.jpg"
CLIENTS = 12


@pytest.fixture(scope="module", autouse=True)
def applied() -> Iterator[None]:
    needed = ("keda/keda-operator", "monitoring/prometheus", "envoy-gateway-system/envoy-gateway")
    if missing := cluster.find_missing(*needed):
        pytest.skip(missing)
    cluster.deploy("keda")
    yield
    kubectl("delete", "namespace", cluster.NAMESPACE, "--wait=false")


def test_kserve_configures_keda_with_both_queries() -> None:
    wait_for("the InferenceService", cluster.is_ready)
    scaled = get("scaledobject", "nereid-predictor", f"--namespace={cluster.NAMESPACE}")
    queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]
    assert "nv_inference_queue_duration_us" in queries[0]
    assert "nv_inference_pending_request_count" in queries[1]
    hpa = get("hpa", f"--namespace={cluster.NAMESPACE}")["items"]
    assert [each["spec"]["maxReplicas"] for each in hpa] == [scaled["spec"]["maxReplicaCount"]]


def test_queue_is_seen_by_the_autoscaler() -> None:
    wait_for("KEDA's metric", lambda: current() is not None, 120)


def test_queue_scales_up_and_no_request_fails() -> None:
    enough = threading.Event()
    url = f"{cluster.url()}/predict/digit-finder"
    with ThreadPoolExecutor(CLIENTS) as threads:
        runs = [threads.submit(request_until, enough, url) for _ in range(CLIENTS)]
        try:
            wait_for("a second pod", lambda: replicas() > 1, 100)
        finally:
            enough.set()
        codes = [code for run in runs for code in run.result()]
    # A full pod responds with 429 and Retry-After.
    assert set(codes) <= {200, 429}
    assert codes.count(200) > 20


def request_until(enough: threading.Event, url: str) -> list[int]:
    """Statuses of requests in sequence until a condition holds."""
    codes: list[int] = []
    while not enough.wait(0.01 if codes[-1:] == [200] else 0.2):
        codes.append(status_code(url))
    return codes


def status_code(url: str) -> int:
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "60", "-F", f"image=@{IMAGE}"]
    run = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    return int(run.stdout or 0)


def current() -> object:
    """The HPA's value of the first query; None before the first one."""
    (hpa,) = get("hpa", f"--namespace={cluster.NAMESPACE}")["items"]
    readings = hpa.get("status", {}).get("currentMetrics") or []
    return readings[0].get("external", {}).get("current") if readings else None


def replicas() -> int:
    return int(get("deployment", "nereid-predictor", f"--namespace={cluster.NAMESPACE}")["spec"]["replicas"])
