"""The pods that a cluster would make of what is rendered."""

from collections.abc import Iterator
from typing import Any

from tests.manifests.rendering import Object, Render

MODE = "serving.kserve.io/deploymentMode"
STANDARD, KNATIVE = "Standard", "Knative"
COMPONENTS = ("predictor", "transformer", "explainer")

_FIRST = "kserve-container"
_LISTENERS = (_FIRST, "transformer-container")
# What a component says beside the fields of a PodSpec.
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
    """Each component that an InferenceService has, with its name.

    A canary of Standard mode is a predictor too: the stable one, and its own fields over that.
    """
    spec = service["spec"]
    yield from ((name, spec[name]) for name in COMPONENTS if name in spec)
    for each in spec.get("canary", []):
        yield "predictor", _over(spec["predictor"], each["predictor"])


def _over(stable: Any, canary: Any) -> Any:
    """Maps are merged, anything else is replaced, lists as a whole."""
    if not isinstance(stable, dict) or not isinstance(canary, dict):
        return canary
    return {**stable, **{key: _over(stable.get(key), value) for key, value in canary.items()}}


def pods_of(render: Render) -> list[dict[str, Any]]:
    """The pods of everything that is rendered, as manifests of kind Pod."""
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
    """The Pod that KServe makes for a component of an InferenceService (read in the controller of KServe 0.17).

    Without what is injected later: Knative's queue-proxy, the storage initializer of a `model` with a storageUri, and
    IRSA's token.

    Args:
        service: the InferenceService.
        name: which component.
        component: its spec, where it is not `spec.<name>`.
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
        "app": f"isvc.{full}",
    }
    annotations = {**service["metadata"].get("annotations", {}), **component.get("annotations", {})}
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


def _containers(component: Any, runtime: Object | None) -> list[Any]:
    if "model" not in component or runtime is None:
        return list(component.get("containers", []))
    model = {
        key: value for key, value in component["model"].items() if key in {"args", "env", "resources", "image", "ports"}
    }
    containers = []
    for each in runtime["spec"]["containers"]:
        merged = {**each, **model}
        for key in ("args", "env"):
            if key in each or key in model:
                merged[key] = [*each.get(key, []), *model.get(key, [])]
        containers.append(merged if each["name"] == _FIRST else each)
    return containers


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
    """All containers of a pod, those that run first at the front."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
