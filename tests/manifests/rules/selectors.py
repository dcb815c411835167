"""Labels: selectors match our pods, as KServe or our Deployments label them."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.manifests import programs
from tests.manifests.environment import environment_of
from tests.manifests.pod import KNATIVE, containers_of, mode_of, pods_of
from tests.manifests.programs import TRANSFORMER
from tests.manifests.rendering import Object, Render, render, title

BASE, WORKER = "base", "worker"  # whose pods monitoring and jobs select
# Overlays admit clients; base alone admits none.
ADMITS_NO_CLIENT = {BASE}

_PATHS = {
    "NetworkPolicy": ("spec", "podSelector"),
    "PodDisruptionBudget": ("spec", "selector"),
    "PodMonitor": ("spec", "selector"),
}
_OWNER = "serving.kserve.io/inferenceservice"
_QUEUE_PROXY = {8012, 8112}


def selectors_match_pods(given: Render) -> Iterator[str]:
    """Pods of the same render; where none of them serves, of base and of the worker too."""
    pods = _pods(given)
    for each in given.of_kind(*_PATHS):
        selector: Any = each
        for key in _PATHS[each["kind"]]:
            selector = selector.get(key, {})
        if not any(matches(selector, pod["metadata"].get("labels", {})) for pod in pods):
            yield f"{title(each)}: {selector} matches no pod of {', '.join(title(pod) for pod in pods)}"


def services_and_their_monitors_match(given: Render) -> Iterator[str]:
    """A Service selects pods; a ServiceMonitor selects a Service, ours or one of KServe's (labelled like its pods)."""
    pods = _pods(given)
    services = list(given.of_kind("Service"))
    for each in services:
        selector = {"matchLabels": each["spec"].get("selector", {})}
        if selector["matchLabels"] and not any(matches(selector, _labels(pod)) for pod in pods):
            yield f"{title(each)}: {selector['matchLabels']} matches no pod"
    for each in given.of_kind("ServiceMonitor"):
        if not any(matches(each["spec"]["selector"], _labels(one)) for one in (*services, *pods)):
            yield f"{title(each)}: {each['spec']['selector']} matches no Service"


def monitored_ports_are_open(given: Render) -> Iterator[str]:
    """A PodMonitor scrapes a port at which a container is reachable from other pods."""
    sources = (given,) if _serves(given) else (given, render(BASE), render(WORKER))
    listening = {
        listener.port
        for source in sources
        for pod in pods_of(source)
        for container in containers_of(pod)
        for listener in programs.listeners_of(container, environment_of(container, pod, source))
        if listener.outside
    }
    names = {
        port["name"]
        for pod in _pods(given)
        for container in containers_of(pod)
        for port in container.get("ports", [])
        if "name" in port
    }
    for each in given.of_kind("PodMonitor"):
        for endpoint in each["spec"].get("podMetricsEndpoints", []):
            number, name = endpoint.get("portNumber"), endpoint.get("port")
            relabelled = [
                int(one["replacement"].rpartition(":")[2])
                for one in endpoint.get("relabelings", [])
                if one.get("targetLabel") == "__address__"
            ]
            scraped = set(relabelled or [number or name])
            if not scraped <= listening | names:
                yield f"{title(each)}: scrapes {sorted(scraped)}, expected some of {sorted(listening)}, {sorted(names)}"


def services_have_a_name_that_kserve_does_not_use(given: Render) -> Iterator[str]:
    """KServe makes a Service with the name of the InferenceService, and Knative one for each component."""
    for service in given.of_kind("InferenceService"):
        own = service["metadata"]["name"]
        taken = {own, f"{own}-predictor"} if mode_of(service) == KNATIVE else {f"{own}-predictor"}
        for name in sorted(taken & given.names("Service")):
            yield f"Service/{name}: KServe makes one with this name for {title(service)}"


def routes_have_a_name_that_kserve_does_not_use(given: Render) -> Iterator[str]:
    """In Standard mode KServe's Ingress or HTTPRoute has the name of the InferenceService, and overwrites others."""
    for service in given.of_kind("InferenceService"):
        own = service["metadata"]["name"]
        for route in given.of_kind("Ingress", "HTTPRoute"):
            if route["metadata"]["name"] in {own, f"{own}-predictor", f"{own}-transformer"}:
                yield f"{title(route)}: KServe makes one with this name for {title(service)}"


def routes_lead_to_services(given: Render) -> Iterator[str]:
    """Services of the render, or of KServe in Standard mode: port 80, and each further port of the container."""
    ports: set[tuple[str, str | int]] = set()
    for each in given.of_kind("Service"):
        for port in each["spec"]["ports"]:
            ports |= {(each["metadata"]["name"], port[key]) for key in ("port", "name") if key in port}
    for pod in _pods(given):
        if _OWNER in _labels(pod):
            numbers = [port["containerPort"] for each in containers_of(pod) for port in each.get("ports", [])]
            ports |= {(pod["metadata"]["name"], port) for port in (80, *numbers[1:])}
    for route in given.of_kind("HTTPRoute", "GRPCRoute", "Ingress", "InterceptorRoute"):
        for name, port in backends_of(route):
            if (name, port) not in ports:
                yield f"{title(route)}: {name}:{port}, expected one of {sorted(ports, key=str)}"


def backends_of(route: Object) -> list[tuple[str, str | int]]:
    """Name and port (name or number) of each Service that a route of any kind leads to."""
    spec = route["spec"]
    if route["kind"] == "InterceptorRoute":
        return [(spec["target"]["service"], spec["target"].get("portName") or spec["target"]["port"])]
    if route["kind"] in {"HTTPRoute", "GRPCRoute"}:
        return [(each["name"], each["port"]) for rule in spec["rules"] for each in rule["backendRefs"]]
    paths = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
    services = [path["backend"]["service"] for path in paths]
    return [(each["name"], each["port"].get("name") or each["port"]["number"]) for each in services]


def load_balancers_reach_the_pods(given: Render) -> Iterator[str]:
    """An ALB has addresses and no namespace: a policy must name them, for each port that its Ingress leads to."""
    for ingress in given.of_kind("Ingress"):
        for name, port in backends_of(ingress) if ingress["spec"].get("ingressClassName") == "alb" else []:
            service = given.named("Service", name)
            for pod in pods_of(given) if service else []:
                if not (service and selects(service, pod)):
                    continue
                chosen = [each for each in service["spec"]["ports"] if port in (each.get("name"), each["port"])]
                wanted = set(target_ports({"spec": {**service["spec"], "ports": chosen}}, pod))
                if closed := sorted(wanted - _opened_to_addresses(pod, given)):
                    yield f"{title(ingress)}: ports {closed} of {title(pod)} are open to no ipBlock, expected the ALB's"


def _opened_to_addresses(pod: Object, given: Render) -> set[int]:
    policies = [each for each in given.of_kind("NetworkPolicy") if matches(each["spec"]["podSelector"], _labels(pod))]
    rules = [rule for each in policies for rule in each["spec"].get("ingress", [])]
    return {port["port"] for rule in rules if any("ipBlock" in peer for peer in rule["from"]) for port in rule["ports"]}


def pods_that_serve_are_isolated(given: Render) -> Iterator[str]:
    """Serving pods and the pods beside them have policies for ingress and for egress."""
    for pod in pods_of(given) if _serves(given) else []:
        kinds = {
            kind
            for each in given.of_kind("NetworkPolicy")
            if matches(each["spec"]["podSelector"], _labels(pod))
            for kind in each["spec"].get("policyTypes", ["Ingress"])
        }
        if kinds != {"Ingress", "Egress"}:
            yield f"{title(pod)}: NetworkPolicies for {sorted(kinds)}, expected Ingress and Egress"


def policies_admit_clients(given: Render) -> Iterator[str]:
    """Where pods are isolated, their exposed ports are open to some peer; on Knative those of the queue-proxy."""
    if given.name in ADMITS_NO_CLIENT:
        return
    for pod, wanted in _exposed(given):
        policies = [
            each
            for each in given.of_kind("NetworkPolicy")
            if matches(each["spec"]["podSelector"], _labels(pod))
            and "Ingress" in each["spec"].get("policyTypes", ["Ingress"])
        ]
        rules = [rule for each in policies for rule in each["spec"].get("ingress", [])]
        opened = {port.get("port") for rule in rules for port in rule.get("ports", [])}
        to_all = any(not rule.get("ports") for rule in rules)
        if policies and not to_all and wanted - opened:
            yield f"{title(pod)}: ports {sorted(wanted - opened)} are closed to every peer"


def _exposed(given: Render) -> Iterator[tuple[Object, set[int]]]:
    """Pods with the ports that clients use: declared for KServe's pods, the targets of Services for others."""
    for service in given.of_kind("InferenceService"):
        for pod in _pods(given):
            if _labels(pod).get(_OWNER) == service["metadata"]["name"]:
                ports = {port["containerPort"] for each in containers_of(pod) for port in each.get("ports", [])}
                yield pod, _QUEUE_PROXY if mode_of(service) == KNATIVE else ports
    for pod in pods_of(given):
        if _OWNER not in _labels(pod):
            services = [each for each in given.of_kind("Service") if selects(each, pod)]
            yield pod, {port for each in services for port in target_ports(each, pod) if port}


def selects(service: Object, pod: Object) -> bool:
    """Whether a Service leads to a pod; an ExternalName Service never does, though `labels` adds to its selector."""
    selector = service["spec"].get("selector")
    is_name = service["spec"].get("type") == "ExternalName"
    return bool(selector) and not is_name and matches({"matchLabels": selector}, _labels(pod))


def target_ports(service: Object, pod: Object) -> list[int]:
    """The pod's port for each port of the Service; 0 where no container has a port of that name."""
    named = {port.get("name"): port["containerPort"] for each in containers_of(pod) for port in each.get("ports", [])}
    given = [port.get("targetPort", port["port"]) for port in service["spec"]["ports"]]
    return [port if isinstance(port, int) else named.get(port, 0) for port in given]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selectors."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _fits(expression, labels) for expression in selector.get("matchExpressions", [])
    )


def _fits(expression: Any, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    return {
        "In": value in expression.get("values", []),
        "NotIn": value not in expression.get("values", []),
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[str(expression["operator"])]


def _labels(each: Object) -> dict[str, str]:
    return dict(each["metadata"].get("labels", {}))


def _pods(given: Render) -> list[dict[str, Any]]:
    return pods_of(given) if _serves(given) else [*pods_of(given), *pods_of(render(BASE)), *pods_of(render(WORKER))]


def _serves(given: Render) -> bool:
    """Whether the transformer runs in the pod of an InferenceService or a Deployment."""
    return any(programs.program_of(each) == TRANSFORMER for pod in pods_of(given) for each in containers_of(pod))


RULES = (
    selectors_match_pods,
    services_and_their_monitors_match,
    monitored_ports_are_open,
    services_have_a_name_that_kserve_does_not_use,
    routes_have_a_name_that_kserve_does_not_use,
    routes_lead_to_services,
    load_balancers_reach_the_pods,
    pods_that_serve_are_isolated,
    policies_admit_clients,
)
