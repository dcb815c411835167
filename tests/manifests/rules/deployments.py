"""Labels, scaling and ingress of manifests without KServe."""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from tests.manifests import programs
from tests.manifests.environment import environment_of
from tests.manifests.pod import KNATIVE, containers_of, mode_of, pods_of
from tests.manifests.programs import TRANSFORMER, WORKER
from tests.manifests.rendering import Object, Render, title
from tests.manifests.rules.selectors import backends_of, matches, selects, target_ports
from transformer.settings import TransformerSettings
from worker.settings import Settings as WorkerSettings

_DEFAULT_GRACE_S, _DEFAULT_PROGRESS_S = 30, 600
_WORKER_ENDS_S = 15
# How long an idle connection is kept: by nginx; by Go programs with the default, such as Knative's queue-proxy, KEDA's
# interceptor and Traefik; by Envoy.
_NGINX_IDLE_S, _GO_IDLE_S, _ENVOY_IDLE_S = 60, 90, 3600
# Defaults of ingress-nginx, without annotations.
_ANNOTATION = "nginx.ingress.kubernetes.io/proxy-"
_DEFAULT_BODY, _DEFAULT_TIMEOUT_S = "1m", 60
# An ALB does not limit the body of a request to pods; its idle timeout ends a connection on which nothing is sent.
_ALB, _ALB_IDLE = "alb", "alb.ingress.kubernetes.io/load-balancer-attributes"
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NAMESPACE = "kubernetes.io/metadata.name"


def deployments_select_their_own_pods(render: Render) -> Iterator[str]:
    """The API server rejects a Deployment that does not; two that select the same pods would fight for them."""
    deployments = list(render.of_kind("Deployment"))
    for each in deployments:
        for other in deployments:
            selected = matches(each["spec"]["selector"], other["spec"]["template"]["metadata"].get("labels", {}))
            if selected != (each is other):
                yield f"{title(each)}: {'selects' if selected else 'does not select'} the pods of {title(other)}"


def deployments_have_one_scaler(render: Render) -> Iterator[str]:
    """At most one scaler sets the number of pods, between two bounds."""
    scaled: list[str] = []
    for each in render.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        target = each["spec"]["scaleTargetRef"]
        deployment = render.named(target.get("kind", "Deployment"), target["name"])
        if deployment is None:
            yield f"{title(each)}: scales {target['name']}, which is not rendered"
            continue
        if "replicas" in deployment["spec"]:
            yield f"{title(each)}: {title(deployment)} has replicas; each apply would reset them, expected none"
        if title(deployment) in scaled:
            yield f"{title(each)}: {title(deployment)} is scaled twice"
        scaled.append(title(deployment))
        lowest, most = bounds_of(each)
        if not (0 if each["kind"] == "ScaledObject" else 1) <= lowest <= most:
            yield f"{title(each)}: from {lowest} to {most} pods"


def services_lead_to_open_ports_of_one_deployment(render: Render) -> Iterator[str]:
    """A Service leads to one workload, whichever kind it is; to either blue or green."""
    for service in render.of_kind("Service"):
        chosen = [pod for pod in pods_of(render) if selects(service, pod)]
        if len(chosen) > 1:
            yield f"{title(service)}: leads to the pods of {' and '.join(title(pod) for pod in chosen)}"
        for pod in chosen:
            if closed := set(target_ports(service, pod)) - _open_ports(pod, render):
                yield f"{title(service)}: leads to ports {sorted(closed)} of {title(pod)}, expected open ones"


def deployments_let_requests_finish(render: Render) -> Iterator[str]:
    """Like `requests_end_before_the_pod_does`, which covers InferenceServices."""
    for each in render.of_kind("Deployment"):
        spec = each["spec"]["template"]["spec"]
        grace = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
        for settings in _settings(render, each["metadata"]["name"]):
            stops = programs.stop_faults(spec["containers"], grace, settings)
            yield from (f"{title(each)}: {fault}" for fault in stops)


def workers_let_messages_finish(render: Render) -> Iterator[str]:
    """As docs/queues.md says; what is not finished is delivered again only after its time is over."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            if programs.program_of(container) != WORKER:
                continue
            try:
                given = programs.settings_of("WORKER_", environment_of(container, pod, render))
            except ValidationError:  # another rule reports it
                continue
            assert isinstance(given, WorkerSettings)
            wanted = given.wait_s + given.grace_s + _WORKER_ENDS_S
            grace = pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
            if grace < wanted:
                yield f"{title(pod)}: killed after {grace} s, may take {wanted:g} s"


def rollouts_wait_for_slow_starts(render: Render) -> Iterator[str]:
    """Otherwise a rollout is reported as failed while a pod starts within its startupProbe."""
    for each in render.of_kind("Deployment"):
        probes = [one.get("startupProbe", {}) for one in each["spec"]["template"]["spec"]["containers"]]
        slowest_s = max(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) for probe in probes)
        if (given := each["spec"].get("progressDeadlineSeconds", _DEFAULT_PROGRESS_S)) < slowest_s:
            yield f"{title(each)}: progressDeadlineSeconds {given}, its pods may take {slowest_s} s to start"


def connections_outlive_those_of_proxies(render: Render) -> Iterator[str]:
    """A request on a connection that the transformer is just closing is lost: the proxy must close it first."""
    for ingress in render.of_kind("Ingress"):
        idle_s = _limits(ingress)[1] if ingress["spec"].get("ingressClassName") == _ALB else _NGINX_IDLE_S
        for name, _ in backends_of(ingress):
            yield from _closed_first(title(ingress), idle_s, _of_service(name, render))
    for route in render.of_kind("InterceptorRoute"):
        yield from _closed_first(title(route), _GO_IDLE_S, _of_service(route["spec"]["target"]["service"], render))
    for route in render.of_kind("HTTPRoute"):
        for name, _ in backends_of(route):
            yield from _closed_first(f"{title(route)} by Envoy", _ENVOY_IDLE_S, _of_service(name, render))
    for service in render.of_kind("InferenceService"):
        # KServe makes an HTTPRoute for each InferenceService of Standard mode.
        front = ("Knative's queue", _GO_IDLE_S) if mode_of(service) == KNATIVE else ("Envoy", _ENVOY_IDLE_S)
        for pod in pods_of(render):
            yield from _closed_first(*front, _settings(render, pod["metadata"]["name"]))


def _closed_first(front: str, idle_s: float, behind: Iterable[TransformerSettings]) -> Iterator[str]:
    for settings in behind:
        if settings.keep_alive_s <= idle_s:
            kept = f"keeps idle connections for {idle_s:g} s"
            yield f"{front}: {kept}, the transformer for {settings.keep_alive_s:g} s, expected more"


def ingresses_accept_what_the_transformer_accepts(render: Render) -> Iterator[str]:
    """The transformer rejects a body that is too large, and times out, before an Ingress does."""
    for ingress in render.of_kind("Ingress"):
        body, timeout = _limits(ingress)
        for settings, wait in _behind(ingress, render):
            if _bytes(body) < settings.max_body_bytes:
                yield f"{title(ingress)}: accepts bodies of {body}, the transformer of {settings.max_body_bytes} bytes"
            if timeout <= (longest := max(wait, settings.request_timeout_s)):
                yield f"{title(ingress)}: times out after {timeout} s, its backend after {longest} s"
    for route in render.of_kind("InterceptorRoute"):
        given = route["spec"].get("timeouts", {})
        readiness, header, whole = (
            _seconds(given.get(key, "0s")) for key in ("readiness", "responseHeader", "request")
        )
        if not readiness or whole < readiness + header:
            yield f"{title(route)}: timeouts {given}, expected a readiness, and a request as long as both others"
        for settings in _of_service(route["spec"]["target"]["service"], render):
            if header <= settings.request_timeout_s:
                yield f"{title(route)}: times out after {header} s, the server after {settings.request_timeout_s} s"


def _limits(ingress: Object) -> tuple[str, float]:
    """The largest body, in nginx' notation, and the seconds that a response may take."""
    annotations = ingress["metadata"].get("annotations", {})
    if ingress["spec"].get("ingressClassName") == _ALB:
        idle = re.search(r"idle_timeout\.timeout_seconds=([0-9]+)", annotations.get(_ALB_IDLE, ""))
        return "0", float(idle[1]) if idle else _DEFAULT_TIMEOUT_S
    body = annotations.get(f"{_ANNOTATION}body-size", _DEFAULT_BODY)
    return body, float(annotations.get(f"{_ANNOTATION}read-timeout", _DEFAULT_TIMEOUT_S))


def scaling_from_zero_is_triggered_by_the_interceptor(render: Render) -> Iterator[str]:
    """A scaler that goes to zero has a push trigger of a route to its pods, and no Ingress bypasses the interceptor."""
    for scaled in render.of_kind("ScaledObject"):
        name = scaled["spec"]["scaleTargetRef"]["name"]
        pods = [pod for pod in pods_of(render) if pod["metadata"]["name"] == name]
        if bounds_of(scaled)[0] or any(
            programs.program_of(each) == WORKER for pod in pods for each in containers_of(pod)
        ):
            continue  # no request starts a worker: its queue does
        routes = [
            render.named("InterceptorRoute", trigger["metadata"].get("interceptorRoute", ""))
            for trigger in scaled["spec"]["triggers"]
            if trigger["type"] == "external-push"
        ]
        services = {route["spec"]["target"]["service"] for route in routes if route}
        if not any(selects(each, pod) for each in render.of_kind("Service") for pod in pods if _name(each) in services):
            yield f"{title(scaled)}: expected external-push by an InterceptorRoute that leads to {name}"
        hosts = {host for route in routes if route for host in _hosts(route)}
        for ingress in render.of_kind("Ingress"):
            for service in (render.named("Service", backend) for backend, _ in backends_of(ingress)):
                if service and any(selects(service, pod) for pod in pods):
                    yield f"{title(ingress)}: leads to {title(service)} past the interceptor, which starts its pods"
            if others := set(_hosts(ingress)) - hosts:
                yield f"{title(ingress)}: hosts {sorted(others)}, which no InterceptorRoute has"
        yield from (f"{title(scaled)}: {fault}" for fault in _closed_to_interceptor(scaled, pods, render))


def _closed_to_interceptor(scaled: Object, pods: list[Any], render: Render) -> Iterator[str]:
    """The interceptor runs in the namespace of the scaler."""
    for trigger in scaled["spec"]["triggers"]:
        namespace = trigger["metadata"].get("scalerAddress", "").partition(":")[0].split(".")[1:2]
        selectors = [
            peer.get("namespaceSelector", {})
            for pod in pods
            for policy in render.of_kind("NetworkPolicy")
            if matches(policy["spec"]["podSelector"], pod["metadata"]["labels"])
            for rule in policy["spec"].get("ingress", [])
            for peer in rule.get("from", [])
        ]
        if not any(each and matches(each, {_NAMESPACE: "".join(namespace)}) for each in selectors):
            yield f"no NetworkPolicy admits the interceptor, from the namespace {namespace}"


def bounds_of(scaler: Object) -> tuple[int, int]:
    """The fewest and the most pods of an HPA or a ScaledObject."""
    spec = scaler["spec"]
    if scaler["kind"] == "ScaledObject":
        return spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
    return spec.get("minReplicas", 1), spec["maxReplicas"]


def _hosts(route: Object) -> list[str]:
    rules = route["spec"].get("rules", [])
    if route["kind"] == "Ingress":
        return [rule["host"] for rule in rules if "host" in rule]
    return [host for rule in rules for host in rule.get("hosts", [])]


def _behind(ingress: Object, render: Render) -> Iterator[tuple[TransformerSettings, float]]:
    """The settings of the backend of an Ingress, and how long an interceptor between them waits, in seconds."""
    for name, _ in backends_of(ingress):
        yield from ((settings, 0.0) for settings in _of_service(name, render))
        service = render.named("Service", name)
        if service and service["spec"].get("type") == "ExternalName":
            for route in render.of_kind("InterceptorRoute"):
                wait = _seconds(route["spec"].get("timeouts", {}).get("request", "0s"))
                yield from ((settings, wait) for settings in _of_service(route["spec"]["target"]["service"], render))


def _of_service(name: str, render: Render) -> Iterator[TransformerSettings]:
    service = render.named("Service", name)
    for pod in pods_of(render):
        if service and selects(service, pod):
            yield from _settings(render, pod["metadata"]["name"])


def _settings(render: Render, pod_name: str) -> Iterator[TransformerSettings]:
    for pod in pods_of(render):
        for container in containers_of(pod):
            if pod["metadata"]["name"] != pod_name or programs.program_of(container) != TRANSFORMER:
                continue
            if settings := programs.transformer_settings(environment_of(container, pod, render)):
                yield settings


def _open_ports(pod: Object, render: Render) -> set[int]:
    """Ports at which our programs are reachable from other pods; of other programs, those that they declare."""
    found: set[int] = set()
    for container in containers_of(pod):
        if programs.program_of(container):
            listeners = programs.listeners_of(container, environment_of(container, pod, render))
            found |= {each.port for each in listeners if each.outside}
        else:
            found |= {port["containerPort"] for port in container.get("ports", [])}
    return found


def _name(each: Object) -> str:
    return str(each["metadata"]["name"])


def _seconds(duration: str) -> float:
    """Go's notation: `300s`, `1m30s`."""
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(h|ms|m|s)", duration))


def _bytes(size: str) -> int:
    """Nginx' notation, `96m`; 0 is unlimited."""
    number, unit = re.fullmatch(r"([0-9]+)([kmg]?)", size.lower()).groups()  # type: ignore[union-attr]  # a fault
    return int(number) * 1024 ** "_kmg".index(unit or "_") or sys.maxsize


RULES = (
    deployments_select_their_own_pods,
    deployments_have_one_scaler,
    services_lead_to_open_ports_of_one_deployment,
    deployments_let_requests_finish,
    workers_let_messages_finish,
    rollouts_wait_for_slow_starts,
    connections_outlive_those_of_proxies,
    ingresses_accept_what_the_transformer_accepts,
    scaling_from_zero_is_triggered_by_the_interceptor,
)
