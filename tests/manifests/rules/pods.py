"""Security, resources and volumes of every pod."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.manifests.environment import environment_of, quantity
from tests.manifests.pod import MODE, STANDARD, components_of, containers_of, pod_of, pods_of
from tests.manifests.pod_security import violations
from tests.manifests.programs import listeners_of
from tests.manifests.rendering import Render, title
from tests.manifests.rules.objects import LOCAL
from tests.manifests.rules.selectors import matches

_CPU_TRITON = re.compile(r"(^|/)nereid/cpu-triton[:@]")
_ARCHITECTURE = "kubernetes.io/arch"
_ENFORCE = "pod-security.kubernetes.io/enforce"


def pods_keep_the_restricted_standard(render: Render) -> Iterator[str]:
    """Kubernetes' Pod Security Standard."""
    for pod in pods_of(render):
        yield from (f"{title(pod)}: {violation}" for violation in violations(pod))


def namespaces_enforce_the_restricted_standard(render: Render) -> Iterator[str]:
    """So that no other pod in it is less restricted."""
    for namespace in render.of_kind("Namespace"):
        if namespace["metadata"].get("labels", {}).get(_ENFORCE) != "restricted":
            yield f"{title(namespace)}: expected the label {_ENFORCE}: restricted"


def roots_are_read_only(render: Render) -> Iterator[str]:
    """Programs write to volumes alone."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{container['name']} in {title(pod)}: readOnlyRootFilesystem is not true"


def pods_mount_no_token(render: Render) -> Iterator[str]:
    """No program uses the API server; IRSA's webhook mounts a token of its own."""
    for pod in pods_of(render):
        account = render.named("ServiceAccount", pod["spec"].get("serviceAccountName", "")) or {}
        is_mounted = pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken"))
        if is_mounted is not False:
            yield f"{title(pod)}: automountServiceAccountToken is not false, here or in its ServiceAccount"


def containers_have_requests_and_limits(render: Render) -> Iterator[str]:
    """Requests and limits of CPU, memory and disk; a request is at most its limit."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            where = f"{container['name']} in {title(pod)}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for name in ("cpu", "memory", "ephemeral-storage"):
                if name not in requests or name not in limits:
                    yield f"{where}: expected a request and a limit for {name}"
            for name in set(requests) & set(limits):
                if quantity(requests[name]) > quantity(limits[name]):
                    yield f"{where}: requests {requests[name]} {name}, over the limit {limits[name]}"


def empty_dirs_have_a_size(render: Render) -> Iterator[str]:
    """Each has a size, and together they fit in the pod's ephemeral storage."""
    for pod in pods_of(render):
        on_disk = Decimal(0)
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" not in volume:
                continue
            size, medium = volume["emptyDir"].get("sizeLimit"), volume["emptyDir"].get("medium")
            if size is None:
                yield f"{volume['name']} in {title(pod)}: no sizeLimit"
            elif medium != "Memory":
                on_disk += quantity(size)
        limits = [each.get("resources", {}).get("limits", {}) for each in containers_of(pod)]
        allowed = [quantity(each["ephemeral-storage"]) for each in limits if "ephemeral-storage" in each]
        if on_disk > sum(allowed):
            yield f"{title(pod)}: emptyDirs of {on_disk} bytes, ephemeral-storage limits of {sum(allowed)}"


def pods_go_where_their_images_run(render: Render) -> Iterator[str]:
    """Images have one architecture. On Knative a node selector needs a flag; the local cluster has one kind of node."""
    for pod in pods_of(render) if render.name != LOCAL else []:
        standard = pod["metadata"].get("annotations", {}).get(MODE) == STANDARD
        ours = "serving.kserve.io/inferenceservice" in pod["metadata"].get("labels", {})
        if (standard or not ours) and _ARCHITECTURE not in pod["spec"].get("nodeSelector", {}):
            yield f"{title(pod)}: no {_ARCHITECTURE} in its nodeSelector"


def spread_pods_are_of_one_revision(render: Render) -> Iterator[str]:
    """Their own revision: without the hash of the pod template, pods of the outgoing revision are counted too."""
    for pod in pods_of(render):
        for each in pod["spec"].get("topologySpreadConstraints", []):
            if not matches(each.get("labelSelector", {}), pod["metadata"].get("labels", {})):
                yield f"{title(pod)}: spread over {each['topologyKey']} selects other pods: {each.get('labelSelector')}"
            if "pod-template-hash" not in each.get("matchLabelKeys", []):
                yield f"{title(pod)}: spread over {each['topologyKey']} without matchLabelKeys: [pod-template-hash]"


def drains_evict_pods_that_are_not_ready(render: Render) -> Iterator[str]:
    """Otherwise two unready pods block a drain for as long as S3 is unavailable."""
    for each in render.of_kind("PodDisruptionBudget"):
        if each["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{title(each)}: unhealthyPodEvictionPolicy is not AlwaysAllow"


def quotas_have_room_for_every_pod(render: Render) -> Iterator[str]:
    """Quotas have room for all pods that scaling and a rolling update create."""
    wanted: dict[str, Decimal] = {}
    for service in render.of_kind("InferenceService"):
        for name, component in components_of(service):
            count = component.get("maxReplicas", 1) + _surge(component)
            for resource, amount in _needs(pod_of(service, name, component)).items():
                wanted[resource] = wanted.get(resource, Decimal(0)) + count * amount
    for quota in render.of_kind("ResourceQuota"):
        for resource, limit in quota["spec"]["hard"].items():
            if wanted.get(resource, 0) > quantity(limit):
                yield f"{title(quota)}: {limit} of {resource}, pods at their most need {wanted[resource]}"


def _surge(component: Any) -> int:
    surge = component.get("deploymentStrategy", {}).get("rollingUpdate", {}).get("maxSurge", 1)
    return surge if isinstance(surge, int) else component.get("maxReplicas", 1)


def _needs(pod: Any) -> dict[str, Decimal]:
    """The resources of a pod that count towards a quota, by the quota's names."""
    needs = {"pods": Decimal(1)}
    for container in containers_of(pod):
        for kind, amounts in container.get("resources", {}).items():
            for name, amount in amounts.items():
                key = f"{kind}.{name}"
                needs[key] = needs.get(key, Decimal(0)) + quantity(amount)
    return needs


def volumes_are_mounted(render: Render) -> Iterator[str]:
    """Each volume is mounted, and each mount has its volume; Knative rejects anything else."""
    for pod in pods_of(render):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        mounted: set[str] = set()
        for container in containers_of(pod):
            mounts = container.get("volumeMounts", [])
            mounted |= {each["name"] for each in mounts}
            paths = [each["mountPath"] for each in mounts]
            if len(paths) != len(set(paths)):
                yield f"{container['name']} in {title(pod)}: mounts {paths}, expected each once"
        for name in sorted(volumes ^ mounted):
            yield f"{title(pod)}: volume {name} is {'not mounted' if name in volumes else 'not there'}"


def variables_state_the_defaults_of_the_api_server(render: Render) -> Iterator[str]:
    """Argo CD's server-side apply compares a KServe resource's list of variables as a whole, defaults included."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("resourceFieldRef")
                if reference and "divisor" not in reference:
                    yield f"{container['name']} in {title(pod)}: {variable['name']} has no divisor, expected '0'"


def cpu_triton_is_out_of_reach(render: Render) -> Iterator[str]:
    """The old Triton of components/cpu-triton: nothing outside its pod connects to it, and no GPU waits for it."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            if not _CPU_TRITON.search(container.get("image", "")):
                continue
            where = f"{container['name']} in {title(pod)}"
            listeners = listeners_of(container, environment_of(container, pod, render))
            for port in (each.port for each in listeners if each.outside):
                yield f"{where}: listens on {port} for other pods, expected loopback; next: components/cpu-triton"
            if any("gpu" in name for name in container.get("resources", {}).get("limits", {})):
                yield f"{where}: has a GPU, of which this image knows nothing"


RULES = (
    pods_keep_the_restricted_standard,
    namespaces_enforce_the_restricted_standard,
    roots_are_read_only,
    pods_mount_no_token,
    containers_have_requests_and_limits,
    empty_dirs_have_a_size,
    pods_go_where_their_images_run,
    spread_pods_are_of_one_revision,
    drains_evict_pods_that_are_not_ready,
    quotas_have_room_for_every_pod,
    volumes_are_mounted,
    variables_state_the_defaults_of_the_api_server,
    cpu_triton_is_out_of_reach,
)
