"""docs/day-2.md on the cluster: its commands as documented, and their effect on requests.

The tests are steps of one run, in this order: `python -m cluster exec -- pytest tests/cluster/test_day2.py`.
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import machine
from cluster.kubectl import get, kubectl
from cluster.layout import NODES, OUTSIDE, ROOT
from cluster.programs import S3_PORT
from loadtest.generator.load import Load
from tests.support import cluster, s3_accounts
from tests.support.pages import blocks_of
from tests.support.pod_faults import (
    IMAGES,
    Figures,
    began,
    evict,
    in_pod,
    load,
    name_of,
    outage,
    pause,
    ready_pods,
    restarts,
    summary,
    timed,
    wait_for_pods,
)

PAGE = ROOT / "docs/day-2.md"
HOST = "nereid-nereid.example.com"
URL = f"http://{HOST}"
GRPC = f"{HOST}:80"
MODEL = "digit-finder"
REPOSITORY = "s3://models/nereid"
NAMESPACE = f"--namespace={cluster.NAMESPACE}"
START_S = 400.0
LISTED_S = 60.0


@pytest.fixture(scope="module")
def figures(pytestconfig: pytest.Config) -> Iterator[Figures]:
    seen = Figures("Day 2 on the cluster")
    yield seen
    seen.show(pytestconfig)


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's overlay: `standard` with this cluster's S3 server and two pods, one on each node if there is room."""
    folder = tmp_path_factory.mktemp("overlay")
    shared = ROOT / "cluster/overlays"
    for each in ("requests.yaml", "addresses.yaml"):
        shutil.copy(shared / each, folder)
    kustomization = yaml.safe_load((shared / "standard/kustomization.yaml").read_text())
    for each in kustomization["patches"]:
        each["path"] = Path(each["path"]).name
    kustomization["resources"] = [os.path.relpath(ROOT / "manifests/overlays/standard", folder)]
    kustomization["patches"].append({"target": {"kind": "InferenceService"}, "patch": json.dumps(_TWO)})
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization, sort_keys=False))
    return folder


_SPREAD = {
    "topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "nereid"}},
    "matchLabelKeys": ["pod-template-hash"],
}  # fmt: skip
_TWO = [
    {"op": "add", "path": "/spec/predictor/minReplicas", "value": 2},
    {"op": "add", "path": "/spec/predictor/maxReplicas", "value": 2},
    {"op": "add", "path": "/spec/predictor/topologySpreadConstraints", "value": [_SPREAD]},
]


@pytest.fixture(scope="module")
def page(fresh: None, overlay: Path) -> Callable[..., str]:  # noqa: ARG001 - the namespace has to be there
    """Two pods; a function that runs a block of commands of the page, by heading and index."""
    environment = {**os.environ, "OVERLAY": str(overlay), "REPOSITORY": REPOSITORY, "URL": URL, "MODEL": MODEL}

    def run(heading: str, number: int = 0, **variables: str) -> str:
        block = blocks_of(PAGE, heading)[number]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    cluster.make("publish", MODEL=MODEL, REPOSITORY=REPOSITORY)
    kubectl("apply", f"--kustomize={overlay}")
    wait_for_pods(2, START_S)
    cluster.wait_for("the InferenceService", cluster.is_ready, START_S)
    return run


def classes(*options: str) -> list[str]:
    """Classes that are detected in the image."""
    run = subprocess.run(
        ["curl", "-sS", "-m", "60", *options, "-F", f"image=@{IMAGES / 'digits.jpg'}",
         f"{URL}/predict/{MODEL}?confidence=0.9"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [found["class"] for found in json.loads(run.stdout)["predictions"]]


def pods() -> set[str]:
    """Names of all existing pods."""
    return {name_of(each) for each in cluster.pods()}


def status_of(pod: str) -> Any:
    """`/status` of one pod."""
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/status').read().decode())"
    run = in_pod(pod, "transformer-container", "python", "-c", code)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def wait_for_new(before: set[str]) -> float:
    """Wait until none of these pods exists and two others are ready; returns the seconds."""
    return cluster.wait_for("new pods", lambda: not before & pods() and len(ready_pods()) == 2, START_S)


def light_load() -> Load:
    """Load over one connection: the pods share two cores with the control plane."""
    return load(HOST, GRPC, connections=1, pause_s=0.2)


@contextmanager
def watched(figures: Figures, step: str) -> Iterator[Load]:
    """Load under which no request may fail."""
    with light_load() as under, timed() as seconds:
        began(under)
        yield under
        figures.add(step, "whole after", seconds())
        time.sleep(3)
        result = under.stop()
    figures.add(step, "under load", summary(result))
    figures.add(step, "outage", outage(result))
    assert not result.failures, (outage(result), result.failures[:3])


@pytest.mark.usefixtures("page")
def test_rollout_restart_is_undone(figures: Figures) -> None:
    before = {name_of(each) for each in ready_pods()}
    kubectl("rollout", "restart", "deployment/nereid-predictor", NAMESPACE)
    time.sleep(15)
    cluster.wait_for("the pods of before alone", lambda: pods() == before, 120)
    template = get("deployment", "nereid-predictor", NAMESPACE)["spec"]["template"]
    assert "kubectl.kubernetes.io/restartedAt" not in template["metadata"]["annotations"]
    figures.add("kubectl rollout restart", "15 s later", "the same pods, the annotation is removed")


def test_annotation_restarts_the_pods(page: Callable[..., str], figures: Figures) -> None:
    before = pods()
    with watched(figures, "restart, 2 pods"):
        page("Restart the pods")
        wait_for_new(before)


@pytest.mark.usefixtures("page")
def test_commit_restarts_the_pods(overlay: Path, figures: Figures) -> None:
    before = pods()
    with watched(figures, "restart by a commit"):
        commit(overlay, "Restart the pods", 1)
        wait_for_new(before)


def commit(overlay: Path, heading: str, number: int = 0, change: Callable[[Any], None] = lambda _: None) -> None:
    """Add lines of the page to the overlay's patches, and apply it like a GitOps tool."""
    file = overlay / "kustomization.yaml"
    kustomization, lines = (yaml.safe_load(each) for each in (file.read_text(), blocks_of(PAGE, heading)[number]))
    change(lines)
    patches = [each for each in lines.pop("patches", []) if each not in kustomization["patches"]]
    kustomization["patches"] += patches
    file.write_text(yaml.safe_dump(kustomization | lines, sort_keys=False))
    kubectl("apply", f"--kustomize={overlay}")


def test_keys_of_s3_are_rotated(page: Callable[..., str], tmp_path: Path, figures: Figures) -> None:
    """With an S3 server that rejects unknown keys."""
    with s3_accounts.known_keys() as keys:
        old, new = keys.make(), keys.make()
        rotate(page, tmp_path, old)
        with s3_accounts.enforced():
            wait_for_listings()
            before = pods()
            with watched(figures, "rotate the keys of S3"):
                rotate(page, tmp_path, new)
                assert not before & pods()
                keys.delete(old)
                wait_for_listings()


def rotate(page: Callable[..., str], folder: Path, keys: Mapping[str, str]) -> None:
    """Rotate as on the page, with the keys in a file."""
    file = folder / "s3.env"
    file.write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
    page("Rotate the keys of S3", FILE=str(file))
    page("Restart the pods")
    wait_for_pods(2, START_S)


def wait_for_listings() -> None:
    """Wait until each pod has listed the repository once more."""
    for pod in (name_of(each) for each in ready_pods()):
        since = status_of(pod)["listing"]["at"] or ""
        cluster.wait_for(f"a listing of {pod}", functools.partial(_listed_after, pod, since), LISTED_S)


def _listed_after(pod: str, moment: str) -> bool:
    listing = status_of(pod)["listing"]
    return bool(listing["ok"] and listing["at"] > moment)


def test_secret_of_triton_is_rotated(page: Callable[..., str], figures: Figures) -> None:
    """A Triton that restarts between the change and its pod's end has another secret than its synchroniser."""
    pod, other = (name_of(each) for each in ready_pods())
    secret = json.dumps({"stringData": {"secret": "another"}})
    kubectl("patch", "secret", "nereid-triton", NAMESPACE, f"--patch={secret}")
    before = restarts(pod)["kserve-container"]
    in_pod(pod, "kserve-container", "bash", "-c", "kill 1")
    cluster.wait_for("Triton's restart", lambda: restarts(pod)["kserve-container"] > before, 120)
    wait_for_pods(2, START_S)
    cluster.make("publish", MODEL=MODEL, REPOSITORY=REPOSITORY, FORCE="1")
    cluster.wait_for("version 2 in the other pod", lambda: serving(other) == ["2"], LISTED_S)
    time.sleep(20)
    assert (serving(pod), status_of(pod)["triton"]["ok"]) == (["1"], False)
    assert classes() == ["2", "7", "0"]
    figures.add("Triton's secret, only Triton has the new one", "that pod", "keeps serving version 1, loads no other")
    gone = pods()
    with watched(figures, "rotate Triton's secret"):
        page("Rotate Triton's secret")
        wait_for_new(gone)
    for each in ready_pods():
        assert status_of(name_of(each))["triton"]["ok"]
        assert serving(name_of(each)) == ["2"]


@pytest.mark.usefixtures("page")
def test_secret_of_triton_is_rotated_under_another_name(overlay: Path, figures: Figures) -> None:
    """The old Secret stays: a Triton that restarts before its pod ends has the secret of its synchroniser."""
    kubectl("create", "secret", "generic", "nereid-triton-2", NAMESPACE, "--from-literal=secret=a-third")
    before = pods()
    with watched(figures, "Triton's secret by another name"):
        commit(overlay, "Rotate Triton's secret", 1)
        wait_for_new(before)
    for each in ready_pods():
        assert status_of(name_of(each))["triton"]["ok"]
        for container in each["spec"]["containers"][:2]:
            (variable,) = [one for one in container["env"] if one["name"] == "PREDICTOR_SECRET"]
            assert variable["valueFrom"]["secretKeyRef"] == {"name": "nereid-triton-2", "key": "secret"}


def serving(pod: str) -> list[str]:
    """Versions that a pod serves."""
    return list(status_of(pod)["models"].get(MODEL, {}).get("serving", []))


def test_outage_of_s3(page: Callable[..., str], figures: Figures) -> None:
    with watched(figures, "S3 away"), s3_away():
        cluster.wait_for("failed listings", lambda: not status_of(name_of(ready_pods()[0]))["listing"]["ok"], LISTED_S)
        replicas = json.dumps({"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}}})
        kubectl("patch", "isvc", "nereid", NAMESPACE, "--type=merge", f"--patch={replicas}")
        cluster.wait_for("a third pod", lambda: len(pods()) == 3, LISTED_S)
        (third,) = pods() - {name_of(each) for each in ready_pods()}
        cluster.wait_for("its containers", lambda: is_waiting(third), START_S)
        time.sleep(20)
        assert len(ready_pods()) == 2
        page("S3 is away")
        wait_for_pods(2, START_S)
        assert "disruption budget" in evict(name_of(ready_pods()[0]))
        figures.add(
            "S3 away",
            "a third pod is never ready; frozen at",
            get("hpa", "nereid-predictor", NAMESPACE)["spec"]["maxReplicas"],
        )
    page("S3 is away", 1)
    cluster.wait_for("the budget", lambda: get("pdb", "nereid", NAMESPACE)["spec"]["maxUnavailable"] == 1, 30)
    wait_for_listings()


def is_waiting(pod: str) -> bool:
    """Whether a pod's status is waiting for its repository."""
    try:
        return "the repository" in str(status_of(pod)["waiting_for"])
    except AssertionError:
        return False


@contextmanager
def s3_away() -> Iterator[None]:
    """Reject connections to S3 while the block runs."""
    rule = ["INPUT", *f"-p tcp --dport {S3_PORT} -j REJECT --reject-with tcp-reset".split()]
    machine.run(OUTSIDE, ["iptables", "-I", *rule])
    try:
        yield
    finally:
        machine.run(OUTSIDE, ["iptables", "-D", *rule])


def test_rejected_version_changes_nothing(page: Callable[..., str], figures: Figures) -> None:
    served = serving(name_of(ready_pods()[0]))
    with watched(figures, "a version is rejected"):
        cluster.s3().put_object(Bucket=cluster.BUCKET, Key=f"nereid/{MODEL}/9/model.onnx", Body=b"no model")
        for pod in (name_of(each) for each in ready_pods()):
            cluster.wait_for("the rejection", functools.partial(_has_rejected, pod, "9"), LISTED_S)
            assert serving(pod) == served
        assert "refused" in page("At night: a version is rejected", 0)
        page("At night: a version is rejected", 1, VERSION="9")
        for pod in (name_of(each) for each in ready_pods()):
            cluster.wait_for("its end", lambda pod=pod: "9" not in versions(pod), LISTED_S)  # type: ignore[misc]


def versions(pod: str) -> Any:
    """Versions of the model in a pod's status."""
    return status_of(pod)["models"].get(MODEL, {}).get("versions", {})


def _has_rejected(pod: str, version: str) -> bool:
    return bool(versions(pod).get(version, {}).get("state") == "refused")


def test_emptied_bucket_is_restored_from_its_versions(page: Callable[..., str], figures: Figures) -> None:
    with watched(figures, "bucket emptied and restored"):
        since = empty()
        for pod in (name_of(each) for each in ready_pods()):
            cluster.wait_for("an empty listing", functools.partial(_takes_for_mistake, pod), LISTED_S)
        page("From the versions of the bucket", SINCE=since)
        wait_for_listings()


def _takes_for_mistake(pod: str) -> bool:
    return "the listing is empty while models serve" in str(status_of(pod)["listing"]["error"])


def empty() -> str:
    """Delete all objects; returns the time before."""
    client, since = cluster.s3(), datetime.now(UTC).isoformat(timespec="seconds")
    keys = [{"Key": each["Key"]} for each in client.list_objects_v2(Bucket=cluster.BUCKET)["Contents"]]
    client.delete_objects(Bucket=cluster.BUCKET, Delete={"Objects": keys})
    return since


def test_publishing_into_an_emptied_bucket_unloads_the_other_models(page: Callable[..., str], figures: Figures) -> None:
    since = empty()
    cluster.make("publish", MODEL="iris", REPOSITORY=REPOSITORY)
    gone = cluster.wait_for(
        "the end of the other model", lambda: not any(serving(name_of(e)) for e in ready_pods()), LISTED_S
    )
    figures.add("publish into an emptied bucket", "the missing model is unloaded after", gone)
    page("From the versions of the bucket", SINCE=since)
    back = cluster.wait_for("the model", lambda: all(serving(name_of(each)) for each in ready_pods()), LISTED_S)
    figures.add("publish into an emptied bucket", "restored, it serves after", back)


def test_models_are_restored_from_the_mirror_of_a_pod(page: Callable[..., str], figures: Figures) -> None:
    """Into another bucket, to which the pods are moved afterwards."""
    empty()
    cluster.s3().create_bucket(Bucket="restored")
    before = pods()
    with watched(figures, "restore from a mirror"):
        page("From the mirror of a pod", TO="s3://restored/nereid")
        page("Another bucket", 1, TO="s3://restored/nereid")
        wait_for_new(before)
    for each in ready_pods():
        status = status_of(name_of(each))
        assert status["repository"] == "s3://restored/nereid"
        assert serving(name_of(each)) == ["2"], status
    assert classes() == ["2", "7", "0"]


def test_pods_move_to_another_bucket(page: Callable[..., str], figures: Figures) -> None:
    cluster.make("publish", MODEL=MODEL, REPOSITORY="s3://restored/nereid", FORCE="1", WAIT=URL)
    before = pods()
    with watched(figures, "another bucket"):
        page("Another bucket", 0, REPOSITORY="s3://restored/nereid", TO="s3://models/moved")
        page("Another bucket", 1, TO="s3://models/moved")
        wait_for_new(before)
    for each in ready_pods():
        assert (status_of(name_of(each))["repository"], serving(name_of(each))) == ("s3://models/moved", ["3"])


def test_image_is_upgraded_and_rolled_back(page: Callable[..., str], overlay: Path, figures: Figures) -> None:
    for node in NODES:
        names = [f"docker.io/nereid/transformer:{tag}" for tag in ("0.1.0", "0.1.1")]
        machine.run(node, ["ctr", "--namespace=k8s.io", "images", "tag", "--force", *names])
    before = pods()
    with watched(figures, "upgrade of the transformer's image"):
        with_images(overlay, "0.1.1")
        wait_for_new(before)
    assert {image_of(each) for each in ready_pods()} == {"nereid/transformer:0.1.1"}
    before = pods()
    with watched(figures, "an image that cannot be pulled, and back"):
        with_images(overlay, "0.1.2")
        cluster.wait_for("a pod without its image", lambda: "ImagePullBackOff" in page("Upgrade and roll back", 1), 180)
        assert {name_of(each) for each in ready_pods()} == before
        with_images(overlay, "0.1.1")
        wait_for_pods(2, START_S)
        assert pods() == before


def with_images(overlay: Path, tag: str) -> None:
    """Commit another image tag."""
    commit(overlay, "Upgrade and roll back", 0, lambda lines: lines["images"][0].update(newTag=tag))


def image_of(pod: Mapping[str, Any]) -> str:
    """The transformer's image."""
    return next(str(each["image"]) for each in pod["spec"]["containers"] if each["name"] == "transformer-container")


@pytest.mark.usefixtures("page")
def test_percentages_of_surge_and_budget_are_accepted(overlay: Path, figures: Figures) -> None:
    before = pods()
    commit(overlay, "Fifty pods")
    cluster.wait_for("the strategy", lambda: strategy()["maxSurge"] == "10%", 30)
    assert strategy()["maxUnavailable"] == 0
    assert get("pdb", "nereid", NAMESPACE)["spec"]["maxUnavailable"] == "10%"
    cluster.wait_for("the budget", lambda: get("pdb", "nereid", NAMESPACE)["status"]["disruptionsAllowed"] == 1, 60)
    assert pods() == before
    figures.add(
        "10% of surge, 10% of the budget", "accepted by KServe; one of two pods may be evicted", "no pod restarts"
    )


def strategy() -> Any:
    """The strategy of KServe's Deployment."""
    return get("deployment", "nereid-predictor", NAMESPACE)["spec"]["strategy"]["rollingUpdate"]


@pytest.mark.usefixtures("page")
def test_hanging_triton_is_restarted(figures: Figures) -> None:
    pod = name_of(ready_pods()[0])
    before = restarts(pod)["kserve-container"]
    with light_load() as under, timed() as seconds:
        began(under)
        pause(pod, "kserve-container", signal.SIGSTOP)
        cluster.wait_for("an unready pod", lambda: len(ready_pods()) == 1, 60)
        figures.add("a Triton that hangs, 2 pods", "its pod is not ready after", seconds())
        cluster.wait_for("its restart", lambda: restarts(pod)["kserve-container"] > before, 300)
        figures.add("a Triton that hangs, 2 pods", "restarted after", seconds())
        wait_for_pods(2, START_S)
        figures.add("a Triton that hangs, 2 pods", "ready again after", seconds())
        result = under.stop()
    figures.add("a Triton that hangs, 2 pods", "under load", summary(result))
    figures.add("a Triton that hangs, 2 pods", "outage", outage(result))


def test_api_keys_are_rotated_without_a_restart(
    page: Callable[..., str], overlay: Path, tmp_path: Path, figures: Figures
) -> None:
    file = overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    kustomization["components"] = [os.path.relpath(ROOT / "manifests/components/keys", overlay)]
    keys = tmp_path / "keys"
    first = key_of(page("Rotate API keys", 0, NEW="alice-1", KEYS=str(keys)))
    file.write_text(yaml.safe_dump(kustomization, sort_keys=False))
    before = pods()
    kubectl("apply", f"--kustomize={overlay}")
    wait_for_new(before)
    started = pods()
    assert accepted(first)
    with timed() as seconds:
        second = key_of(page("Rotate API keys", 0, NEW="alice-2", KEYS=str(keys)))
        cluster.wait_for("the second key", lambda: accepted(second), 180)
        figures.add("API keys", "an added key is accepted by both pods after", seconds())
    assert accepted(first)
    with timed() as seconds:
        page("Rotate API keys", 1, OLD="alice-1", KEYS=str(keys))
        cluster.wait_for("the end of the first key", lambda: not accepted(first, every=False), 180)
        figures.add("API keys", "a removed key is rejected by both pods after", seconds())
    assert accepted(second)
    assert pods() == started


def key_of(text: str) -> str:
    """The printed key."""
    return re.search(r"nereid_[\w-]{43}", text)[0]  # type: ignore[index]


def accepted(key: str, *, every: bool = True) -> bool:
    """Whether every pod accepts a key; with `every=False`, whether any does."""
    code = (
        "import sys, urllib.request as u, urllib.error as e\n"
        f"r = u.Request('http://127.0.0.1:8080/v2/models/{MODEL}', headers={{'X-API-Key': '{key}'}})\n"
        "try: print(u.urlopen(r).status)\n"
        "except e.HTTPError as exc: print(exc.code)"
    )
    codes = [
        in_pod(name_of(each), "transformer-container", "python", "-c", code).stdout.strip() for each in ready_pods()
    ]
    assert {*codes} <= {"200", "401", "403"}, codes
    return (all if every else any)(each == "200" for each in codes)
