"""The overlays without KServe on the cluster: three pods, a rolling update, and blue/green.

The tests are steps of one run, in this order: `python -m cluster exec -- pytest tests/cluster/test_plain.py`.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.kubectl import apply as apply_objects
from cluster.kubectl import get, kubectl
from cluster.layout import CONTROL, ROOT
from loadtest.generator.responses import Result
from tests.support import cluster
from tests.support.pod_faults import (
    IMAGES,
    Figures,
    began,
    load,
    name_of,
    outage,
    ready_pods,
    summary,
    timed,
    wait_for_pods,
)

REPOSITORY = "s3://models/nereid"
OVERLAYS = ROOT / "manifests" / "overlays" / "plain"
NAMESPACE = f"--namespace={cluster.NAMESPACE}"
FOUND = ["2", "7", "0"]  # in digits.jpg, at a confidence of 0.9
START_S = 300.0
# In place of an Ingress, for a cluster with a Gateway and no Ingress controller.
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
    "metadata": {"name": "vision", "namespace": cluster.NAMESPACE},
    "spec": {
        "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
        "hostnames": ["vision.example.com"],
        "rules": [{"backendRefs": [{"name": "nereid", "port": 80}]}],
    },
}  # fmt: skip
HOST = "vision.example.com"
URL = f"http://{HOST}"


@pytest.fixture(scope="module")
def figures(pytestconfig: pytest.Config) -> Iterator[Figures]:
    seen = Figures("Without KServe on the cluster")
    yield seen
    seen.show(pytestconfig)


@pytest.fixture(scope="module")
def deployment(fresh: None, figures: Figures) -> None:  # noqa: ARG001 - the namespace has to be there
    """Three pods of `overlays/plain`, with a route to their Service."""
    with timed() as seconds:
        cluster.make("publish", MODEL="digit-finder", REPOSITORY=REPOSITORY)
        figures.add("deploy", "published after", seconds())
        cluster.apply("plain")
        apply_objects([ROUTE])
        kubectl("rollout", "status", "deployment/nereid", NAMESPACE, "--timeout=300s")
        figures.add("deploy", "rolled out, one pod, after", seconds())
        wait_for_pods(3, START_S)
        figures.add("deploy", "three pods of the HPA ready after", seconds())


def classes(url: str) -> list[str]:
    """Classes that are detected in the image."""
    return [found["class"] for found in predict(url)["predictions"]]


def is_open(url: str) -> bool:
    return (
        subprocess.run(["curl", "-sS", "-m", "5", "-o", "/dev/null", url], capture_output=True, check=False).returncode
        == 0
    )


def predict(url: str) -> Any:
    command = ["curl", "-sS", "-m", "60", "-F", f"image=@{IMAGES / 'digits.jpg'}"]
    run = subprocess.run(
        [*command, f"{url}/predict/digit-finder?confidence=0.9"], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.mark.usefixtures("deployment")
def test_image_gets_a_response_through_the_service(figures: Figures) -> None:
    cluster.wait_for("the route", lambda: "predictions" in predict(URL), 30)
    assert classes(URL) == FOUND
    assert get("hpa", "nereid", NAMESPACE)["spec"]["minReplicas"] == 3
    figures.add("Service", "curl by a route of the gateway", "200")


@pytest.mark.usefixtures("deployment")
def test_rolling_update_under_load_fails_no_request(figures: Figures) -> None:
    before = {name_of(each) for each in ready_pods()}
    with load(HOST, f"{HOST}:80", kinds=("predict", "v2")) as under, timed() as seconds:
        began(under)
        kubectl("set", "env", "deployment/nereid", NAMESPACE, "--containers=synchroniser", "PREDICTOR_POLL_S=9")
        kubectl("rollout", "status", "deployment/nereid", NAMESPACE, "--timeout=300s")
        figures.add("rolling update", "rolled out after", seconds())
        cluster.wait_for("the old pods' end", lambda: not before & {name_of(each) for each in cluster.pods()}, 120)
        figures.add("rolling update", "the old pods are removed after", seconds())
        time.sleep(3)
        result = under.stop()
    report(figures, "rolling update, 3 pods", result)


def report(figures: Figures, step: str, result: Result) -> None:
    """The figures of a load under which no request may fail."""
    figures.add(step, "under load", summary(result))
    assert not result.failures, (outage(result), result.failures[:3])


@pytest.mark.usefixtures("deployment")
def test_pods_follow_the_load(figures: Figures) -> None:
    """With a target below the manifest's 70 %, which pods do not reach on shared cores."""
    wait_for_pods(3, START_S)
    cluster.apply("plain", with_low_target)
    with load(HOST, f"{HOST}:80", kinds=("predict", "v2"), connections=6, pause_s=0.0) as under, timed() as seconds:
        began(under)
        cluster.wait_for("a fourth pod", lambda: len(cluster.pods()) > 3, 180)
        figures.add("HPA", "a fourth pod is created after", seconds())
        result = under.stop()
    report(figures, "HPA, up", result)


def with_low_target(documents: list[Any]) -> list[Any]:
    """A target of 15 % of the requests."""
    for each in documents:
        if each["kind"] == "HorizontalPodAutoscaler":
            each["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 15
    return documents


@pytest.mark.usefixtures("deployment")
def test_node_port_serves_at_every_node(figures: Figures) -> None:
    cluster.apply(OVERLAYS / "nodeport", at_home)
    kubectl("rollout", "status", "deployment/nereid", NAMESPACE, "--timeout=300s")
    for address in ("10.240.0.11", "10.240.0.12"):
        assert classes(f"http://{address}:30080") == FOUND
    with load("10.240.0.11:30080", "10.240.0.12:30081") as under:
        began(under)
        time.sleep(5)
        result = under.stop()
    report(figures, "NodePort, REST and gRPC", result)


@pytest.mark.usefixtures("deployment")
def test_load_balancer_serves_at_its_address(figures: Figures) -> None:
    def with_address(documents: list[Any]) -> list[Any]:
        for each in cluster.at_home(documents):  # with three pods: only nodes with a pod respond (`Local`)
            if each["kind"] == "Service":  # in place of a cloud's controller
                each["spec"]["externalIPs"] = ["10.240.1.9"]
        return documents

    cluster.apply(OVERLAYS / "loadbalancer", with_address)
    kubectl("rollout", "status", "deployment/nereid", NAMESPACE, "--timeout=300s")
    cluster.wait_for(
        "a pod on the node that the address leads to",
        lambda: CONTROL.name in {each["spec"]["nodeName"] for each in ready_pods()},
        180,
    )
    # kube-proxy adds a new address a moment later.
    cluster.wait_for("the address", lambda: is_open("http://10.240.1.9"), 30)
    assert classes("http://10.240.1.9") == FOUND
    figures.add("LoadBalancer", "curl at its address", "200")


def at_home(documents: list[Any]) -> list[Any]:
    """One pod for each Deployment: two cores have room for two colours."""
    for each in cluster.at_home(documents):
        if each["kind"] == "HorizontalPodAutoscaler":
            each["spec"] |= {"minReplicas": 1, "maxReplicas": 1}
    return documents


@pytest.mark.usefixtures("deployment")
def test_blue_and_green_are_switched_under_load(figures: Figures) -> None:
    kubectl("delete", "deployment,hpa,pdb", "--all", NAMESPACE)
    cluster.wait_for("no pods", lambda: not cluster.pods(), 150)
    everything = cluster.render(OVERLAYS / "blue-green")
    cluster.make(
        "publish", MODEL="digit-finder", REPOSITORY=REPOSITORY, FORCE="1"
    )  # version 2, which blue does not load
    with timed() as seconds:
        cluster.apply(OVERLAYS / "blue-green", at_home)
        for color in ("blue", "green"):
            kubectl("rollout", "status", f"deployment/nereid-{color}", NAMESPACE, "--timeout=300s")
        figures.add("blue and green", "both ready after", seconds())
    assert "nereid-green" in everything
    cluster.wait_for("blue", lambda: predict(URL).get("model", {}).get("version") == "1", 30)
    with load(HOST, f"{HOST}:80", kinds=("predict", "v2")) as under:
        assert under.wait_for_version("1", seconds=60)
        switch("green")
        since = time.monotonic()
        first = under.wait_for(lambda one: one.version == "2", seconds=60)
        assert first
        figures.add("blue and green", "first response of green after the switch", first.ended - since)
        time.sleep(5)
        switch("blue")
        since = time.monotonic()
        back = under.wait_for(lambda one: one.version == "1" and one.started > since, seconds=60)
        assert back
        figures.add("blue and green", "first response of blue after the switch back", back.ended - since)
        time.sleep(5)
        result = under.stop()
    last = result.responses[-20:]
    assert {each.version for each in last} == {"1"}
    report(figures, "blue and green, two switches", result)


def switch(color: str) -> None:
    """Switch the colour as in manifests/README.md."""
    patch = json.dumps({"spec": {"selector": {"color": color}}})
    kubectl("patch", "service", "nereid", NAMESPACE, "--patch", patch)
