"""Names, namespaces, references, secrets and images."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from tests.manifests.pod import components_of, containers_of, pods_of
from tests.manifests.rendering import ROOT, Object, Render, title

# Objects that users create before the first apply, as in manifests/README.md.
MADE_BY_THE_USER = {
    "ConfigMap": {"nereid-ca", "nereid-signers"},
    "Secret": {"nereid-keys", "nereid-s3", "nereid-s3-writer", "nereid-triton", "nereid-worker"},
}
LOCAL = "overlays/local"  # the one place with a Secret in plain text: it is valid in that cluster's S3 server alone
IMAGES_OF_OURS = ("cpu-triton", "predictor", "transformer", "worker")

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63
_CLUSTER_WIDE = {
    "ClusterRole", "ClusterRoleBinding", "ClusterServingRuntime", "CustomResourceDefinition", "Namespace",
    "PersistentVolume", "PriorityClass", "StorageClass",
}  # fmt: skip
# Placeholders of the examples: a user's folder has its own registry, account, bucket, host and digests.
PLACEHOLDERS = re.compile(
    r"(registry|nereid-split|proxy)\.example\.com|111122223333|444455556666|777788889999|example-models|sha256:0{60}"
    r"|certificate/0{8}-"
)
EXAMPLES = {"overlays/canary/standard", "overlays/eks", "overlays/production", "overlays/site", "worker"}
EXAMPLES_BELOW = "examples/"
# Placeholders in the project's own folders too: S3 addresses for documentation (RFC 5737), and example hosts.
UNUSABLE = re.compile(r"(?:192\.0\.2|198\.51\.100)\.[0-9]+|(?:vision|git)\.example\.com|s3://models/nereid")
# Docker's rule for the first component of a name: any other is on docker.io, where anyone may register it.
_REGISTRY = re.compile(r"[^/]*[.:][^/]*/|localhost/")
# A namespace in a Prometheus query, or in the DNS name of a Service.
_NAMESPACE_IN_TEXT = (re.compile(r'namespace="([^"]*)"'), re.compile(r'job="([^"/]*)/'))
_SECRET_VARIABLE = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY")


def names_are_legal(render: Render) -> Iterator[str]:
    """KServe's rule for names of an InferenceService, applied to all objects."""
    names = [(title(each), each["metadata"]["name"]) for each in render.objects]
    for pod in pods_of(render):
        inner = [*containers_of(pod), *pod["spec"].get("volumes", [])]
        names += [(f"{each['name']} in {title(pod)}", each["name"]) for each in inner]
    for where, name in names:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            yield f"{where}: expected {_NAME.pattern}, at most {_LONGEST_NAME} characters"


def objects_say_their_namespace(render: Render) -> Iterator[str]:
    """`kubectl apply -k` would create the others in the namespace of the current context."""
    for each in render.objects:
        if each["kind"] not in _CLUSTER_WIDE and not each["metadata"].get("namespace"):
            yield f"{title(each)}: no namespace"


def texts_name_their_own_namespace(render: Render) -> Iterator[str]:
    """Kustomize does not change the namespace inside a query or a host name; another one has none of our pods."""
    services = "|".join(map(re.escape, sorted(render.names("Service")))) or "(?!)"
    hosts = re.compile(rf"(?<![-.\w])(?:{services})\.([-a-z0-9]+)(?=\.svc|:[0-9])")
    for each in render.objects:
        own = each["metadata"].get("namespace")
        for text in _texts(each.get("spec", {})):
            found = [match for pattern in (*_NAMESPACE_IN_TEXT, hosts) for match in pattern.findall(text)]
            if strange := sorted(set(found) - {own}):
                yield f"{title(each)}: {text!r} names {', '.join(strange)}, expected {own}"


def placeholders_are_replaced(render: Render) -> Iterator[str]:
    """In a folder that was copied from an example, or is a user's own."""
    if render.name in EXAMPLES or render.name.startswith(EXAMPLES_BELOW):
        return
    for each in render.objects:
        for text in dict.fromkeys(_texts(each)):
            found = PLACEHOLDERS.search(text) or (UNUSABLE.search(text) if render.is_foreign else None)
            if found:
                yield f"{title(each)}: {text!r} has {found[0]}, a placeholder of the examples; expected your own"


def containers_have_an_image(render: Render) -> Iterator[str]:
    """A patch for a missing container creates it: a component for one pod over an overlay with two, or with `model`."""
    for service in render.of_kind("InferenceService"):
        for name, component in components_of(service):
            for each in component.get("containers", []):
                if not each.get("image"):
                    where = f"{each['name']} of spec.{name} in {title(service)}"
                    yield f"{where}: no image; a component changes this container, and does not fit this overlay"


def images_name_their_registry(render: Render) -> Iterator[str]:
    """Nereid's images in a folder of a user name their registry."""
    for pod in pods_of(render) if render.is_foreign else []:
        for container in containers_of(pod):
            image = container.get("image", "")
            name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
            if name in IMAGES_OF_OURS and not _REGISTRY.match(image):
                yield f"{container['name']} in {title(pod)}: {image} is docker.io's, expected your registry (`images:`)"


def limits_come_with_their_namespace(render: Render) -> Iterator[str]:
    """A component that is listed after no-namespace adds limits that belong to the platform."""
    for each in render.of_kind("ResourceQuota", "LimitRange"):
        if not any(render.of_kind("Namespace")):
            yield f"{title(each)}: without a Namespace; expected components/no-namespace last in the list"


def references_exist(render: Render) -> Iterator[str]:
    """In the render, or among what users create."""
    made = {kind: names | render.names(kind) for kind, names in MADE_BY_THE_USER.items()}
    made["Secret"] |= render.secrets | _made_by_operators(render)
    for pod in pods_of(render):
        for kind, name in _references(pod):
            if name not in made.get(kind, render.names(kind)):
                yield f"{title(pod)}: {kind} {name} is neither rendered nor among what users create"
    for each in render.of_kind("ExternalSecret"):
        store = each["spec"].get("secretStoreRef", {})
        if store.get("kind", "SecretStore") == "SecretStore" and store.get("name") not in render.names("SecretStore"):
            yield f"{title(each)}: SecretStore {store.get('name')} is not rendered"
    for each in render.of_kind("InferenceService"):
        runtime = each["spec"]["predictor"].get("model", {}).get("runtime")
        if runtime and runtime not in render.names("ServingRuntime"):
            yield f"{title(each)}: ServingRuntime {runtime} is not rendered"


def secrets_come_by_reference(render: Render) -> Iterator[str]:
    """No render has a Secret in plain text, except that of the local cluster."""
    if render.name == LOCAL:
        return
    for each in render.of_kind("Secret"):
        if each.get("data") or each.get("stringData"):
            yield f"{title(each)}: holds data"
    for pod in pods_of(render):
        for container in containers_of(pod):
            for variable in container.get("env", []):
                if _SECRET_VARIABLE.search(variable["name"]) and variable.get("value"):
                    yield f"{container['name']} in {title(pod)}: {variable['name']} is in plain text, expected a Secret"
    for each in render.of_kind("ConfigMap"):
        for name in each.get("data", {}):
            if _SECRET_VARIABLE.search(name):
                yield f"{title(each)}: {name} is in plain text, expected a Secret"


def images_have_the_version_of_the_project(render: Render) -> Iterator[str]:
    """Each image has a tag, the same in all places, ours the version of pyproject.toml; or a digest in its place."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags: dict[str, set[str]] = {}
    for pod in pods_of(render):
        for container in containers_of(pod):
            image, _, digest = container.get("image", "").partition("@")
            registry, _, last = image.rpartition("/")
            name, _, tag = last.partition(":")
            where = f"{container['name']} in {title(pod)}: {image or 'no image'}"
            if not digest and tag in {"", "latest"}:
                yield f"{where}: expected a tag other than latest, or a digest"
            if name in IMAGES_OF_OURS and not digest and tag != version:
                yield f"{where}: expected the tag {version}"
            tags.setdefault(f"{registry}/{name}", set()).add(digest or tag)
    for image, found in tags.items():
        if len(found) > 1:
            yield f"{image}: several versions, {', '.join(sorted(found))}"


def _made_by_operators(render: Render) -> set[str]:
    """Secrets that an operator creates from an object of its own: External Secrets, Sealed Secrets."""
    names = [(each["metadata"]["name"], each["spec"].get("target", {})) for each in render.of_kind("ExternalSecret")]
    return {target.get("name", name) for name, target in names} | render.names("SealedSecret")


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _texts(each)


def _references(pod: Object) -> Iterator[tuple[str, str]]:
    spec = pod["spec"]
    if account := spec.get("serviceAccountName"):
        yield "ServiceAccount", account
    # imagePullSecrets are created in the cluster by its administrators.
    for volume in spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            yield from _of_source(source)
    for container in containers_of(pod):
        for source in container.get("envFrom", []):
            yield from (
                (kind, source[field]["name"])
                for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
                if field in source
            )
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            yield from (
                (kind, source[field]["name"])
                for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret"))
                if field in source
            )


def _of_source(source: Any) -> Iterator[tuple[str, str]]:
    if "configMap" in source:
        yield "ConfigMap", source["configMap"]["name"]
    if "secret" in source:
        yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]
    if "persistentVolumeClaim" in source:
        yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]


RULES = (
    names_are_legal,
    objects_say_their_namespace,
    texts_name_their_own_namespace,
    placeholders_are_replaced,
    containers_have_an_image,
    images_name_their_registry,
    limits_come_with_their_namespace,
    references_exist,
    secrets_come_by_reference,
    images_have_the_version_of_the_project,
)
