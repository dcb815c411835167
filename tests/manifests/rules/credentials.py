"""Who has which credentials: of all the containers of a pod, those that need them."""

from collections.abc import Iterator
from typing import Any

from tests.manifests import programs
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.programs import SYNCHRONISER, TRANSFORMER, TRITON
from tests.manifests.rendering import Object, Render, title

_TRITON_S, _S3_READER, _S3_WRITER, _KEYS = "nereid-triton", "nereid-s3", "nereid-s3-writer", "nereid-keys"
_NEEDS = {TRITON: {_TRITON_S}, SYNCHRONISER: {_TRITON_S, _S3_READER}, TRANSFORMER: {_KEYS}}
_NEEDS_OF_IMAGE = {"export": {_S3_WRITER}, "seaweedfs": {_S3_WRITER}}


def secrets_reach_who_needs_them(render: Render) -> Iterator[str]:
    """The transformer, which decodes what strangers send, has API keys to compare with, and no way to load a model."""
    for pod in pods_of(render):
        for container in containers_of(pod):
            needed = _NEEDS.get(programs.program_of(container) or "") or _NEEDS_OF_IMAGE.get(_image(container), set())
            if strange := sorted(_secrets(container, pod) - needed):
                yield f"{container['name']} in {title(pod)}: gets {strange}, needs {sorted(needed)}"


def _image(container: Any) -> str:
    return str(container.get("image", "")).split("@")[0].rpartition("/")[2].split(":")[0]


def _secrets(container: Any, pod: Object) -> set[str]:
    """Secrets that a container reads, as variables or files."""
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


RULES = (secrets_reach_who_needs_them,)
