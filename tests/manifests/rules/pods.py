"""Security, resources and volumes of every pod."""

from collections.abc import Iterator
from decimal import Decimal

from tests.manifests.environment import quantity
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.pod_security import violations
from tests.manifests.rendering import Render, title

_ENFORCE = "pod-security.kubernetes.io/enforce"


def pods_keep_the_restricted_standard(render: Render) -> Iterator[str]:
    """Kubernetes' Pod Security Standard."""
    for pod in pods_of(render):
        yield from (f"{title(pod)}: {violation}" for violation in violations(pod))


def namespaces_enforce_the_restricted_standard(render: Render) -> Iterator[str]:
    """So that nothing else slips in beside."""
    for namespace in render.of_kind("Namespace"):
        if namespace["metadata"].get("labels", {}).get(_ENFORCE) != "restricted":
            yield f"{title(namespace)}: expected the label {_ENFORCE}: restricted"


def roots_are_read_only(render: Render) -> Iterator[str]:
    """What must be written has a volume."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{container['name']} in {title(pod)}: readOnlyRootFilesystem is not true"


def pods_bring_no_token(render: Render) -> Iterator[str]:
    """Nothing asks the API server; IRSA's webhook mounts a token of its own."""
    for pod in pods_of(render):
        account = render.named("ServiceAccount", pod["spec"].get("serviceAccountName", "")) or {}
        said = pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken"))
        if said is not False:
            yield f"{title(pod)}: automountServiceAccountToken is not false, neither here nor in its ServiceAccount"


def containers_have_requests_and_limits(render: Render) -> Iterator[str]:
    """For CPU and memory; a request is no more than its limit."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            where = f"{container['name']} in {title(pod)}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for name in ("cpu", "memory"):
                if name not in requests or name not in limits:
                    yield f"{where}: expected a request and a limit for {name}"
            for name in set(requests) & set(limits):
                if quantity(requests[name]) > quantity(limits[name]):
                    yield f"{where}: requests {requests[name]} {name}, over the limit {limits[name]}"


def empty_dirs_have_a_size(render: Render) -> Iterator[str]:
    """Each its own, and all within the pod's ephemeral storage, where containers have such a limit."""
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
        if len(allowed) == len(limits) and on_disk > sum(allowed):
            yield f"{title(pod)}: emptyDirs of {on_disk} bytes, ephemeral-storage limits of {sum(allowed)}"


def volumes_are_mounted(render: Render) -> Iterator[str]:
    """Each by somebody, and each mount has its volume; Knative refuses both otherwise."""
    for pod in pods_of(render):
        there = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        mounted: set[str] = set()
        for container in containers_of(pod):
            mounts = container.get("volumeMounts", [])
            mounted |= {each["name"] for each in mounts}
            paths = [each["mountPath"] for each in mounts]
            if len(paths) != len(set(paths)):
                yield f"{container['name']} in {title(pod)}: mounts {paths}, expected each once"
        for name in sorted(there ^ mounted):
            yield f"{title(pod)}: volume {name} is {'not mounted' if name in there else 'not there'}"


RULES = (
    pods_keep_the_restricted_standard,
    namespaces_enforce_the_restricted_standard,
    roots_are_read_only,
    pods_bring_no_token,
    containers_have_requests_and_limits,
    empty_dirs_have_a_size,
    volumes_are_mounted,
)
