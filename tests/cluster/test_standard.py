"""Standard mode on the cluster: from an empty cluster to a detection, and faults of its pods.

The tests are steps of one run, in this order: `python -m cluster exec -- pytest tests/cluster/test_standard.py`.
"""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tritonclient.grpc

from cluster.kubectl import get, kubectl
from cluster.layout import ROOT, ClusterError
from loadtest.generator.load import Load
from loadtest.generator.responses import Response
from tests.support import cluster
from tests.support.pages import read_examples
from tests.support.pod_faults import (
    IMAGES,
    Figures,
    Watch,
    began,
    evict,
    in_pod,
    load,
    name_of,
    outage,
    pause,
    ready_pods,
    restarts,
    seconds_between,
    summary,
    timed,
    wait_for_pods,
)

EXAMPLES = read_examples()
REPOSITORY = "s3://models/nereid"
HOST = "nereid-nereid.example.com"
URL = f"http://{HOST}"
GRPC = f"{HOST}:80"
FOUND = ["2", "7", "0"]  # in digits.jpg, at a confidence of 0.9
CONTAINERS = ("kserve-container", "synchroniser", "transformer-container")
START_S = 300.0
NAMESPACE = f"--namespace={cluster.NAMESPACE}"
IMAGE = "nereid/transformer:0.1.0"


@pytest.fixture(scope="module")
def figures(pytestconfig: pytest.Config) -> Iterator[Figures]:
    seen = Figures("Standard mode on the cluster")
    yield seen
    seen.show(pytestconfig)


@pytest.fixture(scope="module")
def service(fresh: None, figures: Figures) -> None:  # noqa: ARG001 - the namespace has to be there
    """The InferenceService, from an empty cluster to a detection."""
    with timed() as seconds:
        cluster.make("publish", MODEL="digit-finder", REPOSITORY=REPOSITORY)
        figures.add("deploy", "published after", seconds())
        cluster.apply("standard", spread)
        figures.add("deploy", "applied after", seconds())
        cluster.wait_for("the InferenceService", cluster.is_ready, START_S)
        figures.add("deploy", "ready after", seconds())
        assert classes() == FOUND
        figures.add("deploy", "first detection after", seconds())


def spread(documents: list[Any]) -> list[Any]:
    """Spread pods over the nodes if there is room, as in `production`."""
    constraint = {
        "topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "nereid"}},
        "matchLabelKeys": ["pod-template-hash"],
    }  # fmt: skip
    for each in documents:
        if each["kind"] == "InferenceService":
            each["spec"]["predictor"]["topologySpreadConstraints"] = [constraint]
    return documents


def replicas(number: int) -> None:
    """Set a fixed number of pods."""
    patch_service({"minReplicas": number, "maxReplicas": number})
    time.sleep(2)
    wait_for_pods(number, START_S)


def one_on_each_node() -> None:
    """Two pods: the second one is created while the first one's node is the fuller one."""
    replicas(1)
    replicas(2)
    assert sorted(each["spec"]["nodeName"] for each in ready_pods()) == ["node-1", "node-2"]


def patch_service(predictor: dict[str, Any]) -> None:
    """Patch the predictor of the InferenceService."""
    body = json.dumps({"spec": {"predictor": predictor}})
    kubectl("patch", "isvc", "nereid", NAMESPACE, "--type=merge", f"--patch={body}")


def curl(*options: str) -> str:
    run = subprocess.run(["curl", "-sS", "-m", "60", *options], capture_output=True, text=True, check=True)
    return run.stdout


def classes(url: str = URL) -> list[str]:
    response = curl("-F", f"image=@{IMAGES / 'digits.jpg'}", f"{url}/predict/digit-finder?confidence=0.9")
    return [found["class"] for found in json.loads(response)["predictions"]]


@pytest.mark.usefixtures("service")
def test_service_is_where_kserve_reports_it() -> None:
    assert cluster.url() == URL
    assert classes(cluster.url()) == FOUND


@pytest.mark.usefixtures("service")
def test_gateway_passes_no_grpc_but_kserves(figures: Figures) -> None:
    with pytest.raises(tritonclient.grpc.InferenceServerException):  # only inference calls have a route
        tritonclient.grpc.InferenceServerClient(GRPC).get_model_repository_index()
    figures.add("clients", "gRPC of the model repository over the gateway", "rejected")


@pytest.mark.usefixtures("service")
def test_containers_have_the_limits_of_the_manifest() -> None:
    (pod,) = ready_pods()
    for container in pod["spec"]["containers"]:
        limits = container["resources"]["limits"]
        run = in_pod(name_of(pod), container["name"], "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                     "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")  # fmt: skip
        memory, quota, period = map(int, run.stdout.split())
        size, unit = limits["memory"][:-2], limits["memory"][-2:]
        assert memory == int(size) * {"Mi": 2**20, "Gi": 2**30}[unit], container["name"]
        assert quota == int(limits["cpu"]) * period, container["name"]


@pytest.mark.usefixtures("service")
def test_swap_and_rollback_under_load_fail_no_request(figures: Figures) -> None:
    replicas(2)
    with load(HOST, GRPC) as under:
        assert under.wait_for_version("1", seconds=60)
        with timed() as seconds:
            cluster.make("publish", MODEL="digit-finder", REPOSITORY=REPOSITORY, FORCE="1", WAIT=URL)
            assert under.wait_for_version("2", seconds=120)
            figures.add("swap, 2 pods", "first response of version 2 after", seconds())
        time.sleep(15)  # the other pod lists S3 every 10 s
        with timed() as seconds:
            since = time.monotonic()
            cluster.make("rollback", MODEL="digit-finder", REPOSITORY=REPOSITORY, URL=URL)
            back = under.wait_for(lambda one: one.version == "1" and one.started > since, seconds=120)
            assert back
            figures.add("rollback, 2 pods", "first response of version 1 after", seconds())
        time.sleep(15)
        result = under.stop()
    figures.add("swap and rollback", "under load", summary(result))
    assert not result.failures, result.failures[:3]
    cluster.make("unpin", MODEL="digit-finder", REPOSITORY=REPOSITORY)


@pytest.mark.usefixtures("service")
def test_rolling_update_under_load_fails_no_request(figures: Figures) -> None:
    replicas(2)
    before = {name_of(each) for each in ready_pods()}
    with load(HOST, GRPC) as under, Watch() as watch:
        began(under)
        with timed() as seconds:
            cluster.apply("standard", lambda each: with_setting(keep_replicas(spread(each)), "PREDICTOR_POLL_S", "9"))
            done = lambda: not before & {name_of(each) for each in cluster.pods()} and len(ready_pods()) == 2  # noqa: E731
            cluster.wait_for("the rolling update", done, START_S)
            figures.add("rolling update, 2 pods", "whole after", seconds())
        time.sleep(5)
        result = under.stop()
        figures.add("rolling update", "under load", summary(result))
        figures.add("rolling update", "outage", outage(result))
        for pod in before:
            show_end(watch, pod, figures, "rolling update")
    assert not result.failures, result.failures[:3]


def show_end(watch: Watch, pod: str, figures: Figures, step: str) -> None:
    """Verify a stopped pod: its containers ended in order, and none was killed."""
    ends = watch.ends(pod)
    assert set(ends) == set(CONTAINERS), ends
    stopped = next(each["metadata"]["deletionTimestamp"] for each in watch.states()
                   if each["metadata"]["name"] == pod and "deletionTimestamp" in each["metadata"])  # fmt: skip
    # The timestamp is the end of the grace period.
    after = {name: seconds_between(stopped, one["finishedAt"]) + 90 for name, one in ends.items()}
    text = ", ".join(f"{name} {after[name]:.0f} s ({one['exitCode']})" for name, one in ends.items())
    figures.add(step, f"{pod} ended", text)
    assert {one["exitCode"] for one in ends.values()} == {0}, ends
    assert after["transformer-container"] >= 5, after  # its preStop
    # It ends once the transformer has closed its connection, a moment before that ends; timestamps are in seconds.
    assert after["kserve-container"] >= after["transformer-container"] - 2, after
    assert max(after.values()) < 60, after


def keep_replicas(documents: list[Any]) -> list[Any]:
    """Set the number of pods that `replicas(2)` has left."""
    for each in documents:
        if each["kind"] == "InferenceService":
            each["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": 2}
    return documents


def with_setting(documents: list[Any], key: str, value: str) -> list[Any]:
    """A changed setting with another name of its ConfigMap, as by kustomize."""
    text = json.dumps(documents)
    for each in documents:
        if each["kind"] == "ConfigMap":
            changed: list[Any] = json.loads(text.replace(each["metadata"]["name"], "nereid-settings-changed"))
            next(one for one in changed if one["kind"] == "ConfigMap")["data"][key] = value
            return changed
    raise AssertionError("no ConfigMap")


@pytest.mark.usefixtures("service")
def test_node_drain_under_load_fails_no_request(figures: Figures) -> None:
    one_on_each_node()
    with load(HOST, GRPC) as under, timed() as seconds:
        began(under)
        try:
            kubectl("drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s",
                    "--pod-selector=app.kubernetes.io/part-of=nereid")  # fmt: skip
            figures.add("drain", "node empty after", seconds())
            wait_for_pods(2)
            figures.add("drain", "two pods again after", seconds())
        finally:
            kubectl("uncordon", "node-2")
        result = under.stop()
    figures.add("drain, 2 pods", "under load", summary(result))
    assert not result.failures, (outage(result), result.failures[:3])


@pytest.mark.usefixtures("service")
def test_budget_allows_the_eviction_of_one_of_two_pods(figures: Figures) -> None:
    replicas(2)
    first, second = (name_of(each) for each in ready_pods())
    assert evict(first) == ""
    rejection = evict(second)
    assert "disruption budget" in rejection, rejection
    figures.add(
        "budget", "two pods: the first is evicted, the second", rejection.partition("): ")[2] or rejection[-90:]
    )
    wait_for_pods(2)


@pytest.mark.usefixtures("service")
def test_budget_allows_the_eviction_of_an_unready_pod(figures: Figures) -> None:
    """One of two is unready, so no disruption is allowed: the unready pod may be evicted, the ready one not."""
    first, second = (name_of(each) for each in ready_pods())
    pause(first, "transformer-container", signal.SIGSTOP)
    cluster.wait_for("an unready pod", lambda: len(ready_pods()) == 1, 60)
    cluster.wait_for("its budget", lambda: allowed() == 0, 30)
    rejection = evict(second)
    assert "disruption budget" in rejection, rejection
    assert evict(first) == ""
    figures.add("budget", "one of two unready: that one", "is evicted, the ready one is not")
    wait_for_pods(2)


def allowed() -> int:
    """Disruptions that the budget allows now."""
    return int(get("pdb", "nereid", NAMESPACE)["status"]["disruptionsAllowed"])


@pytest.mark.usefixtures("service")
def test_budget_allows_the_eviction_of_a_single_pod(figures: Figures) -> None:
    replicas(1)
    (pod,) = (name_of(each) for each in ready_pods())
    with load(HOST, GRPC) as under, timed() as seconds:
        began(under)
        assert evict(pod) == ""
        cluster.wait_for("another pod", lambda: [name_of(each) for each in ready_pods()] not in ([], [pod]), START_S)
        figures.add("budget", "one pod: it is evicted, another is ready after", seconds())
        time.sleep(10)
        result = under.stop()
    figures.add("budget, 1 pod", "under load", summary(result))
    figures.add("budget, 1 pod", "outage", outage(result))
    wait_for_pods(1)


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("service")
def test_pods_follow_the_load_up_and_down(figures: Figures) -> None:
    """Scaling by metrics-server and KServe's HPA.

    Its target is below the manifest's 70 %, which pods do not reach on shared cores. It waits 300 s before it removes
    a pod: KServe resets a `behavior` of the HPA at each reconciliation.
    """
    replicas(1)
    patch_service({"minReplicas": 1, "maxReplicas": 3, "scaleTarget": 25})
    with load(HOST, GRPC, connections=4, pause_s=0.0) as under:
        began(under)
        with timed() as seconds:
            cluster.wait_for("a second pod", lambda: len(cluster.pods()) > 1, 180)
            figures.add("HPA", "a second pod is created after", seconds())
            cluster.wait_for("a second ready pod", lambda: len(ready_pods()) > 1, 180)
            figures.add("HPA", "a second pod is ready after", seconds())
        time.sleep(10)
        result = under.stop()
    figures.add("HPA, up", "under load", summary(result))
    assert not result.failures, (outage(result), result.failures[:3])
    # Under a light load: terminating pods fail no request.
    with load(HOST, GRPC, connections=1, pause_s=2.0) as under, timed() as seconds:
        began(under)
        cluster.wait_for("one pod", lambda: len(cluster.pods()) == 1, 480)
        figures.add("HPA", "one pod again after", seconds())
        result = under.stop()
    figures.add("HPA, down", "under a little load", summary(result))
    assert not result.failures, (outage(result), result.failures[:3])


# Many processes beside the first one, which is the largest when memory runs out: the kernel kills it.
_EAT = "for i in $(seq 200); do (x=$(head -c 12000000 /dev/zero | tr '\\0' x); sleep 20) & done; wait"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("container", CONTAINERS)
def test_container_without_memory_is_restarted(container: str, figures: Figures) -> None:
    replicas(2)
    pod = name_of(ready_pods()[0])
    before = restarts(pod)
    with load(HOST, GRPC) as under, timed() as seconds:
        began(under)
        in_pod(pod, container, "bash", "-c", _EAT)
        cluster.wait_for(f"restart of {container}", lambda: restarts(pod)[container] > before[container], 120)
        figures.add(f"OOM of {container}", "restarted after", seconds())
        wait_for_pods(2)
        figures.add(f"OOM of {container}", "its pod is ready after", seconds())
        time.sleep(3)
        result = under.stop()
    last = next(each["lastState"]["terminated"] for each in get_pod(pod)["status"]["containerStatuses"]
                if each["name"] == container)  # fmt: skip
    assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137), last
    assert {name: number - before[name] for name, number in restarts(pod).items()} == {
        name: int(name == container) for name in CONTAINERS
    }
    figures.add(f"OOM of {container}", "2 pods under load", summary(result))
    figures.add(f"OOM of {container}", "outage", outage(result))
    if container == "synchroniser":
        assert not result.failures, result.failures[:3]


def get_pod(name: str) -> Any:
    """A pod of the cluster."""
    return get("pod", name, NAMESPACE)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("volume", "container", "file"),
    [("triton-scratch", "kserve-container", "/tmp/full"), ("synchroniser-scratch", "synchroniser", "/tmp/full")],  # noqa: S108
)
def test_full_volume_evicts_the_pod(volume: str, container: str, file: str, figures: Figures) -> None:
    replicas(2)
    pod = name_of(ready_pods()[0])
    limit = next(each["emptyDir"]["sizeLimit"] for each in get_pod(pod)["spec"]["volumes"] if each["name"] == volume)
    number = int(limit.removesuffix("Mi")) * 2**20
    with load(HOST, GRPC) as under, timed() as seconds:
        began(under)
        in_pod(pod, container, "sh", "-c", f"head -c {number + 2**20} /dev/zero > {file}")
        cluster.wait_for("eviction", lambda: get_pod(pod)["status"].get("reason") == "Evicted", 120)
        figures.add(f"{volume} full", "evicted after", seconds())
        cluster.wait_for("two pods", lambda: len(ready_pods()) == 2, START_S)
        figures.add(f"{volume} full", "two pods again after", seconds())
        result = under.stop()
    message = get_pod(pod)["status"]["message"]
    assert f'volume "{volume}" exceeds the limit "{limit}"' in message, message
    figures.add(f"{volume} full", "says", message)
    figures.add(f"{volume} full", "under load", summary(result))
    figures.add(f"{volume} full", "outage", outage(result))
    kubectl("delete", "pod", pod, NAMESPACE)


# Connects to each port of an address and prints those that are open.
_OPEN = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 3).close()
        print(port)
    except OSError:
        pass
"""
_PORTS = ("8080", "8081", "8000", "8001", "8002", "8003")


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("namespace", "labels", "expected"),
    [
        ("nereid-stranger", "", []),
        ("nereid-client", "nereid-client=true", ["8080", "8081"]),
        ("monitoring", "", ["8080", "8002", "8003"]),
    ],
)
def test_network_policy_is_enforced(namespace: str, labels: str, expected: list[str], figures: Figures) -> None:
    (pod, *_) = ready_pods()
    with visitor(namespace, labels) as visit:
        run = visit("python", "-c", _OPEN, pod["status"]["podIP"], *_PORTS)
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == expected
        if "8081" in expected:  # through the Service, REST and gRPC
            run = visit("python", "-c", _CALL_GRPC)
            assert run.stdout.split() == ["True"], run.stderr
            run = visit("python", "-c", _OPEN, "nereid-predictor.nereid", "80", "8081")
            assert run.stdout.split() == ["80", "8081"], run.stderr
    figures.add("network policy", f"from {namespace}, ports of the pod", ", ".join(expected) or "none")


_CALL_GRPC = """
import tritonclient.grpc
print(tritonclient.grpc.InferenceServerClient("nereid-predictor.nereid:8081").is_model_ready("digit-finder"))
"""


@pytest.mark.usefixtures("service")
def test_pod_reaches_s3_and_dns_only(figures: Figures) -> None:
    (pod, *_) = ready_pods()
    with visitor("nereid-stranger", "", "python", "-m", "http.server", "8080") as visit:
        address = visit("hostname", "-i").stdout.strip()
        reached = {}
        for where, port in {"10.240.0.1": "9000", "kube-dns.kube-system": "53", "kubernetes.default": "443",
                            "10.240.0.11": "10250", "10.240.0.12": "10250", address: "8080"}.items():  # fmt: skip
            run = in_pod(name_of(pod), "transformer-container", "python", "-c", _OPEN, where, port)
            assert run.returncode == 0, run.stderr
            reached[where] = bool(run.stdout.split())
    assert [where for where, open_ in reached.items() if open_] == ["10.240.0.1", "kube-dns.kube-system"], reached
    figures.add("network policy", "out of the pod", "S3 and DNS; not the API server, nodes, another pod")


@contextmanager
def visitor(namespace: str, labels: str, *command: str) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """A pod in another namespace; runs commands in it."""
    # With Prometheus the cluster has a namespace `monitoring`, which is kept.
    is_ours = not kubectl("get", "namespace", namespace, "--ignore-not-found", "--output=name")
    if is_ours:
        kubectl("create", "namespace", namespace)
    try:
        if labels:
            kubectl("label", "namespace", namespace, labels)
        kubectl("run", "visitor", f"--namespace={namespace}", f"--image={IMAGE}",
                "--image-pull-policy=Never", "--command", "--", *(command or ("sleep", "600")))  # fmt: skip
        kubectl("wait", "pod/visitor", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s")
        time.sleep(3)  # until the nodes' firewalls have it
        yield lambda *words: in_pod("visitor", "visitor", *words, namespace=namespace)
    finally:
        kubectl("delete", "pod", "visitor", f"--namespace={namespace}", "--grace-period=1", "--wait=false")
        if is_ours:
            kubectl("delete", "namespace", namespace, "--wait=false")
        cluster.wait_for("the end of the visitor", lambda: not cluster.exists("pod", "visitor", namespace), 120)


@pytest.fixture(scope="module")
def models(service: None) -> None:  # noqa: ARG001 - they are served by it
    """The other two models of the client examples; with one pod, because WAIT checks one."""
    replicas(1)
    for model in ("digits", "iris"):
        cluster.make("publish", MODEL=model, REPOSITORY=REPOSITORY, WAIT=URL)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("name", "program", "output"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_client_example_works_over_the_gateway(name: str, program: str, output: str, figures: Figures) -> None:
    program = program.replace("localhost:8080", HOST).replace("localhost:8081", GRPC)
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output
    figures.add("clients", f"{name} over the gateway, as docs/clients.md shows", "works")


@pytest.mark.usefixtures("service")
def test_loadtest_of_the_makefile_runs_over_the_gateway(figures: Figures) -> None:
    replicas(1)
    text = cluster.make("loadtest", URL=URL, GRPC=GRPC, MODEL="digit-finder", RATE="3", DURATION_S="20", P95_MS="5000")
    figures.add("make loadtest", "3 requests/s for 20 s", brief(text))
    text = cluster.make("loadtest-cold", URL=URL, GRPC=GRPC, SILENCE_S="5", BURST_S="5", CYCLES="2")
    figures.add("make loadtest-cold", "5 s of silence, 5 s of burst, twice", brief(text))


def brief(text: str) -> str:
    """The end of a command's output."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[-300:]


@pytest.mark.usefixtures("service")
def test_pod_security_rejects_unrestricted_pods(figures: Figures) -> None:
    with pytest.raises(ClusterError) as rejected:
        kubectl("run", "plain", NAMESPACE, f"--image={IMAGE}")
    assert 'violates PodSecurity "restricted' in str(rejected.value)
    figures.add("Pod Security", "a pod without a security context", "forbidden: violates PodSecurity restricted")


@pytest.mark.usefixtures("service")
def test_quota_and_limits_of_production_apply(figures: Figures) -> None:
    folder = ROOT / "manifests/overlays/production"
    files = [f"--filename={folder / each}.yaml" for each in ("resourcequota", "limitrange")]
    kubectl("apply", "--server-side", NAMESPACE, *files)
    try:
        with pytest.raises(ClusterError) as rejected:
            run_restricted("large", {"requests": {"cpu": "41"}, "limits": {"cpu": "41"}})
        assert "exceeded quota: nereid, requested: requests.cpu=41" in str(rejected.value), rejected.value
        figures.add("quota", "a pod that requests 41 CPUs", str(rejected.value).partition("exceeded ")[2])
        run_restricted("small", {})
        resources = get_pod("small")["spec"]["containers"][0]["resources"]
        assert resources["requests"] == {"cpu": "100m", "memory": "128Mi"}
        assert resources["limits"] == {"cpu": "500m", "memory": "512Mi"}
        figures.add("limits", "a pod that names none gets", json.dumps(resources["requests"]))
        cluster.wait_for("the quota's count", lambda: used("pods") == 2, 30)
    finally:
        kubectl(
            "delete", "pod", "small", NAMESPACE, "--ignore-not-found", "--wait=false", "--grace-period=0", "--force"
        )
        kubectl("delete", NAMESPACE, *files)


def run_restricted(name: str, resources: dict[str, Any]) -> None:
    """A pod that Pod Security admits, with these resources."""
    context = {"runAsNonRoot": True, "runAsUser": 10001, "allowPrivilegeEscalation": False,
               "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "600"],
                 "resources": resources, "securityContext": context}  # fmt: skip
    overrides = json.dumps({"spec": {"containers": [container]}})
    kubectl("run", name, NAMESPACE, f"--image={IMAGE}", f"--overrides={overrides}")


def used(what: str) -> int:
    """The used amount of the quota."""
    status = get("resourcequota", "nereid", NAMESPACE).get("status", {})
    return int(status.get("used", {}).get(what, 0))


@pytest.mark.usefixtures("service")
def test_node_failure_and_return(figures: Figures) -> None:
    one_on_each_node()
    with load(HOST, GRPC) as under:
        began(under)
        since = time.monotonic()
        switch("power-off")
        cluster.wait_for("fewer pods", lambda: len(ready_pods()) == 1, 180)
        figures.add("node away, 2 pods", "Kubernetes knows it after", time.monotonic() - since)
        time.sleep(20)
        back = time.monotonic()
        switch("power-on")
        cluster.wait_for("both pods", lambda: len(ready_pods()) == 2, START_S)
        figures.add("node back", "two pods are ready after", time.monotonic() - back)
        time.sleep(10)
        result = under.stop()
    failed = [each.ended - since for each in result.failures]
    figures.add("node away, 2 pods", "under load", summary(result))
    figures.add("node away, 2 pods", "last failed request ended after", max(failed, default=0.0))
    figures.add("node away, 2 pods", "outage", outage(result))
    known = [each for each in result.failures if since + 90 < each.started < back]
    assert not known, known[:3]


def switch(command: str) -> None:
    """Switch the second node off or on."""
    subprocess.run([sys.executable, "-m", "cluster", command, "node-2"], cwd=ROOT, check=True)


@pytest.mark.usefixtures("service")
def test_canary_gets_its_share_of_the_requests(figures: Figures) -> None:
    kubectl("delete", "isvc", "nereid", NAMESPACE, "--wait=true")
    cluster.wait_for("no pods", lambda: not cluster.pods(), 120)
    with timed() as seconds:
        cluster.apply(ROOT / "manifests/overlays/canary/standard", cluster.at_home)
        for name in ("nereid", "nereid-canary"):
            cluster.wait_for(name, lambda name=name: cluster.is_ready(name), START_S)  # type: ignore[misc]
        figures.add("canary", "both are ready after", seconds())
    host = "nereid-split.example.com"
    with load(host, f"{host}:80", kinds=("predict", "v2")) as under:
        began(under)
        for stable, canary in ((90, 10), (0, 100), (100, 0)):
            weigh(stable, canary)
            time.sleep(3)
            since = time.monotonic()
            cluster.wait_for("200 responses", lambda since=since: len(responses(under, since)) >= 200, 120)  # type: ignore[misc]
            versions = Counter(each.version for each in responses(under, since))
            figures.add("canary", f"weights {stable} and {canary}: responses by version", dict(versions))
            share = versions["2"] / versions.total()
            assert abs(share - canary / 100) <= (0.07 if canary == 10 else 0), versions
        result = under.stop()
    figures.add("canary", "under load", summary(result))
    assert not result.failures, result.failures[:3]


def responses(under: Load, since: float) -> list[Response]:
    """Responses of a load since a moment."""
    return [each for each in under.result().responses if each.started > since]


def weigh(stable: int, canary: int) -> None:
    """Change the weights of the route, like a user who promotes or rolls back."""
    patch = [{"op": "replace", "path": f"/spec/rules/0/backendRefs/{index}/weight", "value": weight}
             for index, weight in enumerate((stable, canary))]  # fmt: skip
    kubectl("patch", "httproute", "nereid-split", NAMESPACE, "--type=json",
            f"--patch={json.dumps(patch)}")  # fmt: skip
