"""The serverless overlay on the cluster: a user's checkout, requests, phases of pods, reachability."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from cluster.kubectl import get, kubectl
from cluster.layout import ROOT
from tests.support.cluster import KEYS, NAMESPACE, S3_URL, pods, wait_for

PAGE = ROOT / "manifests" / "README.md"
IMAGE = ROOT / "loadtest" / "pictures" / "digits.jpg"
PATH = "/predict/digit-finder"
FIRST_CONTAINER = "first container started"
QUICK = {
    "autoscaling.knative.dev/window": "10s",
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
}
# A user's commands: `python -m cluster exec` provides kubectl and its configuration.
_NOT_COPIED = {"manifests", "cluster", "output", "shared", ".git"}
_LINES = {
    "synchroniser listens": ("synchroniser", "status on http"),
    "Triton listens": ("kserve-container", "Started HTTPService"),
    "transformer listens": ("transformer-container", "in front of Triton"),
    "a first model serves": ("synchroniser", "listed first"),
    "models loaded": ("synchroniser", '"message": "ready"'),
}
# When the first process of a container started, in seconds since 1970.
_STARTED = """
import os, time
ticks = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19])
print(time.time() - float(open("/proc/uptime").read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK"))
"""


def make_checkout(folder: Path) -> Path:
    """The project with a user's settings in `overlays/site` and `s3/addresses.yaml`.

    Args:
        folder: an empty one; everything but the manifests is linked into it.
    """
    for each in ROOT.iterdir():
        if each.name not in _NOT_COPIED:
            (folder / each.name).symlink_to(each)
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    overlays = ROOT / "cluster" / "overlays"
    shutil.copy(overlays / "addresses.yaml", folder / "manifests/components/s3")
    shutil.copy(overlays / "requests.yaml", folder / "manifests/overlays/site")
    edit_site(folder, {"AWS_ENDPOINT_URL": S3_URL}, {"path": "requests.yaml"})
    (folder / "s3.env").write_text("".join(f"{key}={value}\n" for key, value in KEYS.items()))
    return folder


def edit_site(checkout: Path, settings: Mapping[str, str], *patches: Any) -> None:
    """Write settings and patches into `overlays/site`; existing settings are replaced."""
    file = checkout / "manifests/overlays/site/kustomization.yaml"
    site = yaml.safe_load(file.read_text())
    known = dict(each.split("=", 1) for each in site["configMapGenerator"][0]["literals"])
    site["configMapGenerator"][0]["literals"] = [f"{key}={value}" for key, value in {**known, **settings}.items()]
    site["patches"] = [*site.get("patches", []), *patches]
    file.write_text(yaml.safe_dump(site))


def take_cpu_triton(checkout: Path) -> None:
    """Put `components/cpu-triton` into `overlays/site`, as its page says."""
    file = checkout / "manifests/overlays/site/kustomization.yaml"
    site = yaml.safe_load(file.read_text())
    site["components"] = ["../../components/cpu-triton"]
    site["images"].append({"name": "nereid/cpu-triton", "newName": "registry.example.com/nereid/cpu-triton"})
    file.write_text(yaml.safe_dump(site))


def patch(content: Mapping[str, Any]) -> Any:
    """A strategic-merge patch of the InferenceService, as an entry of a kustomization."""
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {"target": {"kind": "InferenceService", "name": "nereid"}, "patch": yaml.safe_dump({**head, **content})}


def commands_of(heading: str) -> list[str]:
    """The lines of a page's first block of commands below a heading."""
    section = PAGE.read_text().partition(f"# {heading}\n")[2].partition("\n#")[0]
    lines = section.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    "))
    block = []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        block.append(line.strip())
    return [line for line in block if line]


def run(checkout: Path, lines: Sequence[str], *, patience_s: float = 900) -> str:
    """Run commands in the folder of the project; returns their output.

    Raises:
        AssertionError: one of them failed.
    """
    script = "\n".join(["set -euo pipefail", *lines])
    done = subprocess.run(
        ["bash", "-c", script], cwd=checkout, capture_output=True, text=True, timeout=patience_s, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


class Response(NamedTuple):
    """A response: status (0 without one), seconds, and body or error."""

    status: int
    seconds: float
    text: str


def request(url: str, *, timeout_s: float = 300) -> Response:
    """Send the image."""
    began = time.monotonic()
    try:
        response = httpx.post(
            f"{url}{PATH}", content=IMAGE.read_bytes(), timeout=timeout_s, trust_env=False,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
    except httpx.TransportError as exc:
        return Response(0, time.monotonic() - began, repr(exc))
    return Response(response.status_code, time.monotonic() - began, response.text)


def burst(url: str, count: int) -> list[Response]:
    """Send the image so many times at once."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: request(url), range(count)))


class PodWatch:
    """Times of the phases of the namespace's pods while the block runs, seen by the client, to some milliseconds.

    Attributes:
        moments: by pod and by phase, seconds since 1970.
    """

    def __init__(self) -> None:
        self.moments: dict[str, dict[str, float]] = {}

    def __enter__(self) -> "PodWatch":
        command = ["kubectl", "get", "pods", f"--namespace={NAMESPACE}", "--watch", "--output=json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        assert self._process.stdout
        while block := os.read(self._process.stdout.fileno(), 1 << 20):
            text += block.decode()
            while text:
                try:
                    pod, end = decoder.raw_decode(text)
                except ValueError:  # the rest of it is still to come
                    break
                text = text[end:].lstrip()
                self._note(pod, time.time())

    def _note(self, pod: Mapping[str, Any], now: float) -> None:
        moments = self.moments.setdefault(pod["metadata"]["name"], {"created": now})
        conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
        reached = {
            "scheduled": conditions.get("PodScheduled") == "True",
            "ready to the kubelet": conditions.get("Ready") == "True",
        }
        for phase, there in reached.items():
            if there:
                moments.setdefault(phase, now)


def cold_start(url: str) -> dict[str, float]:
    """Send a request to zero pods; returns the seconds until each phase of the pod that responds.

    Raises:
        AssertionError: the request failed.
    """
    with PodWatch() as watch:
        began = time.time()
        response = request(url)
        received = time.time()
        assert response.status == 200, response
        time.sleep(2)  # the kubelet's own readiness may be later
        (name,) = watch.moments
    moments = {**watch.moments[name], **_of_containers(name), **_of_logs(name), "first response": received}
    return {phase: moment - began for phase, moment in sorted(moments.items(), key=lambda each: each[1])}


def _of_containers(pod: str) -> dict[str, float]:
    """When the first and the last container of ours started, seconds since 1970; the kubelet says it later."""
    starts = [
        float(kubectl("exec", pod, f"--namespace={NAMESPACE}", f"--container={each}", "--", "python3", "-c", _STARTED))
        for each in ("kserve-container", "synchroniser", "transformer-container")
    ]
    return {FIRST_CONTAINER: min(starts), "containers started": max(starts)}


def _of_logs(pod: str) -> dict[str, float]:
    """Times of certain log lines of the containers, seconds since 1970."""
    moments = {}
    for phase, (container, words) in _LINES.items():
        log = kubectl("logs", pod, f"--namespace={NAMESPACE}", f"--container={container}", "--timestamps")
        line = next(line for line in log.splitlines() if words in line)
        moments[phase] = _seconds(line.split()[0])
    return moments


def _seconds(stamp: str) -> float:
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(f"0.{fraction or 0}")


def wait_for_zero(patience_s: float = 600) -> float:
    """Wait until none of our pods exists, terminating ones included; returns the seconds."""
    return wait_for("zero pods", lambda: not pods(), patience_s)


def running_pods() -> list[Mapping[str, Any]]:
    """Our pods that are not terminating."""
    return [each for each in pods() if "deletionTimestamp" not in each["metadata"]]


def conditions_of(kind: str, name: str) -> dict[str, Mapping[str, Any]]:
    """The conditions of an object by type."""
    found = get(kind, name, f"--namespace={NAMESPACE}").get("status", {}).get("conditions", [])
    return {each["type"]: each for each in found}


_KNOCK = """
import json, socket, sys
found = {}
for each in sys.argv[1:]:
    host, _, port = each.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
        found[each] = "open"
    except OSError:
        found[each] = "refused"
print(json.dumps(found))
"""


def knock(addresses: Sequence[str], *where: str) -> dict[str, str]:
    """Try TCP connections: open or not; a network policy and a closed port look alike.

    Args:
        addresses: of TCP, `host:port`.
        where: arguments of `kubectl exec` for a container with Python; by default from this process.
    """
    words = ["-c", _KNOCK, *addresses]
    if where:
        text = kubectl("exec", *where, "--", "python3", *words)
    else:
        text = subprocess.run(["python3", *words], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(text))


def start_stranger(namespace: str, image: str) -> None:
    """Start an idle pod in another namespace."""
    head = f"--namespace={namespace}"
    if not kubectl("get", "namespace", namespace, "--ignore-not-found", "--output=name"):
        kubectl("create", "namespace", namespace)
    kubectl("delete", "pod", "stranger", head, "--ignore-not-found", "--now")
    kubectl("run", "stranger", head, f"--image={image}", "--image-pull-policy=Never", "--command", "--", "sleep", "600")
    kubectl("wait", "pod/stranger", head, "--for=condition=Ready", "--timeout=60s")
