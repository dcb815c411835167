"""Overlays on a real API server, each in a namespace where no pod starts, and the objects that controllers create."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster import machine
from cluster.layout import BUILT, KUBECONFIG, OUTSIDE
from tests.manifests.pod import KNATIVE, components_of, mode_of, pod_of, pods_of
from tests.manifests.rendering import Object, Render, render, render_in, title

PATIENCE_S = 120.0
# Secrets that users create (README.md); KServe's webhook reads them for a storageUri.
SECRETS = {
    "nereid-triton": {"secret": "not-to-be-guessed"},
    "nereid-s3": {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "nothing"},
    "nereid-s3-writer": {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "nothing"},
    "nereid-keys": {"keys": ""},
}
# Kinds of an overlay that must exist before its pods are admitted.
_FOR_PODS = {"ConfigMap", "LimitRange", "ResourceQuota", "Secret", "ServiceAccount", "ServingRuntime"}
# Errors while a node or a controller is unavailable: retried.
_AWAY = ("failed calling webhook", "connection refused", "connection reset", "EOF", "TLS handshake", "being terminated",
         "i/o timeout", "deadline exceeded", "unable to handle the request", "no endpoints available")  # fmt: skip


@dataclass
class Result:
    """The result of kubectl.

    Attributes:
        text: stdout.
        stderr: errors, and warnings about accepted objects.
        accepted: whether it succeeded.
    """

    text: str
    stderr: str
    accepted: bool

    @property
    def object(self) -> Any:
        """The output of kubectl, from JSON."""
        assert self.accepted, self.stderr
        return json.loads(self.text)


@dataclass
class Applied:
    """An overlay in a namespace of its own.

    Attributes:
        name: of the overlay, below manifests/.
        namespace: its own.
        render: the objects that were sent.
        results: of the API server, by mode of the apply.
        pods: the result for each pod of the overlay, by its title.
        templates: the assumed pod template of each of KServe's workloads, completed by the API server; by name.
    """

    name: str
    namespace: str
    render: Render
    results: dict[str, Result] = field(default_factory=dict)
    pods: dict[str, Result] = field(default_factory=dict)
    templates: dict[str, Any] = field(default_factory=dict)


def namespace_of(name: str) -> str:
    """The namespace of an overlay; l2 is the level of tests with objects and without pods."""
    return f"l2-{name.removeprefix('overlays/').replace('/', '-')}"


def kubectl(*arguments: str, sent: Sequence[Object] = ()) -> Result:
    """Run kubectl as the cluster's administrator; retried while a node or a webhook is unavailable.

    Args:
        arguments: for kubectl.
        sent: objects for `--filename=-`.
    """
    command = [*machine.enter(OUTSIDE, "net"), str(BUILT / "kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    text = yaml.safe_dump_all([dict(each) for each in sent]) if sent else None
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if not done.returncode or time.monotonic() > deadline or not any(each in done.stderr for each in _AWAY):
            return Result(done.stdout, done.stderr.strip(), done.returncode == 0)
        time.sleep(2)


def find(kind: str, name: str, namespace: str) -> Any:
    """An object of the cluster, or None."""
    result = kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
    assert result.accepted, result.stderr
    return json.loads(result.text) if result.text else None


def wait_for(what: str, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait until a condition returns something true, and return it."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.5)
    return found


def unknown_kinds(rendered: Render) -> list[str]:
    """Kinds of an overlay that the API server lacks."""
    result = kubectl("api-resources", "--no-headers", "--output=wide")
    kinds = {word for line in result.text.splitlines() for word in line.split()}
    return sorted({each["kind"] for each in rendered.objects} - kinds)


def prepare(name: str, folder: Path) -> Applied:
    """Create the namespace of an overlay, and the objects that its pods need.

    Args:
        name: of the overlay.
        folder: an empty one, for a kustomization.
    """
    namespace = namespace_of(name)
    applied = Applied(name, namespace, render_in(name, namespace, folder))
    remove(namespace, wait=True)
    namespaces = list(applied.render.of_kind("Namespace")) or [
        _moved(render("base").named("Namespace", "nereid"), namespace)
    ]
    needed = [each for each in applied.render.objects if each["kind"] in _FOR_PODS]
    secrets = applied.render.names("Secret")
    needed += [_secret(key, values, namespace) for key, values in SECRETS.items() if key not in secrets]
    for sent in (namespaces, needed):
        result = kubectl("apply", "--server-side", "--filename=-", sent=sent)
        assert result.accepted, result.stderr
    return applied


def try_pods(applied: Applied) -> None:
    """Dry-run every pod of an overlay, and the workloads that KServe is assumed to create; nothing is kept."""
    for pod in pods_of(applied.render):
        applied.pods[title(pod)] = create_dry(pod)
    for service, component, pod in components(applied.render):
        assumed = knative_service_of(pod, component) if mode_of(service) == KNATIVE else deployment_of(pod)
        result = create_dry(assumed)
        assert result.accepted, f"{title(pod)}: {result.stderr}"
        applied.templates[pod["metadata"]["name"]] = result.object["spec"]["template"]


def apply_without_pods(applied: Applied) -> None:
    """Apply an overlay as documented, first as a dry run; a quota of no pods lets none start."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods", "namespace": applied.namespace},
    }
    result = kubectl("apply", "--server-side", "--filename=-", sent=[{**quota, "spec": {"hard": {"pods": "0"}}}])
    assert result.accepted, result.stderr
    wait_for(
        "the quota", lambda: (find("resourcequota", "no-pods", applied.namespace) or {}).get("status", {}).get("hard")
    )
    for way in ("--dry-run=server", "--dry-run=none"):
        applied.results[way] = kubectl("apply", "--server-side", way, "--filename=-", sent=applied.render.objects)


def create_dry(each: Object) -> Result:
    """Dry-run an object; the API server's result."""
    return kubectl("create", "--dry-run=server", "--output=json", "--filename=-", sent=[each])


def remove(namespace: str, *, wait: bool = False) -> None:
    """Delete a namespace with its objects."""
    result = kubectl(
        "delete", "namespace", namespace, "--ignore-not-found", f"--wait={str(wait).lower()}", "--timeout=180s"
    )
    assert result.accepted, result.stderr


def components(rendered: Render) -> Iterator[tuple[Object, Any, dict[str, Any]]]:
    """Components of InferenceServices with a mode: the service, the component, the assumed pod."""
    runtimes = {each["metadata"]["name"]: each for each in rendered.of_kind("ServingRuntime")}
    for service in rendered.of_kind("InferenceService"):
        if "serving.kserve.io/deploymentMode" in service["metadata"].get("annotations", {}):
            for name, component in components_of(service):
                runtime = runtimes.get(component.get("model", {}).get("runtime"))
                yield service, component, pod_of(service, name, component, runtime)


def deployment_of(pod: Object) -> dict[str, Any]:
    """A Deployment with this pod template."""
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": pod["metadata"]["labels"]},
            "template": {"metadata": pod["metadata"], "spec": pod["spec"]},
        },
    }


def knative_service_of(pod: Object, component: Any) -> dict[str, Any]:
    """The Knative Service that KServe writes for this pod."""
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations")}
    own = {"containerConcurrency": component.get("containerConcurrency", 0)}
    if "timeout" in component:
        own |= dict.fromkeys(("timeoutSeconds", "responseStartTimeoutSeconds"), component["timeout"])
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {key: pod["metadata"][key] for key in ("name", "namespace")},
        "spec": {"template": {"metadata": metadata, "spec": {**own, **pod["spec"]}}},
    }


def revision_pod_of(template: Any, name: str, namespace: str) -> dict[str, Any]:
    """The pod that Knative 1.21 creates from the template of a Service, without the queue-proxy.

    Args:
        template: of the Service.
        name: of the Service.
        namespace: of both.
    """
    revision = f"{name}-00001"
    spec = deepcopy(template["spec"])
    spec["terminationGracePeriodSeconds"] = spec.pop("timeoutSeconds")
    for key in ("containerConcurrency", "responseStartTimeoutSeconds"):
        spec.pop(key, None)
    for each in spec["containers"]:
        # All containers wait until the queue-proxy has no request in progress.
        each["lifecycle"] = {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}
        each["terminationMessagePolicy"] = "FallbackToLogsOnError"
        # The queue-proxy probes in place of the kubelet.
        each.pop("readinessProbe", None)
        for port in each.get("ports", []):
            port["name"] = "user-port"
            each["env"].append({"name": "PORT", "value": str(port["containerPort"])})
        variables = {"K_REVISION": revision, "K_CONFIGURATION": name, "K_SERVICE": name}
        each["env"] += [{"name": key, "value": value} for key, value in variables.items()]
    # Pods of a revision prefer different nodes.
    term = {"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"serving.knative.dev/revision": revision}}}  # fmt: skip
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    spec["affinity"] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    metadata = {"name": name, "namespace": namespace, **deepcopy(template["metadata"])}
    annotations = metadata["annotations"]
    metadata["annotations"] = {k: v for k, v in annotations.items() if not k.startswith("autoscaling.knative.dev/")}
    return {"metadata": metadata, "spec": spec}


def differences(assumed: Any, made: Any) -> list[str]:
    """Differences field by field; items of lists are matched by name."""
    expected, got = dict(_flat(assumed)), dict(_flat(made))
    return [
        f"{path}: assumed {expected.get(path, 'nothing')!r}, made {got.get(path, 'nothing')!r}"
        for path in sorted({*expected, *got})
        if expected.get(path) != got.get(path) or (path in expected) != (path in got)
    ]


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and node and all(isinstance(each, Mapping) for each in node):
        if all("name" in each for each in node):
            yield f"{path}[]", [each["name"] for each in node]  # their order
        for index, each in enumerate(node):
            yield from _flat(each, f"{path}[{each.get('name', index)}]")
    else:
        yield path, node


def _moved(each: Object | None, name: str) -> dict[str, Any]:
    assert each is not None
    return {**each, "metadata": {**each["metadata"], "name": name}}


def _secret(name: str, values: Mapping[str, str], namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}
