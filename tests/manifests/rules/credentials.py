"""Credentials reach those containers of a pod that need them, and no others."""

from collections.abc import Iterator
from typing import Any

from tests.manifests import programs
from tests.manifests.environment import environment_of
from tests.manifests.pod import KNATIVE, MODE, containers_of, pods_of
from tests.manifests.programs import SYNCHRONISER, TRANSFORMER, TRITON, WORKER
from tests.manifests.rendering import Object, Render, title

_TRITON_S, _S3_READER, _S3_WRITER, _KEYS = "nereid-triton", "nereid-s3", "nereid-s3-writer", "nereid-keys"
_OF_WORKER = "nereid-worker"
_NEEDS = {TRITON: {_TRITON_S}, SYNCHRONISER: {_TRITON_S, _S3_READER}, TRANSFORMER: {_KEYS}, WORKER: {_OF_WORKER}}
_SKIPPED = "eks.amazonaws.com/skip-containers"
# Variables of the S3 client that are no credentials: where S3 is, and how it is reached.
_SETTINGS_OF_S3 = {
    "AWS_CA_BUNDLE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_MAX_ATTEMPTS", "AWS_REGION",
    "AWS_RETRY_MODE", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT",
}  # fmt: skip
EXPORT = "export"
_NEEDS_OF_IMAGE = {
    EXPORT: {_S3_WRITER},
    "seaweedfs": {_S3_WRITER},
}  # they write, and it verifies keys


def secrets_reach_containers_that_need_them(render: Render) -> Iterator[str]:
    """The transformer decodes images of strangers: it gets API keys to compare with, and nothing that loads a model."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            needed = _needs(container)
            if strange := sorted(_secrets(container, pod) - needed):
                yield f"{container['name']} in {title(pod)}: gets {strange}, needs {sorted(needed)}"


def credentials_reach_containers_that_use_s3(render: Render) -> Iterator[str]:
    """Variables with keys, profiles, roles and the paths of their tokens."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            named = {name for name in environment_of(container, pod, render) if name.startswith("AWS_")}
            if (strange := sorted(named - _SETTINGS_OF_S3)) and not _uses_s3(container):
                yield f"{container['name']} in {title(pod)}: gets {strange}, and sends S3 no request"


def tokens_reach_containers_that_use_s3(render: Render) -> Iterator[str]:
    """Tokens of the service account: those that a manifest mounts, and those that EKS adds for a role."""
    pods = pods_of(render)
    may_have_a_role = {_account(pod) for pod in pods if may_use_s3(pod)}
    for pod in pods:
        others = {each["name"] for each in containers_of(pod) if not _uses_s3(each)}
        for container in containers_of(pod):
            tokens = [volume["name"] for volume in _volumes(container, pod) if _is_token(volume)]
            if tokens and container["name"] in others:
                yield f"{container['name']} in {title(pod)}: mounts the token {tokens[0]}, and sends S3 no request"
        if _account(pod) in may_have_a_role:
            annotations = pod["metadata"].get("annotations", {})
            if annotations.get(MODE) == KNATIVE:
                others.add("queue-proxy")
            if missing := sorted(others - set(annotations.get(_SKIPPED, "").split(","))):
                yield f"{title(pod)}: {_SKIPPED} lacks {missing}"


def _account(pod: Object) -> str:
    return str(pod["spec"].get("serviceAccountName", "default"))


def may_use_s3(pod: Object) -> bool:
    """Whether a container of the pod uses S3; in the pod of a `model` it is the one that KServe adds."""
    runs = {programs.program_of(each) for each in containers_of(pod)}
    return any(map(_uses_s3, containers_of(pod))) or (TRITON in runs and SYNCHRONISER not in runs)


def _uses_s3(container: Any) -> bool:
    return programs.program_of(container) in {SYNCHRONISER, WORKER} or _image(container) == EXPORT


def _is_token(volume: Any) -> bool:
    return any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))


def _needs(container: Any) -> set[str]:
    """The Secrets that a container needs."""
    return _NEEDS.get(programs.program_of(container) or "") or _NEEDS_OF_IMAGE.get(_image(container), set())


def _image(container: Any) -> str:
    return str(container.get("image", "")).split("@")[0].rpartition("/")[2].split(":")[0]


def _secrets(container: Any, pod: Object) -> set[str]:
    """Secrets that a container reads, as variables or as files."""
    names = {source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source}
    for variable in container.get("env", []):
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            names.add(reference["name"])
    return names | {name for volume in _volumes(container, pod) for name in _secrets_of_volume(volume)}


def _volumes(container: Any, pod: Object) -> list[Any]:
    """The volumes that a container mounts."""
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    return [volume for volume in pod["spec"].get("volumes", []) if volume["name"] in mounted]


def _secrets_of_volume(volume: Any) -> Iterator[str]:
    for source in (volume, *volume.get("projected", {}).get("sources", [])):
        if "secret" in source:
            yield source["secret"].get("secretName") or source["secret"]["name"]


RULES = (
    secrets_reach_containers_that_need_them,
    credentials_reach_containers_that_use_s3,
    tokens_reach_containers_that_use_s3,
)
