"""The serverless overlay on KServe and Knative: `make e2e-cluster`, or this file by `python -m cluster exec`.

The tests are steps of one run, in this order. All traffic goes through Knative's gateway, as from outside the
cluster. Figures are printed at the end, and kept in output/cluster/knative.txt.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from cluster.kubectl import get, kubectl
from cluster.layout import ROOT, ClusterError
from loadtest.generator.load import Load, Plan
from loadtest.generator.responses import Result
from tests.support import cluster, knative
from tests.support.cluster import NAMESPACE
from tests.support.pages import read_examples

REPOSITORY = f"s3://{cluster.BUCKET}/nereid"
FOUND = ["2", "7", "0"]  # in the image
KEPT = ROOT / "output" / "cluster" / "knative.txt"
COLD_STARTS = 3
STARTS_IN_TURN = 6  # of each of two images
CANARY = {"canaryTrafficPercent": 0}
BURST = 20
MANY = 4  # concurrent requests: the capacity of two pods
REST = "predict=1 v1=1 v2=1"  # Knative's gateway has no route for gRPC
APPLY = "kubectl apply -k manifests/overlays/site"
TRANSFORMER = ("--namespace=nereid", "--container=transformer-container")

Note = Callable[[str, str], None]


@pytest.fixture(scope="module")
def note(pytestconfig: pytest.Config) -> Iterator[Note]:
    """A function that records figures; each is printed at once, all of them at the end."""
    table = Table("seen", "figure", title="Knative", min_width=100)

    def add(what: str, figure: str) -> None:
        table.add_row(what, figure)
        show(pytestconfig, f"{time.strftime('%T')} {what}: {figure}")

    yield add
    show(pytestconfig, table)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("w") as file:
        Console(file=file, width=140).print(table)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's checkout, an empty bucket, and a cluster without the namespace."""
    if missing := cluster.find_missing("knative-serving/activator", "kserve/kserve-controller-manager"):
        pytest.skip(missing)
    remove_all()
    cluster.make_bucket()
    yield knative.make_checkout(tmp_path_factory.mktemp("checkout"))
    remove_all()


@pytest.fixture(scope="module")
def url(checkout: Path) -> str:
    """The URL that KServe reports; the first test has applied the overlay."""
    if not cluster.exists("isvc", "nereid"):
        pytest.skip("needs the first test of this file")
    assert checkout.exists()
    return cluster.url()


@pytest.fixture(scope="module")
def quick(checkout: Path, url: str) -> str:
    """The service with zero pods after a minute, not six: window and retention, which do not affect a start."""
    knative.edit_site(checkout, {}, knative.patch({"metadata": {"name": "nereid", "annotations": knative.QUICK}}))
    knative.run(checkout, [APPLY])
    wait_for_revision()
    return url


def test_page_leads_from_an_empty_cluster_to_a_detection(checkout: Path, note: Note) -> None:
    lines = knative.commands_of("From an empty cluster to a detection")
    # The images are on the nodes; the checkout has the edits.
    done = [line for line in lines if not line.startswith(("make images", "vi "))]
    assert len(lines) - len(done) == 3, lines
    began = time.monotonic()
    *_, response = knative.run(checkout, done).strip().splitlines()
    note("the page, from make publish to a detection", f"{time.monotonic() - began:.1f} s")
    assert classes(response) == FOUND
    note("pod ready", f"{ready_s():.0f} s after it was created")


def test_pod_is_as_the_manual_says(url: str) -> None:
    (pod,) = knative.running_pods()
    spec = pod["spec"]
    containers = {each["name"]: each for each in spec["containers"]}
    queue = containers.pop("queue-proxy")
    environment = {each["name"]: each.get("value") for each in queue["env"]}
    assert list(containers) == ["kserve-container", "synchroniser", "transformer-container"]
    for name, each in containers.items():
        # The queue is drained before any container is stopped.
        assert each["lifecycle"] == {
            "preStop": {"httpGet": {"path": "/wait-for-drain", "port": 8022, "scheme": "HTTP"}}
        }, name
        # The queue-proxy has the transformer's readiness probe, every second.
        assert "readinessProbe" not in each, name
        assert each["securityContext"]["readOnlyRootFilesystem"], name
        assert each["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert ("livenessProbe" in each) == (name == "transformer-container"), name
    probe = json.loads(environment["SERVING_READINESS_PROBE"] or "")
    assert probe["httpGet"]["path"] == "/v2/health/ready"
    assert probe["periodSeconds"] == 1
    assert (environment["CONTAINER_CONCURRENCY"], environment["REVISION_TIMEOUT_SECONDS"]) == ("4", "300")
    assert spec["terminationGracePeriodSeconds"] == 300
    assert spec["serviceAccountName"] == "nereid"
    # No token of the API server, in no container.
    assert not [each for each in spec["volumes"] if "projected" in each]
    limits = containers["kserve-container"]["resources"]["limits"]["cpu"]
    synchroniser = {each["name"]: each.get("value") for each in containers["synchroniser"]["env"]}
    assert synchroniser["PREDICTOR_CPUS"] == limits
    assert url.endswith(".nereid.knative.example.com")


def test_knative_has_no_flag_beyond_its_defaults(url: str) -> None:
    # The requirements of the overlay in the manual; the cluster itself needs its images and its gateway.
    assert url
    for name in ("config-features", "config-defaults", "config-autoscaler"):
        data = get("configmap", name, "--namespace=knative-serving").get("data", {})
        assert not data.keys() - {"_example"}, name


def test_swap_and_rollback_through_the_gateway(checkout: Path, url: str, note: Note) -> None:
    before = pod_ids()
    with load(url, connections=2) as under:
        assert under.wait_for_version("1", seconds=60)
        began = time.monotonic()
        publish(checkout, f"WAIT={url}")
        note("swap: make publish WAIT=", f"{time.monotonic() - began:.1f} s")
        assert under.wait_for_version("2", seconds=60)
        began = time.monotonic()
        knative.run(checkout, [f"make rollback MODEL=digit-finder REPOSITORY={REPOSITORY} URL={url}"])
        assert wait_for_success(under, "1", began)
        note("make rollback, until version 1 serves", f"{time.monotonic() - began:.1f} s")
        result = under.stop()
    note("requests during both", f"{counts(result)}; load average {os.getloadavg()[0]:.0f}")
    assert not result.failures, result.failures[:3]
    assert before <= pod_ids()
    assert not restarts()
    knative.run(checkout, [f"make unpin MODEL=digit-finder REPOSITORY={REPOSITORY}"])


# REST, for which Knative's gateway has a route.
CLIENTS = ["tritonclient.http", "tritonclient.http.aio", "kserve.InferenceRESTClient", "supervision"]


@pytest.mark.parametrize(("name", "program", "output"), [each for each in read_examples() if each[0] in CLIENTS])
def test_client_of_the_manual_gets_a_response(checkout: Path, url: str, name: str, program: str, output: str) -> None:
    if "digits" not in model_names(url):
        knative.run(checkout, [f"make publish MODEL=digits REPOSITORY={REPOSITORY} WAIT={url}"])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program.replace("localhost:8080", url.removeprefix("http://"))],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == output, name


def test_loadtest_succeeds(checkout: Path, url: str, note: Note) -> None:
    text = knative.run(checkout, [f'make loadtest URL={url} MODEL=digit-finder RATE=4 DURATION_S=20 WEIGHTS="{REST}"'])
    note("make loadtest RATE=4 DURATION_S=20", last_figures(text))


def test_network_policy_admits_the_gateway_only(url: str, note: Note) -> None:
    assert knative.request(url).status == 200
    (pod, *_) = knative.running_pods()
    address = pod["status"]["podIP"]
    # All ports with a listener: they are reachable within the pod.
    ports = (8002, 8003, 8012, 8022, 8080, 8081, 8112, 9090, 9091)
    every = [f"{address}:{port}" for port in ports]
    within = knative.knock(every, pod["metadata"]["name"], *TRANSFORMER)
    every = [each for each, state in within.items() if state == "open"]
    assert len(every) >= 7, within
    image = next(each["image"] for each in pod["spec"]["containers"] if each["name"] == "transformer-container")
    rejected = dict.fromkeys(every, "refused")
    assert knative.knock(every) == rejected, "from outside the cluster"
    for namespace in ("default", "monitoring"):
        knative.start_stranger(namespace, image)
    seen = {each: knative.knock(every, "stranger", f"--namespace={each}") for each in ("default", "monitoring")}
    assert seen["default"] == rejected
    scraped = {f"{address}:{port}": "open" for port in (8080, 8002, 8003)}
    assert seen["monitoring"] == rejected | scraped
    for namespace in ("default", "monitoring"):
        kubectl("delete", "pod", "stranger", f"--namespace={namespace}", "--now")
    note(
        "network policy, in",
        f"{len(every)} open ports closed to outside and to another namespace, 3 open to monitoring",
    )
    if not cluster.exists("deployment", "prometheus", "monitoring"):  # the namespace of the cluster's Prometheus
        kubectl("delete", "namespace", "monitoring", "--wait=false")


def test_network_policy_allows_egress_to_dns_and_s3_only(url: str, note: Note) -> None:
    assert knative.request(url).status == 200
    (pod, *_) = knative.running_pods()
    gateway = get("service", "kourier-internal", "--namespace=kourier-system")["spec"]["clusterIP"]
    wanted = {
        cluster.S3_URL.removeprefix("http://"): "open",
        "kube-dns.kube-system.svc.cluster.local:53": "open",
        "kubernetes.default.svc:443": "refused",
        f"{gateway}:80": "refused",
        "169.254.169.254:80": "refused",
        "10.240.0.1:53": "refused",
    }
    assert knative.knock([*wanted], pod["metadata"]["name"], *TRANSFORMER) == wanted
    note("network policy, out", "DNS and S3 open; API server, gateway, metadata, other ports of S3's machine closed")


def test_cold_start_by_phase(quick: str, note: Note) -> None:
    silence = knative.wait_for_zero()
    note("silence until zero pods, window 10 s and retention 0 s", f"{silence:.0f} s")
    starts = []
    for _ in range(COLD_STARTS):
        starts.append(knative.cold_start(quick))
        knative.wait_for_zero()
    note_phases(note, "cold start", starts)


def test_burst_at_zero_pods_succeeds(quick: str, note: Note) -> None:
    note(f"burst of {BURST} at zero", burst_at_zero(quick))


@pytest.mark.timeout(2400)  # twelve starts, each after a minute of silence
def test_cpu_triton_starts_from_zero_takes_a_burst_and_swaps(checkout: Path, quick: str, note: Note) -> None:
    for model in {"digits", "iris"} - {*model_names(quick)}:  # three models, as in the figures of the pod alone
        knative.run(checkout, [f"make publish MODEL={model} REPOSITORY={REPOSITORY} WAIT={quick}"])
    with cpu_triton_beside(checkout) as urls:
        starts: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
        loads = []
        knative.wait_for_zero()
        for _ in range(STARTS_IN_TURN):
            for name, each in urls.items():
                loads.append(os.getloadavg()[0])
                starts[name].append(knative.cold_start(each))
                note(f"first response, {name}", f"{starts[name][-1]['first response']:.1f} s")
                knative.wait_for_zero()
        note("cold starts in turn", f"load average before each {min(loads):.1f} to {max(loads):.1f}")
        for name, phases in starts.items():
            note_phases(note, f"cold start, {name}", phases)
        url = urls["cpu-triton"]
        note(f"cpu-triton: burst of {BURST} at zero", burst_at_zero(url))
        with load(url, connections=2) as under:
            assert under.wait_for(lambda each: not each.error, seconds=120)
            began = time.monotonic()
            publish(checkout, f"WAIT={url}")
            note("cpu-triton: make publish WAIT=", f"{time.monotonic() - began:.1f} s")
            assert under.wait_for_version(newest_version(checkout), seconds=60)
            result = under.stop()
        note("cpu-triton: requests during the swap", f"{counts(result)}; load average {os.getloadavg()[0]:.0f}")
        assert not result.failures, result.failures[:3]
        assert not restarts()


def test_loadtest_cold_succeeds(checkout: Path, quick: str, note: Note) -> None:
    text = knative.run(checkout, [f"make loadtest-cold URL={quick} WEIGHTS=predict SILENCE_S=75 CYCLES=2"])
    note("make loadtest-cold SILENCE_S=75 CYCLES=2", last_figures(text))


def test_pods_follow_concurrency(quick: str, note: Note) -> None:
    knative.wait_for_zero()
    with load(quick, connections=MANY) as under, knative.PodWatch() as watch:
        began = time.monotonic()
        cluster.wait_for("as many pods are ready", lambda: ready_pods() >= MANY // 2, 300)
        note(f"{MANY} requests in progress: {MANY // 2} pods ready", f"after {time.monotonic() - began:.0f} s")
        time.sleep(20)
        most = len(watch.moments)
        result = under.stop()
    note("requests meanwhile", f"{counts(result)}; {most} pods in all")
    assert not result.failures, result.failures[:3]
    note("back at zero pods", f"{knative.wait_for_zero():.0f} s after the load")
    assert not restarts()


def test_versions_out_of_order_while_pods_come_and_go(checkout: Path, quick: str, note: Note) -> None:
    # Each pod polls the bucket by itself: some have the next version earlier than others.
    with load(quick, connections=MANY) as under:
        cluster.wait_for("two pods are ready", lambda: ready_pods() >= 2, 300)
        for _ in range(2):
            publish(checkout)
            time.sleep(5)
            victim = knative.running_pods()[0]["metadata"]["name"]
            kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}", "--wait=false")
            time.sleep(15)
        newest = newest_version(checkout)
        began = time.monotonic()
        assert wait_for_success(under, newest, began)
        cluster.wait_for("every pod has it", lambda: set(served_by_pods()) == {newest}, 180)
        time.sleep(3)
        result = under.stop()
    note("versions while pods come and go", f"{counts(result)}; {', '.join(overlaps(result))}")
    assert not result.failures, result.failures[:3]
    assert result.responses[-1].version == newest
    knative.wait_for_zero()


def test_canary_is_split_promoted_and_rolled_back(checkout: Path, url: str, note: Note) -> None:
    now = int(newest_version(checkout))
    knative.run(checkout, [f"make unpin MODEL=digit-finder REPOSITORY={REPOSITORY} || true"])
    prepare_canary(checkout, now)
    lines = knative.commands_of("A canary")
    split = next(number for number, line in enumerate(lines) if line.startswith("kubectl -n nereid patch"))
    promote, back = lines[split:]
    # One request at a time: each revision has one pod, and the nodes have room for four.
    with load(url, connections=1) as under:
        assert under.wait_for(lambda each: not each.error, seconds=120)
        knative.run(checkout, lines[:split])
        wait_for_revision()
        shares = {10: share(under, str(now + 1))}
        for percent, command in ((100, promote), (0, back)):
            knative.run(checkout, [command])
            wait_for_traffic(percent)
            shares[percent] = share(under, str(now + 1))
        result = under.stop()
    for percent, (part, count) in shares.items():
        note(f"canaryTrafficPercent: {percent}", f"{part:.1%} of {count} requests")
    note("requests in all of it", counts(result))
    assert not result.failures, result.failures[:3]
    assert 0.05 < shares[10][0] < 0.15
    assert (shares[100][0], shares[0][0]) == (1, 0)
    tags = {each.get("tag") for each in get("ksvc", "nereid-predictor", "-n", NAMESPACE)["status"]["traffic"]}
    assert {"latest", "prev"} <= tags
    # As in the manual: a rollback pins the previous version in the bucket, then the user's overlay is applied.
    knative.run(checkout, [f"make rollback MODEL=digit-finder REPOSITORY={REPOSITORY}", APPLY])
    wait_for_revision()
    assert json.loads(knative.request(url).text)["model"]["version"] == str(now)


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("a bucket that is not there", {"PREDICTOR_REPOSITORY": "s3://nowhere/nereid"}),
        ("an invalid value", {"PREDICTOR_POLL_S": "often"}),
    ],
)
def test_revision_that_is_never_ready_keeps_the_old_one(
    checkout: Path, url: str, note: Note, what: str, settings: dict[str, str]
) -> None:
    site = checkout / "manifests/overlays/site/kustomization.yaml"
    good = site.read_text()
    # The manual's deadline is 900 s.
    deadline = {"serving.knative.dev/progress-deadline": "60s"}
    knative.edit_site(checkout, settings, knative.patch({"metadata": {"name": "nereid", "annotations": deadline}}))
    with load(url, connections=1) as under:
        assert under.wait_for(lambda each: not each.error, seconds=120)
        began = time.monotonic()
        knative.run(checkout, [APPLY])
        seconds = cluster.wait_for("KServe says so", lambda: not latest_is_ready(), 300)
        cluster.wait_for("the pod of it is gone, or its failure is final", has_failed, 300)
        took = time.monotonic() - began
        time.sleep(5)
        result = under.stop()
    note(f"{what} (deadline 60 s)", f"final after {took:.0f} s (first said after {seconds:.0f}); {counts(result)}")
    for kind, name in (("ksvc", "nereid-predictor"), ("isvc", "nereid")):
        for each in knative.conditions_of(kind, name).values():
            if each["status"] != "True" and each["type"] != "Stopped":
                words = " ".join(each.get("message", "").split())[:160]
                note(f"  {kind} {each['type']}", f"{each['status']} {each.get('reason', '')}: {words}")
    assert not result.failures, result.failures[:3]
    site.write_text(good)
    knative.run(checkout, [APPLY])
    wait_for_revision()
    assert cluster.is_ready()
    assert knative.request(url).status == 200


def test_field_whose_flag_is_off_is_reported(checkout: Path, url: str, note: Note) -> None:
    site = checkout / "manifests/overlays/site/kustomization.yaml"
    good = site.read_text()
    knative.edit_site(
        checkout,
        {},
        knative.patch({"metadata": {"name": "nereid"}, "spec": {"predictor": {"nodeSelector": {"a": "b"}}}}),
    )
    try:
        text = knative.run(checkout, [f"{APPLY} 2>&1 || true"])
        time.sleep(10)
        says = [each["message"] for each in get("events", f"--namespace={NAMESPACE}")["items"]]
        says += [each.get("message", "") for each in knative.conditions_of("isvc", "nereid").values()]
        words = [each for each in [text, *says] if "must not set" in each or "podspec" in each]
        note("a nodeSelector without its flag", " ".join(words[0].split())[:200] if words else f"nothing: {text}")
        assert words
        assert knative.request(url).status == 200
    finally:
        site.write_text(good)
        knative.run(checkout, [APPLY])


def show(config: pytest.Config, what: Table | str) -> None:
    """Print past pytest's capture."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        Console(width=140, highlight=False).print(what)


def remove_all() -> None:
    """Remove the namespace, its pods first: Kubernetes would check them only after half their grace period of 300 s."""
    if cluster.exists("isvc", "nereid"):
        kubectl("delete", "isvc", "nereid", f"--namespace={NAMESPACE}", "--wait=false")
        knative.wait_for_zero()
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=400s")


def classes(response: str) -> list[str]:
    """Classes in a response of /predict."""
    return [each["class"] for each in json.loads(response)["predictions"] if each["confidence"] > 0.9]


def ready_s() -> float:
    """Seconds from the creation of the first pod until it was ready, by its conditions."""
    (pod, *_) = knative.running_pods()
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    first, last = (
        time.mktime(time.strptime(each, "%Y-%m-%dT%H:%M:%SZ"))
        for each in (pod["metadata"]["creationTimestamp"], ready["lastTransitionTime"])
    )
    return last - first


def model_names(url: str) -> list[str]:
    """The served models, by v1."""
    return list(httpx.get(f"{url}/v1/models", timeout=120, trust_env=False).json()["models"])


def publish(checkout: Path, *options: str) -> None:
    """Publish the model again, as the next version."""
    knative.run(
        checkout, [f"make publish MODEL=digit-finder REPOSITORY={REPOSITORY} FORCE=1 TIMEOUT_S=600 {' '.join(options)}"]
    )


def newest_version(checkout: Path) -> str:
    """The newest version of digit-finder in the bucket."""
    assert checkout
    pages = cluster.s3().get_paginator("list_objects_v2").paginate(Bucket=cluster.BUCKET, Prefix="nereid/digit-finder/")
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    return str(max(int(match[1]) for key in keys if (match := re.match(r"nereid/digit-finder/(\d+)/", key))))


@contextmanager
def load(url: str, *, connections: int) -> Iterator[Load]:
    """Load of the image over so many connections to the gateway, REST only."""
    host = url.removeprefix("http://")
    plan = Plan(
        f"{host}:80", "", "digit-finder", image_path=str(knative.IMAGE), kinds=("predict", "v2"),
        connections=connections, pause_s=0.02, timeout_s=120,
    )  # fmt: skip
    with Load(plan) as under:
        yield under


def wait_for_success(under: Load, version: str, since: float) -> object:
    """A response of a version to a later request; None without one in time."""
    return under.wait_for(lambda each: each.version == version and each.started > since and not each.error, seconds=180)


def counts(result: Result) -> str:
    """Number of requests and failures, and their durations."""
    times = f"p50 {result.percentile(50):.2f} s, p95 {result.percentile(95):.2f} s, most {result.percentile(100):.1f} s"
    return f"{len(result.responses)} requests, {len(result.failures)} failed, {times}"


def overlaps(result: Result) -> list[str]:
    """For each new version, how long older ones still responded to requests that were sent after its first response."""
    first: dict[str, float] = {}
    for each in result.responses:
        first.setdefault(each.version, each.ended)
    found = []
    for version, moment in list(first.items())[1:]:
        late = [each.started - moment for each in result.responses if int(each.version) < int(version)]
        found.append(f"version {version} beside older ones for {max(0.0, *late):.1f} s")
    return found


def share(under: Load, version: str) -> tuple[float, int]:
    """The share of a version in the responses of the next half minute, and their number."""
    began = time.monotonic()
    time.sleep(30)
    responses = [each for each in under.result().responses if each.started > began]
    return sum(each.version == version for each in responses) / len(responses), len(responses)


def prepare_canary(checkout: Path, now: int) -> None:
    """Write the manual's edits into both canaries: the site, and the versions."""
    for folder, version in (("pinned", now), ("", now + 1)):
        file = checkout / "manifests/overlays/canary/knative" / folder / "kustomization.yaml"
        text = file.read_text().replace("../serverless", "../site")
        file.write_text(re.sub(r'"digit-finder":\[\d+\]', f'"digit-finder":[{version}]', text))


@contextmanager
def cpu_triton_beside(checkout: Path) -> Iterator[dict[str, str]]:
    """URLs of two revisions while the block runs: as before, which keeps the traffic, and with the component."""
    site = checkout / "manifests/overlays/site/kustomization.yaml"
    good = site.read_text()
    knative.take_cpu_triton(checkout)
    # As a canary: each revision has an address of its own.
    annotations = {"serving.kserve.io/enable-tag-routing": "true"}
    change = {"metadata": {"name": "nereid", "annotations": annotations}, "spec": {"predictor": CANARY}}
    knative.edit_site(checkout, {}, knative.patch(change))
    knative.run(checkout, [APPLY])
    wait_for_revision()
    try:
        traffic = get("ksvc", "nereid-predictor", f"--namespace={NAMESPACE}")["status"]["traffic"]
        tagged = {each["tag"]: each for each in traffic if each.get("tag")}
        found = {"NVIDIA's name": tagged["prev"], "cpu-triton": tagged["latest"]}
        images = {name: triton_image(each["revisionName"]) for name, each in found.items()}
        assert ["cpu-triton" in each for each in images.values()] == [False, True], images
        yield {name: each["url"] for name, each in found.items()}
    finally:
        site.write_text(good)
        knative.run(checkout, [APPLY])
        wait_for_revision()


def triton_image(revision: str) -> str:
    """The image of a revision's first container."""
    containers = get("revisions.serving.knative.dev", revision, f"--namespace={NAMESPACE}")["spec"]["containers"]
    return str(next(each["image"] for each in containers if each["name"] == "kserve-container"))


def note_phases(note: Note, what: str, starts: list[dict[str, float]]) -> None:
    """Note the median of each phase, and of the time from the first container to the response."""
    phases = {phase: [each[phase] for each in starts if phase in each] for phase in starts[0]}
    phases["from the first container to the response"] = [
        each["first response"] - each[knative.FIRST_CONTAINER] for each in starts
    ]
    for phase, values in phases.items():
        listed = ", ".join(f"{value:.1f}" for value in values)
        note(f"{what}: {phase}", f"{statistics.median(values):.1f} s (of {listed})")


def burst_at_zero(url: str) -> str:
    """Send the image many times at once to zero pods, and wait for zero again; returns figures."""
    knative.wait_for_zero()
    with knative.PodWatch() as watch:
        responses = knative.burst(url, BURST)
    assert [each.status for each in responses] == [200] * BURST, [each for each in responses if each.status != 200][:3]
    seconds = sorted(each.seconds for each in responses)
    knative.wait_for_zero()
    figures = f"first {seconds[0]:.1f} s, median {statistics.median(seconds):.1f}, last {seconds[-1]:.1f}"
    return f"all succeeded: {figures}; {len(watch.moments)} pods"


def pod_ids() -> set[str]:
    """UIDs of pods that are not terminating."""
    return {each["metadata"]["uid"] for each in knative.running_pods()}


def restarts() -> list[str]:
    """Containers with restarts."""
    return [
        f"{pod['metadata']['name']} {each['name']}: {each.get('lastState')}"
        for pod in cluster.pods()
        for each in pod["status"].get("containerStatuses", [])
        if each["restartCount"]
    ]


def ready_pods() -> int:
    """How many are ready."""
    return sum(
        each["type"] == "Ready" and each["status"] == "True"
        for pod in knative.running_pods()
        for each in pod["status"].get("conditions", [])
    )


def served_by_pods() -> list[str]:
    """The version of digit-finder in each pod's status."""
    found = []
    for pod in knative.running_pods():
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8003/status', timeout=5).read().decode())"
        try:
            text = kubectl("exec", pod["metadata"]["name"], *TRANSFORMER, "--", "python3", "-c", code)
        except ClusterError:
            found.append("none")  # the pod starts, or has just ended
            continue
        found += json.loads(text)["models"].get("digit-finder", {}).get("serving") or ["none"]
    return found


def latest_is_ready() -> bool:
    """Whether Knative reports the newest revision as ready; it may not have seen the newest change yet."""
    service = get("ksvc", "nereid-predictor", f"--namespace={NAMESPACE}")
    for each in (get("isvc", "nereid", f"--namespace={NAMESPACE}"), service):
        if each["metadata"]["generation"] != each.get("status", {}).get("observedGeneration"):
            return True
    status = service["status"]
    return bool(status.get("latestCreatedRevisionName") == status.get("latestReadyRevisionName"))


def has_failed() -> bool:
    """Whether the newest revision has failed finally."""
    return knative.conditions_of("ksvc", "nereid-predictor").get("ConfigurationsReady", {}).get("status") == "False"


def wait_for_revision() -> None:
    """Wait until Knative reports the newest revision as ready."""
    time.sleep(5)  # until KServe and Knative have seen the change
    cluster.wait_for("the newest revision", lambda: latest_is_ready() and cluster.is_ready(), 300)


def wait_for_traffic(percent: int) -> None:
    """Wait until Knative's route has the share, and a moment for the gateway."""

    def there() -> bool:
        status = get("ksvc", "nereid-predictor", f"--namespace={NAMESPACE}")["status"]
        latest = status["latestCreatedRevisionName"]
        return sum(each.get("percent") or 0 for each in status["traffic"] if each["revisionName"] == latest) == percent

    cluster.wait_for(f"{percent} % of the traffic", there, 120)
    time.sleep(3)


def last_figures(text: str) -> str:
    """The figures of a load test, in one line."""
    lines = [" ".join(re.findall(r"[^\s│┃|]+", line)) for line in text.splitlines()]
    return "; ".join(line for line in lines if re.search(r"\d", line))[:600]
