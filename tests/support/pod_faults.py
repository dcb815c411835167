"""Faults of pods on the cluster, and their effect on requests, measured."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console
from rich.table import Table

from cluster import machine
from cluster.kubectl import get, kubectl
from cluster.layout import BUILT, KUBECONFIG, OUTSIDE, ROOT
from loadtest.generator.load import Load, Plan
from loadtest.generator.responses import Result
from tests.support import cluster

IMAGES = ROOT / "loadtest" / "pictures"
# Two connections leave the pods some of the two cores that they share with the control plane.
CONNECTIONS = 2


class Watch:
    """Records every state of the pods that Kubernetes reports while the block runs, deleted pods included."""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile()
        command = [*machine.enter(OUTSIDE, "net"), str(BUILT / "kubectl"), f"--kubeconfig={KUBECONFIG}", "get", "pods"]
        options = [f"--namespace={cluster.NAMESPACE}", "--watch", "--output=json"]
        self._process = subprocess.Popen([*command, *options], stdout=self._file)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._file.close()

    def states(self) -> list[dict[str, Any]]:
        """All recorded states, in order."""
        self._file.seek(0)
        text, at, found = self._file.read().decode(), 0, []
        decoder = json.JSONDecoder()
        while at < len(text.rstrip()):
            try:
                one, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:  # incomplete: still being written
                break
            found.append(one)
            at += len(text[at:]) - len(text[at:].lstrip())
        return found

    def ends(self, pod: str) -> dict[str, Mapping[str, Any]]:
        """The last termination of each container of a pod: exitCode, reason, finishedAt."""
        found = {}
        for state in self.states():
            if state["metadata"]["name"] != pod:
                continue
            for one in state["status"].get("containerStatuses", []):
                for each in (one.get("lastState", {}), one["state"]):
                    if "terminated" in each:
                        found[one["name"]] = each["terminated"]
        return found


class Figures:
    """Measured figures, for the table at the end of a run."""

    def __init__(self, title: str) -> None:
        self._table = Table("step", "seen", "figure", title=title)

    def add(self, step: str, seen: str, figure: object) -> None:
        """A row."""
        self._table.add_row(step, seen, f"{figure:.1f} s" if isinstance(figure, float) else str(figure))

    def show(self, config: pytest.Config) -> None:
        """Print past pytest's capture: the table is a purpose of the run."""
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            Console(width=130, highlight=False).print("", self._table, sep="\n")


def load(http: str, grpc: str, *, connections: int = CONNECTIONS, pause_s: float = 0.05, **options: Any) -> Load:
    """Load of an image over several connections, by all protocols."""
    image = str(IMAGES / "digits.jpg")
    return Load(Plan(http, grpc, "digit-finder", image_path=image, connections=connections, pause_s=pause_s,
                     timeout_s=30, **options))  # fmt: skip


def began(under: Load) -> None:
    """Wait for the first response."""
    assert under.wait_for(lambda each: not each.error, seconds=60), under.result().failures[:3]


def summary(result: Result) -> str:
    """Number of responses and failures of a load, and its longest response."""
    longest = max((each.seconds for each in result.responses), default=0.0)
    return f"{len(result.responses)} requests, {len(result.failures)} failed, longest {longest:.1f} s"


def outage(result: Result) -> str:
    """Time from the first failed request to the end of the last one, with their errors."""
    if not result.failures:
        return "none"
    first, last = min(each.started for each in result.failures), max(each.ended for each in result.failures)
    kinds = sorted({f"{each.kind} {each.error.partition(' (request')[0][:80]}" for each in result.failures})
    return f"{last - first:.1f} s: {'; '.join(kinds)[:300]}"


def ready_pods(selector: str = "app.kubernetes.io/part-of=nereid") -> list[Mapping[str, Any]]:
    """Pods that get requests: ready, not terminating."""
    return [each for each in cluster.pods(selector) if is_ready(each)]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets requests."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def name_of(pod: Mapping[str, Any]) -> str:
    """The name of a pod."""
    return str(pod["metadata"]["name"])


def wait_for_pods(number: int, patience_s: float = 240.0) -> float:
    """Wait until exactly so many pods exist and are ready; returns the seconds."""

    def settled() -> bool:
        return len(ready_pods()) == number == len([each for each in cluster.pods() if not has_ended(each)])

    return cluster.wait_for(f"{number} pods", settled, patience_s)


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether all containers of a listed pod have ended."""
    return pod["status"].get("phase") in {"Failed", "Succeeded"}


def in_pod(
    pod: str, container: str, *command: str, namespace: str = cluster.NAMESPACE
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container; it may fail."""
    words = [*machine.enter(OUTSIDE, "net"), str(BUILT / "kubectl"), f"--kubeconfig={KUBECONFIG}", "exec", pod]
    options = [f"--namespace={namespace}", f"--container={container}", "--"]
    return subprocess.run([*words, *options, *command], capture_output=True, text=True, check=False, timeout=120)


def pause(pod: str, container: str, which: signal.Signals) -> None:
    """Send a signal to the first process of a container from its node: it ignores SIGSTOP from inside."""
    status = get("pod", pod, f"--namespace={cluster.NAMESPACE}")
    uid = status["metadata"]["uid"]
    identity = next(each["containerID"] for each in status["status"]["containerStatuses"] if each["name"] == container)
    number = identity.partition("://")[2]
    for folder, _, _ in os.walk("/sys/fs/cgroup/pids"):
        if uid in folder and folder.endswith(number):
            os.kill(int(Path(folder, "cgroup.procs").read_text().split()[0]), which)
            return
    raise AssertionError(f"{pod} {container}: no control group")


def seconds_between(earlier: str, later: str) -> float:
    """Seconds between two timestamps of Kubernetes, which have no fractions."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def restarts(pod: str) -> dict[str, int]:
    """Restart count of each container of a pod."""
    status = get("pod", pod, f"--namespace={cluster.NAMESPACE}")["status"]
    return {each["name"]: each["restartCount"] for each in status["containerStatuses"]}


def evict(pod: str) -> str:
    """Request a pod's eviction like a drain; returns the API server's reason to reject it, or ""."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": cluster.NAMESPACE}}
    path = f"/api/v1/namespaces/{cluster.NAMESPACE}/pods/{pod}/eviction"
    try:
        kubectl("create", f"--raw={path}", "--filename=-", input=json.dumps(body))
    except Exception as exc:  # noqa: BLE001 - the rejection is the result
        return str(exc)
    return ""


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Yields a function that returns the seconds since the block began."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start
