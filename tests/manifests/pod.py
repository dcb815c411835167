"""Pods that a cluster creates from a render; tests/cluster/test_objects.py compares them with real ones."""

import math
from collections.abc import Iterator
from typing import Any

from tests.manifests.rendering import Object, Render

MODE = "serving.kserve.io/deploymentMode"
STANDARD, KNATIVE = "Standard", "Knative"
COMPONENTS = ("predictor", "transformer", "explainer")

# Annotations of the pod by which KServe passes a component's scaling to Knative.
_SCALING = "autoscaling.knative.dev/"
_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
_TIMEOUT_S, _GRACE_S = 300, 30  # defaults of Knative and Kubernetes
_FIRST = "kserve-container"
_LISTENERS = (_FIRST, "transformer-container")
# Fields of a component that are not in a PodSpec.
_EXTENSION = {
    "annotations", "autoScaling", "batcher", "canaryTrafficPercent", "containerConcurrency", "deploymentStrategy",
    "labels", "logger", "maxReplicas", "minReplicas", "model", "name", "scaleMetric", "scaleMetricType", "scaleTarget",
    "storageUris", "timeout", "workerSpec",
}  # fmt: skip
_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def mode_of(service: Object) -> str:
    """`Knative` or `Standard`; Knative is KServe's default, and RawDeployment Standard's older name."""
    given = service["metadata"].get("annotations", {}).get(MODE, KNATIVE)
    return {"RawDeployment": STANDARD, "Serverless": KNATIVE}.get(given, str(given))


def components_of(service: Object) -> Iterator[tuple[str, Any]]:
    """Components of an InferenceService, with their names.

    A canary of Standard mode is a predictor too: the stable one with the canary's fields over it. It is scaled by
    itself, and updated with the defaults of a Deployment.
    """
    spec = service["spec"]
    canaries = [_canary_of(spec["predictor"], each) for each in spec.get("canary", [])]
    for name in COMPONENTS:
        if name in spec:
            yield name, _beside(canaries, spec[name]) if name == "predictor" else spec[name]
    yield from (("predictor", canary) for canary in canaries)


def grace_s_of(service: Object, component: Any) -> int:
    """Seconds between SIGTERM and SIGKILL; Knative does not allow setting them, and uses the request's timeout."""
    if mode_of(service) == KNATIVE:
        return int(component.get("timeout", _TIMEOUT_S))
    return int(component.get("terminationGracePeriodSeconds", _GRACE_S))


def _beside(canaries: list[Any], stable: Any) -> Any:
    """The stable predictor; its minimum of pods is reduced by those of the canaries."""
    if not canaries or "minReplicas" not in stable:
        return stable
    return {**stable, "minReplicas": max(1, stable["minReplicas"] - sum(each["minReplicas"] for each in canaries))}


def _canary_of(stable: Any, canary: Any) -> Any:
    merged = _over(stable, canary["predictor"])
    kept = {key: value for key, value in merged.items() if key not in {"autoScaling", "deploymentStrategy"}}
    share = math.ceil(stable.get("minReplicas", 1) * canary["trafficPercent"] / 100)
    replicas = canary["predictor"].get("minReplicas", share)
    return {**kept, "minReplicas": replicas, "maxReplicas": max(replicas, 1), "scaleMetric": "cpu", "scaleTarget": 80}


def _over(stable: Any, canary: Any) -> Any:
    """Merge maps; replace other values, lists as a whole; empty values are ignored."""
    if not isinstance(stable, dict) or not isinstance(canary, dict):
        return canary or stable
    return {**stable, **{key: _over(stable.get(key), value) for key, value in canary.items()}}


def pods_of(render: Render) -> list[dict[str, Any]]:
    """Pods of all workloads of a render, as manifests of kind Pod."""
    runtimes = {each["metadata"]["name"]: each for each in render.of_kind("ServingRuntime", "ClusterServingRuntime")}
    pods = [
        pod_of(service, name, component, runtimes.get(component.get("model", {}).get("runtime")))
        for service in render.of_kind("InferenceService")
        for name, component in components_of(service)
    ]
    for each in render.of_kind(*_TEMPLATES):
        template: Any = each
        for key in _TEMPLATES[each["kind"]]:
            template = template[key]
        metadata = {**template.get("metadata", {}), "name": each["metadata"]["name"]}
        pods.append(_pod(metadata, each["metadata"].get("namespace"), template["spec"]))
    return pods + [dict(each) for each in render.of_kind("Pod")]


def pod_of(
    service: Object, name: str = "predictor", component: Any = None, runtime: Object | None = None
) -> dict[str, Any]:
    """The Pod that KServe 0.20 makes for a component of an InferenceService.

    On Knative this is the template of its Service. Without later additions: Knative's queue-proxy and the fields that
    move into it, the storage initializer of a `model` with a storageUri, and IRSA's token.

    Args:
        service: the InferenceService.
        name: of the component.
        component: its spec, by default `spec.<name>`.
        runtime: the ServingRuntime of a component with a `model`.
    """
    component = component or service["spec"][name]
    own = service["metadata"]["name"]
    full = "-".join(filter(None, (own, component.get("name"), name)))
    labels = {
        **service["metadata"].get("labels", {}),
        **component.get("labels", {}),
        "serving.kserve.io/inferenceservice": own,
        "component": name,
        **({"app": f"isvc.{full}"} if mode_of(service) == STANDARD else {}),
    }
    annotations = {**service["metadata"].get("annotations", {}), **component.get("annotations", {})}
    if mode_of(service) == KNATIVE:
        annotations |= _scaling_of(component)
    if uri := component.get("model", {}).get("storageUri"):
        annotations[_SOURCE] = uri
    spec = {key: value for key, value in component.items() if key not in _EXTENSION}
    if runtime:
        spec = {key: value for key, value in runtime["spec"].items() if key in {"volumes", "nodeSelector"}} | spec
    containers = _containers(component, runtime)
    spec["containers"] = [
        _complete(each, first=index == 0, service=service, name=name, component=component)
        for index, each in enumerate(containers)
    ]
    metadata = {"name": full, "labels": labels, "annotations": annotations}
    return _pod(metadata, service["metadata"].get("namespace"), spec)


def _scaling_of(component: Any) -> dict[str, str]:
    """KServe's annotations for scaling; Knative annotations of the InferenceService stay beside them."""
    given = {
        "min-scale": component.get("minReplicas", 1),
        "max-scale": component.get("maxReplicas") or None,
        "target": component.get("scaleTarget"),
        "metric": component.get("scaleMetric"),
    }
    return {f"{_SCALING}class": f"kpa.{_SCALING[:-1]}"} | {
        f"{_SCALING}{key}": str(value) for key, value in given.items() if value is not None
    }


def _containers(component: Any, runtime: Object | None) -> list[Any]:
    if "model" not in component or runtime is None:
        return list(component.get("containers", []))
    return [
        _merge_model(each, component["model"]) if each["name"] == _FIRST else each
        for each in runtime["spec"]["containers"]
    ]


def _merge_model(container: Any, model: Any) -> dict[str, Any]:
    """Arguments are appended, variables of the same name replaced, resources merged."""
    merged = {**container, **{key: model[key] for key in ("image", "ports") if key in model}}
    if "args" in model:
        merged["args"] = [*container.get("args", []), *model["args"]]
    if "env" in model:
        variables = {each["name"]: each for each in (*container.get("env", []), *model["env"])}
        merged["env"] = list(variables.values())
    if "resources" in model:
        merged["resources"] = _over(container.get("resources"), model["resources"])
    return merged


def _complete(container: Any, *, first: bool, service: Object, name: str, component: Any) -> dict[str, Any]:
    own = service["metadata"]["name"]
    completed = {**container}
    completed["env"] = [*container.get("env", []), {"name": "INFERENCE_SERVICE_NAME", "value": own}]
    if name == "transformer" and first:
        host = f"{own}-predictor.{service['metadata'].get('namespace', 'default')}"
        completed["args"] = list(container.get("args", []))
        options = {"--model_name": own, "--predictor_host": host, "--http_port": "8080"}
        if "containerConcurrency" in component:
            options["--workers"] = str(component["containerConcurrency"])
        for option, value in options.items():
            if not any(str(each).split("=")[0] == option for each in completed["args"]):
                completed["args"] += [option, value]
    if mode_of(service) == STANDARD and completed["name"] in _LISTENERS and "readinessProbe" not in container:
        ports = container.get("ports", [{"containerPort": 8080}])
        completed["readinessProbe"] = {"tcpSocket": {"port": ports[0]["containerPort"]}}
    return completed


def _pod(metadata: dict[str, Any], namespace: str | None, spec: Any) -> dict[str, Any]:
    placed = {"namespace": namespace} if namespace else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, **placed}, "spec": dict(spec)}


def containers_of(pod: Object) -> list[Any]:
    """All containers of a pod, init containers first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
