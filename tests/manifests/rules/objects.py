"""Names, namespaces, references, secrets and images."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from tests.manifests.pod import components_of, containers_of, pods_of
from tests.manifests.rendering import ROOT, Object, Render, title

# What the user makes before the first apply; manifests/README.md says how.
MADE_BY_THE_USER = {
    "ConfigMap": {"nereid-ca"},
    "Secret": {"nereid-keys", "nereid-s3", "nereid-s3-writer", "nereid-triton"},
}
LOCAL = "overlays/local"  # the one place where a Secret may be written down: it opens nothing but that cluster's MinIO
IMAGES_OF_OURS = ("predictor", "transformer")

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63
_CLUSTER_WIDE = {
    "ClusterRole", "ClusterRoleBinding", "ClusterServingRuntime", "CustomResourceDefinition", "Namespace",
    "PersistentVolume", "PriorityClass", "StorageClass",
}  # fmt: skip
# Of this project's examples: a user's own folder has a registry, an account, a bucket, a host and digests of its own.
PLACEHOLDERS = re.compile(
    r"(registry|nereid-split|proxy)\.example\.com|111122223333|444455556666|777788889999|example-models|sha256:0{60}"
    r"|certificate/0{8}-"
)
EXAMPLES = {"overlays/canary/standard", "overlays/eks", "overlays/production", "overlays/site"}
EXAMPLES_BELOW = "examples/"
# What comes with the project has these too: an address of nobody for S3 (RFC 5737), and hosts of nobody's.
UNUSABLE = re.compile(r"(?:192\.0\.2|198\.51\.100)\.[0-9]+|(?:vision|git)\.example\.com|s3://models/nereid")
# Docker's rule for the first word of a name: otherwise it is docker.io's, where anybody may take it.
_REGISTRY = re.compile(r"[^/]*[.:][^/]*/|localhost/")
# In a query of Prometheus, or the name of a Service with its namespace.
_NAMESPACE_IN_TEXT = (re.compile(r'namespace="([^"]*)"'), re.compile(r'job="([^"/]*)/'))
_SECRET_VARIABLE = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY")


def names_are_legal(render: Render) -> Iterator[str]:
    """KServe's own rule for an InferenceService, kept by all."""
    names = [(title(each), each["metadata"]["name"]) for each in render.objects]
    for pod in pods_of(render):
        inner = [*containers_of(pod), *pod["spec"].get("volumes", [])]
        names += [(f"{each['name']} in {title(pod)}", each["name"]) for each in inner]
    for where, name in names:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            yield f"{where}: expected {_NAME.pattern}, at most {_LONGEST_NAME} characters"


def objects_say_their_namespace(render: Render) -> Iterator[str]:
    """`kubectl apply -k` would put the others wherever the user's context points."""
    for each in render.objects:
        if each["kind"] not in _CLUSTER_WIDE and not each["metadata"].get("namespace"):
            yield f"{title(each)}: no namespace"


def texts_name_their_own_namespace(render: Render) -> Iterator[str]:
    """No kustomization reaches into a query or into a host: another namespace there has none of our pods."""
    services = "|".join(map(re.escape, sorted(render.names("Service")))) or "(?!)"
    hosts = re.compile(rf"(?<![-.\w])(?:{services})\.([-a-z0-9]+)(?=\.svc|:[0-9])")
    for each in render.objects:
        own = each["metadata"].get("namespace")
        for text in _texts(each.get("spec", {})):
            found = [match for pattern in (*_NAMESPACE_IN_TEXT, hosts) for match in pattern.findall(text)]
            if strange := sorted(set(found) - {own}):
                yield f"{title(each)}: {text!r} names {', '.join(strange)}, expected {own}"


def placeholders_are_replaced(render: Render) -> Iterator[str]:
    """In a folder that was made of an example, or is a user's own."""
    if render.name in EXAMPLES or render.name.startswith(EXAMPLES_BELOW):
        return
    for each in render.objects:
        for text in dict.fromkeys(_texts(each)):
            found = PLACEHOLDERS.search(text) or (UNUSABLE.search(text) if render.is_foreign else None)
            if found:
                yield f"{title(each)}: {text!r} has {found[0]}, which is an example, expected your own"


def containers_have_an_image(render: Render) -> Iterator[str]:
    """A patch of one that is not there makes one: a component of one pod over an overlay of two, or of `model`."""
    for service in render.of_kind("InferenceService"):
        for name, component in components_of(service):
            for each in component.get("containers", []):
                if not each.get("image"):
                    where = f"{each['name']} of spec.{name} in {title(service)}"
                    yield f"{where}: no image; a component of yours changes it, and does not fit this overlay"


def images_name_their_registry(render: Render) -> Iterator[str]:
    """Ours, in a user's own folder."""
    for pod in pods_of(render) if render.is_foreign else []:
        for container in containers_of(pod):
            image = container.get("image", "")
            name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
            if name in IMAGES_OF_OURS and not _REGISTRY.match(image):
                yield f"{container['name']} in {title(pod)}: {image} is docker.io's, expected your registry (`images:`)"


def limits_come_with_their_namespace(render: Render) -> Iterator[str]:
    """A component that is named behind no-namespace brings some that are the platform's."""
    for each in render.of_kind("ResourceQuota", "LimitRange"):
        if not any(render.of_kind("Namespace")):
            yield f"{title(each)}: without a Namespace; components/no-namespace is the last of the list"


def references_exist(render: Render) -> Iterator[str]:
    """In the render, or in the list of what the user makes."""
    made = {kind: names | render.names(kind) for kind, names in MADE_BY_THE_USER.items()}
    made["Secret"] |= render.secrets | _made_by_operators(render)
    for pod in pods_of(render):
        for kind, name in _references(pod):
            if name not in made.get(kind, render.names(kind)):
                yield f"{title(pod)}: {kind} {name} is neither rendered nor made by the user"
    for each in render.of_kind("ExternalSecret"):
        store = each["spec"].get("secretStoreRef", {})
        if store.get("kind", "SecretStore") == "SecretStore" and store.get("name") not in render.names("SecretStore"):
            yield f"{title(each)}: SecretStore {store.get('name')} is not rendered"
    for each in render.of_kind("InferenceService"):
        runtime = each["spec"]["predictor"].get("model", {}).get("runtime")
        if runtime and runtime not in render.names("ServingRuntime"):
            yield f"{title(each)}: ServingRuntime {runtime} is not rendered"


def secrets_come_by_reference(render: Render) -> Iterator[str]:
    """No render holds one, but for the local cluster's."""
    if render.name == LOCAL:
        return
    for each in render.of_kind("Secret"):
        if each.get("data") or each.get("stringData"):
            yield f"{title(each)}: holds data"
    for pod in pods_of(render):
        for container in containers_of(pod):
            for variable in container.get("env", []):
                if _SECRET_VARIABLE.search(variable["name"]) and variable.get("value"):
                    yield f"{container['name']} in {title(pod)}: {variable['name']} is written down"
    for each in render.of_kind("ConfigMap"):
        for name in each.get("data", {}):
            if _SECRET_VARIABLE.search(name):
                yield f"{title(each)}: {name} is written down"


def images_have_the_version_of_the_project(render: Render) -> Iterator[str]:
    """A tag everywhere, the same for the same image; ours equals pyproject.toml's; a digest may stand for it."""
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
            if name in IMAGES_OF_OURS and not digest and tag not in {version, f"{version}-embedded"}:
                yield f"{where}: expected the tag {version}"
            tags.setdefault(f"{registry}/{name}", set()).add(digest or tag.removesuffix("-embedded"))
    for image, found in tags.items():
        if len(found) > 1:
            yield f"{image}: several versions, {', '.join(sorted(found))}"


def _made_by_operators(render: Render) -> set[str]:
    """Secrets that something in the cluster makes of an object of its own: External Secrets, Sealed Secrets."""
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
    # Those of imagePullSecrets are the cluster's own business, and no render holds one.
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
