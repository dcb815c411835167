"""The Helm chart: its objects equal those of kustomize with the same components."""

import json
import re
import shutil
import subprocess
import tarfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.chart.__main__ import compose, composition, pack
from manifests.chart.values import COMPONENTS, MODES, VALUES, Slot, Text
from tests.manifests.__main__ import judge
from tests.manifests.rendering import MANIFESTS, Render, needs_kubectl, read_documents, render_foreign, title

needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None,
    reason="helm, which renders the chart, is missing; next: https://helm.sh/docs/intro/install/",
)
pytestmark = [needs_kubectl, needs_helm]

_TIMEOUT_S = 120
# Components that change the same pod, some the same lists.
OF_THE_POD = ("production", "gpu", "keda", "aws", "keys", "caBundle", "signed", "alb")
NAMESPACE = "vision"
REGISTRY = "registry.acme.example"
# The quota of production for GPUs.
ROOM = {"requests.cpu": "50", "requests.memory": "140Gi", "limits.memory": "150Gi"}


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive."""
    path = tmp_path_factory.mktemp("chart") / "nereid.tgz"
    path.write_bytes(pack("nereid", compose()))
    return path


# Images that users build, by their values.
OURS = {
    each.value: str(each.found)
    for each in VALUES
    if isinstance(each, Text) and each.kind == "image" and "." not in str(each.found)
}


def helm(*words: str, values: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run helm with values."""
    path = folder / "values.yaml"
    path.write_text(json.dumps(values))
    command = ["helm", *words, "--values", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)


def template(chart: Path, values: Mapping[str, Any], folder: Path, release: str = "nereid") -> Render:
    """The render of the chart."""
    done = helm("template", release, str(chart), "--namespace", NAMESPACE, values=values, folder=folder)
    assert done.returncode == 0, done.stderr
    return Render("chart", tuple(read_documents(done.stdout)))


def faults(rendered: Render) -> list[str]:
    """Faults, without limits that come without a Namespace: the release brings it."""
    return [each for each in judge(rendered) if not each.startswith("limits come with their namespace: ")]


def kustomize(mode: str, on: Iterable[str], folder: Path, **more: Any) -> Render:
    """The render of kustomize with the same components, and more fields of a kustomization."""
    folder = (folder / "kustomize").resolve()
    folder.mkdir()
    room = [{"target": {"kind": "ResourceQuota"}, "patch": _merged("ResourceQuota", {"spec": {"hard": ROOM}})}]
    theirs = {
        "namespace": NAMESPACE,
        "labels": [{"pairs": {"app.kubernetes.io/managed-by": "Helm"}}],
        "images": [{"name": each, "newName": f"{REGISTRY}/{each}"} for each in OURS.values()],
    }
    patches = {"patches": [*(room if "gpu" in on else []), *more.pop("patches", [])]}
    composed = composition(mode, frozenset(on), folder) | theirs | patches | more
    (folder / "kustomization.yaml").write_text(json.dumps(composed))
    return render_foreign(folder)


def _merged(kind: str, patch: Mapping[str, Any]) -> str:
    metadata = {"name": "any", **patch.get("metadata", {})}
    return json.dumps({"apiVersion": "any", "kind": kind, **patch, "metadata": metadata})


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value at `a.b`, nested as in values.yaml."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def together(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values."""
    found: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = together(found[key], value) if both else value
    return found


def examples() -> dict[str, Any]:
    """Required values, with the placeholders of the manifests."""
    texts = (each for each in VALUES if isinstance(each, Text) and each.kind in {"required", "optional", "each"})
    images = (nested(f"{name}.repository", f"{REGISTRY}/{each}") for name, each in OURS.items())
    return together(
        *images, *(nested(each.value, [each.found] if each.kind == "each" else each.found) for each in texts)
    )


def turned_on(mode: str, on: Iterable[str]) -> dict[str, Any]:
    """Values of a mode with components."""
    values = together(examples(), {"mode": mode})
    for name in on:
        switch = nested("production.quota.enabled", False) if name == "noNamespace" else {name: {"enabled": True}}
        values = together(values, switch, nested("production.quota.hard", ROOM) if name == "gpu" else {})
    return values


def closed(on: Iterable[str]) -> set[str]:
    """Components with those that they need, which kustomize lists explicitly."""
    return {name for each in COMPONENTS if each.value in set(on) for name in (each.value, *each.needs)}


def comparable(rendered: Render) -> dict[str, Any]:
    """Objects by title without the namespace; lists of maps sorted, the name of the settings without its hash."""
    settings = re.compile(r"nereid-settings-[0-9a-z]{10}(?=\")")
    texts = (settings.sub("nereid-settings", json.dumps(each)) for each in rendered.objects)
    objects = [json.loads(text) for text in texts]
    return {title(each): _ordered(each) for each in objects if each["kind"] != "Namespace"}


def _ordered(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _ordered(value) for key, value in node.items()}
    if isinstance(node, list) and all(isinstance(each, dict) for each in node):
        return sorted(map(_ordered, node), key=lambda each: json.dumps(each, sort_keys=True))
    return node


def of(mode: str) -> list[str]:
    """Components of a mode."""
    return [each.value for each in COMPONENTS if mode in each.modes]


def all_of(mode: str) -> list[str]:
    """Those that fit each other: a Triton for CPUs knows no GPU."""
    return [name for name in of(mode) if name != "cpuTriton" or "gpu" not in of(mode)]


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """Each component alone, all together, all but one, and pairs that change the same pod."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for mode in MODES:
        names = of(mode)
        found += [(mode, ()), (mode, tuple(all_of(mode))), *((mode, (name,)) for name in names)]
        found += [(mode, tuple(name for name in all_of(mode) if name != left)) for left in ("aws", "noNamespace")]
    return found + [("standard", pair) for pair in combinations(OF_THE_POD, 2)]


@pytest.mark.parametrize(("mode", "on"), cases(), ids=lambda each: each if isinstance(each, str) else "-".join(each))
def test_objects_are_those_of_kustomize(mode: str, on: tuple[str, ...], chart: Path, tmp_path: Path) -> None:
    rendered = template(chart, turned_on(mode, on), tmp_path)
    assert comparable(rendered) == comparable(kustomize(mode, closed(on), tmp_path))
    for service in rendered.of_kind("InferenceService"):
        assert service["spec"]["predictor"]["containers"][0]["name"] == "kserve-container"


@pytest.mark.parametrize("mode", MODES)
def test_names_follow_the_release(mode: str, chart: Path, tmp_path: Path) -> None:
    on = all_of(mode)
    rendered = template(chart, turned_on(mode, on), tmp_path, release="acme")
    assert comparable(rendered) == comparable(kustomize(mode, on, tmp_path, namePrefix="acme-"))


@pytest.mark.parametrize("mode", MODES)
def test_chart_keeps_the_rules(mode: str, chart: Path, tmp_path: Path) -> None:
    rendered = template(chart, turned_on(mode, [name for name in all_of(mode) if name != "noNamespace"]), tmp_path)
    assert [fault for fault in faults(rendered) if "a placeholder of the examples" not in fault] == []


@pytest.mark.parametrize("mode", MODES)
def test_each_text_is_replaced(mode: str, chart: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    for number, text in enumerate(each for each in VALUES if isinstance(each, Text) and each.kind != "image"):
        form = next((start for start in ("http://", "arn:") if str(text.found).startswith(start)), "")
        given[text.value] = number if isinstance(text.found, int) else f"{form}text-{number}"
        if text.kind == "each":
            given[text.value] = [f"10.0.0.{number}/32"]
    values = [nested(*each) for each in given.items()]
    rendered = template(chart, together(turned_on(mode, all_of(mode)), *values), tmp_path)
    found = comparable(kustomize(mode, all_of(mode), tmp_path))
    assert comparable(rendered) == {
        name: _ordered(_replaced(each, {text.found: new for text, new in _texts_of(name, given)}))
        for name, each in found.items()
    }


def _texts_of(name: str, given: Mapping[str, Any]) -> Iterator[tuple[Text, Any]]:
    """Texts of an object, with their replacements."""
    for text in VALUES:
        if isinstance(text, Text) and text.value in given and text.within in {"", name}:
            new = given[text.value]
            yield text, new[0] if isinstance(new, list) else new


def _replaced(node: Any, by: Mapping[str | int, str | int]) -> Any:
    if isinstance(node, dict):
        # A policy has the name of a Secret: names of objects are kept.
        kept = {"metadata": {"name": node["metadata"]["name"]}} if "kind" in node and "metadata" in node else {}
        return together({key: _replaced(value, by) for key, value in node.items()}, kept)
    if isinstance(node, list):
        return [_replaced(each, by) for each in node]
    return by.get(node, node) if not isinstance(node, bool) else node


def test_images_are_given_by_tag_or_digest(chart: Path, tmp_path: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    ours = "registry.other.example/nereid"
    images = [
        {"name": "nvcr.io/nvidia/tritonserver", "digest": digest},
        {"name": "nereid/predictor", "newName": f"{ours}/predictor"},
        {"name": "nereid/transformer", "newName": f"{ours}/transformer", "newTag": "9.9.9"},
    ]
    values = {
        "triton": {"image": {"digest": digest}},
        "synchroniser": {"image": {"repository": f"{ours}/predictor"}},
        "transformer": {"image": {"repository": f"{ours}/transformer", "tag": "9.9.9"}},
    }
    rendered = template(chart, together(turned_on("standard", []), values), tmp_path)
    assert comparable(rendered) == comparable(kustomize("standard", [], tmp_path, images=images))


POD: Mapping[str, Any] = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "vision", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "high",
}
MEMORY = {"limits": {"memory": "8Gi", "cpu": "3"}}
BACK = {"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 8080, "protocol": "TCP"}]}
OUT = {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"port": 80, "protocol": "TCP"}]}
VARIABLE = {"name": "HOME", "value": "/home/triton"}
NOTED = {"acme.example/team": "vision"}
TLS = [{"secretName": "tls", "hosts": ["vision.example.com"]}]
HTTP = {"name": "http", "nodePort": 30080}
SETTINGS = {"TRANSFORMER_MAX_IN_FLIGHT": "8", "PREDICTOR_PINS": '{"digit-finder": 1}'}
# By the path of the value; every slot is listed.
SLOTS: Mapping[str, Any] = {
    "settings": {"PREDICTOR_REPOSITORY": "s3://acme-models/nereid", **SETTINGS},
    "triton.resources": MEMORY,
    "triton.env": [VARIABLE],
    "synchroniser.resources": {"limits": {"memory": "2Gi"}},
    "synchroniser.env": [{"name": "PREDICTOR_SYNC_PORT", "value": "8004"}],
    "transformer.resources": {"limits": {"cpu": "2"}},
    "transformer.env": [VARIABLE],
    "replicas.min": 5,
    "replicas.max": 9,
    "replicas.target": 55,
    **{f"pod.{name}": value for name, value in POD.items()},
    "pod.annotations": NOTED,
    "pod.labels": NOTED,
    "inferenceService.annotations": NOTED,
    "serviceAccount.annotations": NOTED,
    "networkPolicy.ingress": [BACK],
    "networkPolicy.egress": [OUT],
    "production.quota.hard": {"pods": "40"},
    "gpu.volume": {"storageClassName": "efs"},
    "service.annotations": NOTED,
    "service.spec": {"type": "NodePort", "ports": [HTTP]},
    "ingress.annotations": NOTED,
    "ingress.className": "nginx",
    "ingress.tls": TLS,
}


def patches_of(mode: str) -> list[dict[str, Any]]:
    """A change of values as a patch of kustomize."""
    # Requests that equal their limits in the manifests: memory in production, the transformer's CPU with a GPU.
    triton, transformer = ({"cpu": "3"}, {}) if mode == "serverless" else ({"cpu": "3", "memory": "8Gi"}, {"cpu": "2"})
    containers = [
        {"name": "kserve-container", "resources": {**MEMORY, "requests": triton}, "env": [VARIABLE]},
        {"name": "synchroniser", "resources": SLOTS["synchroniser.resources"], "env": SLOTS["synchroniser.env"]},
        {
            "name": "transformer-container",
            "resources": {**SLOTS["transformer.resources"], "requests": transformer},
            "env": [VARIABLE],
        },
    ]
    if mode == "serverless":  # copies of the limits
        containers[1]["env"] = [*containers[1]["env"], {"name": "PREDICTOR_CPUS", "value": "3"}]
        containers[2]["env"] = [VARIABLE, {"name": "TRANSFORMER_THREADS", "value": "2"}]
    # Tolerations have no merge key: kustomize replaces the list of the component.
    ours = [] if mode == "serverless" else [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    pod = {**POD, "tolerations": [*ours, *POD["tolerations"]], "containers": containers}
    replicas = {"minReplicas": 5, "maxReplicas": 9}
    served = {**pod, **replicas, "scaleTarget": 55, "annotations": NOTED, "labels": NOTED}
    if mode == "serverless":
        served["containerConcurrency"] = 8
    noted = {"metadata": {"annotations": NOTED}}
    template = {"metadata": {"annotations": NOTED, "labels": NOTED}, "spec": pod}
    target = {"type": "Utilization", "averageUtilization": 55}
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    merged: dict[str, dict[str, Any]] = {
        "ConfigMap": {"data": SLOTS["settings"]},
        "ServiceAccount": noted,
        "ResourceQuota": {"spec": {"hard": {"pods": "40"}}},
        "PersistentVolumeClaim": {"spec": {"storageClassName": "efs"}},
        "Service": {**noted, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}},
        "Ingress": {**noted, "spec": {"ingressClassName": "nginx", "tls": TLS}},
        "InferenceService": {**noted, "spec": {"predictor": served}},
        "Deployment": {"spec": {"template": template}},
        "HorizontalPodAutoscaler": {"spec": {**replicas, "metrics": metrics}},
    }
    patches = [{"target": {"kind": kind}, "patch": _merged(kind, patch)} for kind, patch in merged.items()]
    for name, field, rule in (("nereid", "ingress", BACK), ("nereid-s3", "egress", OUT)):
        added = [{"op": "add", "path": f"/spec/{field}/-", "value": rule}]
        patches.append({"target": {"kind": "NetworkPolicy", "name": name}, "patch": json.dumps(added)})
    return patches


@pytest.mark.parametrize("mode", MODES)
def test_each_slot_is_merged_like_a_patch(mode: str, chart: Path, tmp_path: Path) -> None:
    assert set(SLOTS) == {each.value for each in VALUES if isinstance(each, Slot)}
    on = [name for name in ("production", "gpu", "service", "ingress") if name in of(mode)]
    values = together(turned_on(mode, on), *(nested(*each) for each in SLOTS.items()))
    rendered = template(chart, values, tmp_path)
    assert comparable(rendered) == comparable(kustomize(mode, on, tmp_path, patches=patches_of(mode)))


def test_value_does_not_restore_what_a_component_removes(chart: Path, tmp_path: Path) -> None:
    values = together(turned_on("standard", ["keda"]), nested("replicas.target", 55))
    rendered = template(chart, values, tmp_path)
    assert comparable(rendered) == comparable(kustomize("standard", ["keda"], tmp_path))


@pytest.mark.parametrize(
    ("value", "policy", "field"),
    [("s3", "nereid-s3", "egress"), ("outside", "nereid-outside", "ingress"), ("alb", "nereid-alb", "ingress")],
)
def test_more_than_one_address(value: str, policy: str, field: str, chart: Path, tmp_path: Path) -> None:
    addresses = ["10.9.8.0/24", "10.9.9.0/24"]
    values = together(turned_on("standard", ["outside", "alb"]), nested(f"{value}.addresses", addresses))
    found = template(chart, values, tmp_path).named("NetworkPolicy", policy)
    assert found
    (rule,) = found["spec"][field]
    assert [each["ipBlock"]["cidr"] for each in rule["from" if field == "ingress" else "to"]] == addresses


@pytest.mark.parametrize(
    ("values", "named", "reason"),
    [
        ({"prodction": {"enabled": True}}, "prodction", "additional properties"),
        ({"triton": {"image": {"tga": "26.11"}}}, "tga", "additional properties"),
        ({"mode": "knative"}, "mode", "must be one of 'serverless', 'standard', 'plain'"),
        ({"keys": {"enabled": "yes"}}, "keys/enabled", "want boolean"),
        ({"settings": {"TRANSFORMER_MAX_INFLIGHT": "8"}}, "/settings", "'TRANSFORMER_MAX_INFLIGHT' not allowed"),
        ({"settings": {"PREDICTOR_REPOSITORY": ""}}, "settings.PREDICTOR_REPOSITORY", "got nothing, expected s3://"),
        ({"settings": None}, "settings.PREDICTOR_REPOSITORY", "got nothing, expected s3://"),
        ({"synchroniser": {"image": {"repository": None}}}, "synchroniser.image.repository", "got nothing, expected a"),
        (
            {"transformer": {"image": {"repository": "nereid/transformer"}}},
            "transformer",
            "got nereid/transformer, exp",
        ),
        ({"replicas": {"min": 5, "max": 2}}, "replicas", "got min 5 over max 2, expected"),
        ({"replicas": {"min": 5}}, "replicas", "got min 5 over max 4, expected"),
        ({"replicas": {"max": 0}}, "replicas/max", "minimum: got 0, want 1"),
        ({"host": "*"}, "host", "does not match pattern"),
        ({"host": ""}, "host", "does not match pattern"),
        ({"keys": {"secret": ""}}, "keys/secret", "does not match pattern"),
        ({"keys": {"secret": None}}, "keys", "missing property 'secret'"),
        ({"otlp": {"name": ""}}, "otlp/name", "minLength: got 0, want 1"),
        ({"keda": {"prometheus": "prometheus:9090"}}, "keda/prometheus", "does not match pattern"),
        ({"settings": {"PREDICTOR_POLL_S": 5}}, "settings/PREDICTOR_POLL_S", "want string"),
        ({"s3": {"addresses": None}}, "s3.addresses", "got nothing, expected a list of the CIDRs of S3"),
        ({"outside": {"enabled": True, "addresses": None}}, "outside.addresses", "got nothing, expected a list of the"),
        ({"s3": {"addresses": []}}, "s3/addresses", "minItems: got 0, want 1"),
        ({"s3": {"addresses": ["s3.example.com"]}}, "s3/addresses/0", "does not match pattern"),
        (
            {"ingress": {"enabled": True}, "host": None},
            "host",
            "got nothing, expected the host name of Ingress and routes",
        ),
        ({"mode": "plain", "keda": {"enabled": True}}, "keda.enabled", "got mode plain, expected standard"),
        ({"mode": "serverless", "gpu": {"enabled": True}}, "gpu.enabled", "got mode serverless, expected standard or"),
        ({"mode": "serverless", "ingress": {"enabled": True}}, "ingress.enabled", "expected standard or plain"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_invalid_values_are_rejected(
    values: Mapping[str, Any], named: str, reason: str, chart: Path, tmp_path: Path
) -> None:
    done = helm("template", "nereid", str(chart), values=together(examples(), values), folder=tmp_path)
    assert done.returncode != 0
    assert named in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize("memory", ["2Gi", "6Gi"])
def test_memory_of_production_is_requested_in_full(memory: str, chart: Path, tmp_path: Path) -> None:
    values = together(turned_on("standard", ["production"]), nested("triton.resources.limits.memory", memory))
    (service,) = template(chart, values, tmp_path).of_kind("InferenceService")
    assert service["spec"]["predictor"]["containers"][0]["resources"]["requests"]["memory"] == memory


@pytest.mark.parametrize(("on", "replicas"), [(("production", "gpu"), 8), (("production",), 20)], ids=["gpu", "pods"])
def test_quota_is_raised_to_the_figures_of_the_error(
    on: tuple[str, ...], replicas: int, chart: Path, tmp_path: Path
) -> None:
    manifests = nested(
        "production.quota.hard", {"requests.cpu": "40", "requests.memory": "64Gi", "limits.memory": "128Gi"}
    )
    values = together(turned_on("standard", on), {"replicas": {"max": replicas}}, manifests)
    done = helm("template", "nereid", str(chart), values=values, folder=tmp_path)
    assert done.returncode != 0
    needed = dict(re.findall(r"((?:requests|limits)\.\w+|pods) (\d+(?:Gi)?)", done.stderr.partition("expected")[2]))
    assert {"requests.cpu", "requests.memory", "limits.memory"} <= needed.keys()
    rendered = template(chart, together(values, nested("production.quota.hard", needed)), tmp_path)
    assert [fault for fault in faults(rendered) if "Quota" in fault] == []
    for name, amount in needed.items():
        less = re.sub(r"\d+", lambda found: str(int(found[0]) - 1), amount)
        scarce = together(values, nested("production.quota.hard", {**needed, name: less}))
        assert f"expected {name} {amount}" in helm("template", "n", str(chart), values=scarce, folder=tmp_path).stderr


@pytest.mark.parametrize("mode", MODES)
def test_every_setting_of_the_manifests_may_be_set(mode: str, chart: Path, tmp_path: Path) -> None:
    on = all_of(mode)
    (settings,) = kustomize(mode, on, tmp_path).of_kind("ConfigMap")
    (same,) = template(chart, turned_on(mode, on) | {"settings": settings["data"]}, tmp_path).of_kind("ConfigMap")
    assert same["data"] == settings["data"]


def test_release_with_a_long_name_is_rejected(chart: Path, tmp_path: Path) -> None:
    done = helm("template", "a" * 44, str(chart), values=examples(), folder=tmp_path)
    assert done.returncode != 0
    assert "expected 43 characters at most" in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_helm_lint_has_no_findings(mode: str, chart: Path, tmp_path: Path) -> None:
    with tarfile.open(chart) as archive:
        archive.extractall(tmp_path, filter="data")
    done = helm("lint", "--strict", str(tmp_path / "nereid"), values=turned_on(mode, all_of(mode)), folder=tmp_path)
    found = [line for line in done.stdout.splitlines() if line.startswith("[") and "icon is recommended" not in line]
    assert (done.returncode, found) == (0, []), done.stdout


def test_changed_setting_makes_a_new_configmap_and_keeps_the_old_one(chart: Path, tmp_path: Path) -> None:
    names = set()
    for seconds in ("10", "5", "10"):
        rendered = template(chart, together(examples(), nested("settings.PREDICTOR_POLL_S", seconds)), tmp_path)
        (settings,) = rendered.of_kind("ConfigMap")
        names.add(settings["metadata"]["name"])
        assert settings["data"]["PREDICTOR_POLL_S"] == seconds
        assert settings["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        (service,) = rendered.of_kind("InferenceService")
        used = [
            each["configMapRef"]["name"]
            for container in service["spec"]["predictor"]["containers"]
            for each in container.get("envFrom", [])
            if "configMapRef" in each
        ]
        assert used == [settings["metadata"]["name"]] * 2
    assert len(names) == 2


@pytest.mark.parametrize("mode", MODES)
def test_notes_have_the_labels_of_the_namespace(mode: str, chart: Path, tmp_path: Path) -> None:
    on = all_of(mode)
    notes = notes_of(chart, turned_on(mode, on), tmp_path)
    (namespace,) = kustomize(mode, [name for name in on if name != "noNamespace"], tmp_path).of_kind("Namespace")
    labels = namespace["metadata"]["labels"].items()
    wanted = {f"{key}={value}" for key, value in labels if not key.startswith("app.kubernetes.io/")}
    assert set(re.findall(rf"kubectl label --overwrite namespace {NAMESPACE} (\S+)", notes)) == wanted


@pytest.mark.parametrize(
    ("on", "wanted"),
    [
        ((), {"secret generic nereid-triton", "secret generic nereid-s3"}),
        (("aws", "keys"), {"secret generic nereid-triton", "secret generic nereid-keys"}),
        (("aws", "caBundle"), {"secret generic nereid-triton", "configmap nereid-ca"}),
        (("aws", "signed"), {"secret generic nereid-triton", "configmap nereid-signers"}),
    ],
    ids=["", "keys", "ca", "signed"],
)
def test_notes_have_the_secrets_that_the_user_creates(
    on: tuple[str, ...], wanted: set[str], chart: Path, tmp_path: Path
) -> None:
    notes = notes_of(chart, turned_on("standard", on), tmp_path)
    assert set(re.findall(r"create ((?:secret generic|configmap) \S+)", notes)) == wanted


def notes_of(chart: Path, values: Mapping[str, Any], folder: Path) -> str:
    """The notes of an install, which needs a cluster; here rendered as an object."""
    with tarfile.open(chart) as archive:
        archive.extractall(folder, filter="data")
    templates = folder / "nereid" / "templates"
    notes = (templates / "NOTES.txt").read_text()
    (templates / "_notes.tpl").write_text(f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}')
    (templates / "notes.yaml").write_text(
        '{kind: Notes, metadata: {name: notes}, text: {{ include "notes" . | quote }}}'
    )
    notes_seen = template(folder / "nereid", values, folder).named("Notes", "notes")
    assert notes_seen
    return str(notes_seen["text"])


def test_values_of_the_manual_are_valid(chart: Path, tmp_path: Path) -> None:
    manual = (MANIFESTS / "README.md").read_text()
    written = re.search(r"^    mode: standard\n(?:^    .*\n)+", manual, re.M)
    assert written
    values = yaml.safe_load(textwrap.dedent(written[0]))
    rendered = template(chart, values, tmp_path)
    assert faults(replace(rendered, is_foreign=True)) == []
    assert {each["metadata"]["namespace"] for each in rendered.objects} == {NAMESPACE}
