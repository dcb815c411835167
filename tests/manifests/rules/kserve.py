"""Requirements of webhooks and controllers beyond the schemas (KServe 0.20, Knative 1.15 to 1.21)."""

from collections.abc import Iterator
from typing import Any

from tests.manifests.pod import KNATIVE, MODE, STANDARD, components_of, mode_of, pod_of
from tests.manifests.rendering import Object, Render, title

_FIRST, _TRANSFORMER = "kserve-container", "transformer-container"
_CLASS, _KNATIVE_CLASS = "serving.kserve.io/autoscalerClass", "autoscaling.knative.dev/class"
_KPA = "kpa.autoscaling.knative.dev"
_LONGEST_REQUEST_S = 600  # Knative's max-revision-timeout-seconds, unless its ConfigMap says more
_PORTS_OF_KNATIVE = {8008, 8012, 8013, 8022, 8112, 9090, 9091}
_PERIOD_S = 2
_VARIABLES_OF_KNATIVE = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_NOT_ON_KNATIVE = {"deploymentStrategy", "autoScaling", "terminationGracePeriodSeconds", "restartPolicy", "hostname"}
_WITHOUT_FLAG = {
    "automountServiceAccountToken", "containers", "enableServiceLinks", "imagePullSecrets", "serviceAccountName",
    "volumes",
}  # fmt: skip
_VOLUMES_WITHOUT_FLAG = {"configMap", "emptyDir", "projected", "secret"}
_RESERVED_PATHS = {"", "/dev", "/dev/log"}  # /tmp and /var no longer since 1.13
_NOT_IN_A_CANARY = {"autoScaling", "maxReplicas", "scaleMetric", "scaleTarget", "workerSpec"}
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


def the_first_container_is_the_one_kserve_completes(render: Render) -> Iterator[str]:
    """KServe copies `kserve-container` over the first one, whatever that was."""
    for where, component in _components(render):
        names = [each["name"] for each in component.get("containers", [])]
        if "model" not in component and names[:1] != [_FIRST]:
            yield f"{where}: containers are {names}, expected {_FIRST} first"
        if len(names) != len(set(names)):
            yield f"{where}: containers are {names}, expected each name once"


def replicas_are_in_order(render: Render) -> Iterator[str]:
    """MinReplicas 0 on Knative alone; always an upper bound."""
    for where, component, service in _with_service(render):
        lowest, most = component.get("minReplicas", 1), component.get("maxReplicas")
        if most is None or most < max(lowest, 1):
            yield f"{where}: minReplicas {lowest}, maxReplicas {most}"
        if mode_of(service) == STANDARD and lowest < 1 and _class_of(service) != "keda":
            yield f"{where}: minReplicas {lowest}, expected 1 or more in Standard mode"


def deployment_mode_has_its_present_name(render: Render) -> Iterator[str]:
    """KServe replaces older names of the mode by the present one, and GitOps tools would see a difference."""
    for service in render.of_kind("InferenceService"):
        given = service["metadata"].get("annotations", {}).get(MODE, KNATIVE)
        if given not in {STANDARD, KNATIVE}:
            yield f"{title(service)}: deploymentMode {given}, expected {STANDARD} or {KNATIVE}"


def knative_exposes_one_port(render: Render) -> Iterator[str]:
    """Knative accepts one port in all containers together."""
    for where, component in _components(render, KNATIVE):
        ports = [port for each in component.get("containers", []) for port in each.get("ports", [])]
        numbers = [port["containerPort"] for port in ports]
        if len(numbers) != 1 and "containers" in component:
            yield f"{where}: ports {numbers}, expected exactly one"
        for port in ports:
            if port.get("name", "") not in {"", "http1", "h2c"} or port.get("protocol", "TCP") != "TCP":
                yield f"{where}: port {port}, expected TCP, named http1, h2c or not at all"
            if port["containerPort"] in _PORTS_OF_KNATIVE:
                yield f"{where}: port {port['containerPort']} is Knative's own"


def knative_gets_no_field_that_it_rejects(render: Render) -> Iterator[str]:
    """Where Knative rejects a field, the InferenceService never becomes ready; an unknown field is dropped silently."""
    for where, component in _components(render, KNATIVE):
        yield from (f"{where}: {field} is dropped" for field in sorted(_NOT_ON_KNATIVE & set(component)))
        for container in component.get("containers", []):
            name = container["name"]
            if "lifecycle" in container:
                yield f"{where}: the lifecycle of {name} is dropped"
            if not container.get("ports"):
                yield from (
                    f"{where}: {name} has a {probe}, which needs the port (or the flag multi-container-probing)"
                    for probe in _PROBES
                    if probe in container
                )
            elif reserved := _VARIABLES_OF_KNATIVE & {each["name"] for each in container.get("env", [])}:
                yield f"{where}: {name} sets {', '.join(sorted(reserved))}"
            # Seen on a cluster: without one the kubelet probes the queue-proxy every 10 s, and a first response waits.
            period = container.get("readinessProbe", {"periodSeconds": 1}).get("periodSeconds", 10)
            if period > _PERIOD_S:
                yield f"{where}: the readinessProbe of {name} has a period of {period} s, expected {_PERIOD_S} or less"


def knative_needs_no_feature_flag(render: Render) -> Iterator[str]:
    """No flag beyond Knative's defaults (1.15): any other takes an administrator of the cluster."""
    for where, component, service in _with_service(render, KNATIVE):
        if MODE not in service["metadata"].get("annotations", {}):
            continue  # base: an overlay makes it acceptable to Knative
        spec = pod_of(service, component=component)["spec"]
        yield from (f"{where}: {field} needs a flag" for field in sorted(set(spec) - _WITHOUT_FLAG))
        for volume in spec.get("volumes", []):
            if not set(volume) & _VOLUMES_WITHOUT_FLAG:
                yield f"{where}: volume {volume['name']} needs a flag"
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if {"fieldRef", "resourceFieldRef"} & set(variable.get("valueFrom", {})):
                    yield f"{where}: {variable['name']} of {container['name']} needs the flag podspec-fieldref"
            for mount in container.get("volumeMounts", []):
                if mount["mountPath"].rstrip("/") in _RESERVED_PATHS:
                    yield f"{where}: {container['name']} mounts {mount['mountPath']}, which is reserved"


def requests_fit_the_timeout_of_knative(render: Render) -> Iterator[str]:
    """Knative's defaults reject a longer `timeout`."""
    for where, component in _components(render, KNATIVE):
        if component.get("timeout", 0) > _LONGEST_REQUEST_S:
            yield f"{where}: timeout {component['timeout']}, expected at most {_LONGEST_REQUEST_S}"


def knative_scales_by_requests(render: Render) -> Iterator[str]:
    """Knative scales by its own autoscaler; an HPA cannot reach zero."""
    for where, component, service in _with_service(render, KNATIVE):
        annotations = {**service["metadata"].get("annotations", {}), **component.get("annotations", {})}
        if annotations.get(_KNATIVE_CLASS, _KPA) != _KPA or _CLASS in annotations:
            yield f"{where}: autoscaler {annotations.get(_KNATIVE_CLASS) or annotations[_CLASS]}, expected Knative's"
        if component.get("scaleMetric", "concurrency") not in {"concurrency", "rps"}:
            yield f"{where}: scaleMetric {component['scaleMetric']}, expected concurrency or rps"
        limit = component.get("containerConcurrency", 0)
        if limit and component.get("scaleMetric") == "concurrency" and component.get("scaleTarget", 0) > limit:
            yield f"{where}: scaleTarget {component['scaleTarget']} is over containerConcurrency {limit}"


def standard_scales_by_resources_or_by_keda(render: Render) -> Iterator[str]:
    """Each class of autoscaler has its own fields."""
    for where, component, service in _with_service(render, STANDARD):
        chosen, metric = _class_of(service), component.get("scaleMetric")
        metrics = component.get("autoScaling", {}).get("metrics", [])
        if chosen not in {"hpa", "keda", "external", "none"}:
            yield f"{where}: autoscalerClass {chosen}, expected hpa, keda, external or none"
        if chosen == "hpa":
            if metric not in {"cpu", "memory"} and not metrics:
                yield f"{where}: scaleMetric {metric}, expected cpu or memory"
            if not 1 <= component.get("scaleTarget", 1) <= 100:
                yield f"{where}: scaleTarget {component['scaleTarget']}, expected 1 to 100 percent"
            yield from (f"{where}: metric {each['type']} needs keda" for each in metrics if each["type"] != "Resource")
        if chosen == "keda":
            if metric or not metrics:
                yield f"{where}: scaleMetric {metric} and {len(metrics)} metrics, expected autoScaling.metrics alone"
            yield from (f"{where}: {fault}" for each in metrics for fault in _keda_faults(each))
        if "canaryTrafficPercent" in component:
            yield f"{where}: canaryTrafficPercent is Knative's; Standard mode has spec.canary"


def canary_is_one_that_kserve_accepts(render: Render) -> Iterator[str]:
    """KServe 0.20 rejects a canary of a predictor with containers, without a name, or with a scaler of its own."""
    for service in render.of_kind("InferenceService"):
        stable, canaries = service["spec"]["predictor"], service["spec"].get("canary", [])
        where = f"{title(service)} canary"
        if not canaries:
            continue
        if mode_of(service) != STANDARD or "model" not in stable:
            yield f"{where}: expected Standard mode, and a predictor with a model"
        names = [stable.get("name"), *(each["predictor"].get("name") for each in canaries)]
        if None in names[1:] or len(names) != len(set(names)):
            yield f"{where}: names {names}, expected one for each canary, and no two alike"
        if sum(each["trafficPercent"] for each in canaries) > 100:
            yield f"{where}: more than 100 percent"
        for each in canaries:
            for field in sorted(_NOT_IN_A_CANARY & set(each["predictor"])):
                yield f"{where}: {field} is not allowed"


def _keda_faults(metric: Any) -> Iterator[str]:
    external = metric.get("external")
    if external is None:
        return
    if not external.get("metric", {}).get("query") or not external["metric"].get("serverAddress"):
        yield "an external metric without query or serverAddress"
    target = external.get("target", {})
    if "value" not in target or target.get("type") != "Value":
        yield f"target {target}, expected type Value with a value: KServe ignores other types"


def _class_of(service: Object) -> str:
    return str(service["metadata"].get("annotations", {}).get(_CLASS, "hpa"))


def _with_service(render: Render, *modes: str) -> Iterator[tuple[str, Any, Object]]:
    for service in render.of_kind("InferenceService"):
        if mode_of(service) in (modes or (STANDARD, KNATIVE)):
            for name, component in components_of(service):
                yield f"{title(service)} {name}", component, service


def _components(render: Render, *modes: str) -> Iterator[tuple[str, Any]]:
    return ((where, component) for where, component, _ in _with_service(render, *modes))


RULES = (
    the_first_container_is_the_one_kserve_completes,
    replicas_are_in_order,
    deployment_mode_has_its_present_name,
    knative_exposes_one_port,
    knative_gets_no_field_that_it_rejects,
    knative_needs_no_feature_flag,
    requests_fit_the_timeout_of_knative,
    knative_scales_by_requests,
    standard_scales_by_resources_or_by_keda,
    canary_is_one_that_kserve_accepts,
)
