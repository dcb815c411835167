"""manifests/components: their combinations, in every valid order."""

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.build import version
from tests.manifests.__main__ import judge
from tests.manifests.compositions import COMPONENTS, OF_THE_POD, ON_CPU, WITH_KSERVE, WITHOUT, combine
from tests.manifests.environment import environment_of
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.programs import listeners_of
from tests.manifests.rendering import (
    MANIFESTS,
    Object,
    Render,
    RenderError,
    needs_kubectl,
    render_over,
    title,
    with_components,
)
from tests.manifests.rules import objects
from tests.support.pages import blocks_of

pytestmark = needs_kubectl

# Included by base or by another component, or only of use in one.
INNER = {"images", "s3", "deployment/pod"}


def find_components() -> list[str]:
    """Names of all components."""
    found = COMPONENTS.rglob("kustomization.yaml")
    return sorted(str(path.parent.relative_to(COMPONENTS)) for path in found)


def in_order(rendered: Render) -> dict[str, Any]:
    """Objects of a render, with named lists sorted: their order has no effect."""
    return {title(each): _sorted(each) for each in rendered.objects}


def _sorted(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _sorted(value) for key, value in node.items()}
    if isinstance(node, list):
        return sorted((_sorted(each) for each in node), key=lambda each: json.dumps(each, sort_keys=True))
    return node


def test_each_component_has_a_use() -> None:
    used = {
        *WITH_KSERVE,
        *WITHOUT,
        *ON_CPU,
        *INNER,
        "ca-bundle",
        "proxy",
        "otlp",
        "outside",
        "headless",
        "no-namespace",
    }
    assert set(find_components()) == used
    for name in find_components():
        assert yaml.safe_load((COMPONENTS / name / "kustomization.yaml").read_text())["kind"] == "Component"


@pytest.mark.parametrize("names", [WITH_KSERVE, WITHOUT, ON_CPU], ids=["kserve", "deployment", "cpu"])
def test_all_components_together_are_valid_with_prefix_and_namespace(names: tuple[str, ...], tmp_path: Path) -> None:
    rendered = combine(names, tmp_path)
    of_examples = objects.placeholders_are_replaced.__name__.replace("_", " ")
    assert [fault for fault in judge(rendered) if not fault.startswith(of_examples)] == []
    text = json.dumps(rendered.objects)
    assert '"namespace": "nereid"' not in text
    assert 'namespace=\\"nereid\\"' not in text
    for each in rendered.objects:
        assert each["kind"] == "Namespace" or each["metadata"]["name"].startswith("acme-"), title(each)


@pytest.mark.parametrize("names", [WITH_KSERVE, WITHOUT, ON_CPU], ids=["kserve", "deployment", "cpu"])
def test_order_has_no_effect(names: tuple[str, ...], tmp_path: Path) -> None:
    after = {"deployment": OF_THE_POD, "alb": ["ingress"], "alb-grpc": ["alb"]}
    backwards = [name for name in reversed(names) if name not in after]
    for name in (each for each in after if each in names):
        last = max(backwards.index(each) for each in after[name])
        backwards.insert(last + 1, name)
    assert in_order(combine(names, tmp_path / "a")) == in_order(combine(tuple(backwards), tmp_path / "b"))


@pytest.mark.parametrize("names", list(permutations(("aws", "keys", "ca-bundle", "signed")))[::3], ids="-".join)
def test_secrets_and_files_exist_in_every_order(names: tuple[str, ...], tmp_path: Path) -> None:
    (pod,) = pods_of(combine(names, tmp_path))
    by_name = {each["name"]: each for each in containers_of(pod)}
    assert [next(iter(each)) for each in by_name["synchroniser"]["envFrom"]] == ["configMapRef"]
    mounted = {name: {mount["mountPath"] for mount in each["volumeMounts"]} for name, each in by_name.items()}
    assert "/keys" in mounted["transformer-container"]
    assert "/etc/nereid" in mounted["transformer-container"] & mounted["synchroniser"]
    assert "/signers" in mounted["synchroniser"]
    assert not mounted["kserve-container"] & {"/keys", "/etc/nereid", "/signers"}
    assert "/signers" not in mounted["transformer-container"]


@pytest.mark.parametrize("late", ["keys", "aws", "gpu", "production", "ca-bundle", "signed", "keda", "cpu-triton"])
def test_component_after_the_copy_of_the_pod_is_rejected(late: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="no matches for Id InferenceService"):
        combine(("deployment", late), tmp_path)


@pytest.mark.parametrize("name", ["alb", "alb-grpc"])
def test_alb_needs_an_ingress_before_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="no matches for Id Ingress"):
        combine(("service", name, "ingress"), tmp_path)


def test_namespace_of_a_platform_is_not_rendered(tmp_path: Path) -> None:
    mine = combine(("production", "service"), tmp_path / "mine")
    without = combine(("production", "service", "no-namespace"), tmp_path / "without")
    kinds = [each["kind"] for each in mine.objects], [each["kind"] for each in without.objects]
    assert [kind for kind in kinds[0] if kind not in {"Namespace", "ResourceQuota", "LimitRange"}] == kinds[1]
    assert len(kinds[0]) == len(kinds[1]) + 3


@pytest.mark.parametrize("overlay", ["overlays/standard", "overlays/serverless", "overlays/production"])
def test_cpu_triton_takes_the_place_of_nvidias_image(overlay: str, tmp_path: Path) -> None:
    of_user = {"namespace": "nereid", "images": [{"name": "nereid/cpu-triton", "newName": "registry.test/cpu-triton"}]}
    rendered = render_over(overlay, of_user | with_components(tmp_path, "cpu-triton"), tmp_path)
    (pod,) = pods_of(rendered)
    triton, synchroniser, _ = containers_of(pod)
    assert triton["image"] == f"registry.test/cpu-triton:{version()}"
    assert "nvcr.io" not in json.dumps(rendered.objects)
    # Prometheus scrapes the same port, of another container.
    ports = [each.port for each in listeners_of(triton, environment_of(triton, pod, rendered)) if each.outside]
    assert ports == []
    listeners = listeners_of(synchroniser, environment_of(synchroniser, pod, rendered))
    assert {each.port for each in listeners if each.outside} == {8002, 8003}


def test_clients_outside_are_admitted(tmp_path: Path) -> None:
    policies = combine(("outside",), tmp_path).of_kind("NetworkPolicy")
    (policy,) = (each for each in policies if each["metadata"]["name"] == "acme-nereid-outside")
    assert any("ipBlock" in peer for rule in policy["spec"]["ingress"] for peer in rule["from"])


@pytest.mark.parametrize(
    ("component", "setting", "port"), [("otlp", "OTEL_EXPORTER_OTLP_ENDPOINT", 4318), ("proxy", "HTTPS_PROXY", 3128)]
)
def test_addresses_of_settings_are_reachable(component: str, setting: str, port: int, tmp_path: Path) -> None:
    rendered = combine((component,), tmp_path)
    (settings,) = (each for each in rendered.of_kind("ConfigMap") if "settings" in each["metadata"]["name"])
    assert str(port) in settings["data"][setting]
    assert port in _reached(rendered)


def _reached(rendered: Render) -> set[int]:
    policies: list[Object] = list(rendered.of_kind("NetworkPolicy"))
    rules = [rule for each in policies for rule in each["spec"].get("egress", [])]
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_setting_of_a_component_is_changed_by_the_patch_of_the_manual(tmp_path: Path) -> None:
    """Not by a literal: kustomize generates it before the component is applied."""
    (patch,) = re.findall(r"patch: '(.*HTTPS_PROXY.*)'", (MANIFESTS / "README.md").read_text())
    mine = {"name": "nereid-settings", "behavior": "merge", "literals": ["HTTPS_PROXY=http://mine:1"]}
    target = {"kind": "ConfigMap", "name": "nereid-settings"}
    proxies = []
    for patches in ([], [{"target": target, "patch": patch}]):
        of_user = {"configMapGenerator": [mine], "patches": patches}
        rendered = render_over("overlays/standard", of_user | with_components(tmp_path, "proxy"), tmp_path)
        (settings,) = rendered.of_kind("ConfigMap")
        proxies.append(settings["data"]["HTTPS_PROXY"])
    assert proxies == ["http://proxy.example.com:3128", "http://proxy.acme.example:3128"]


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("overlays/separate-transformer", ["transformer-container"]),
        ("overlays/storage-uri", ["kserve-container", "transformer-container"]),
    ],
)
def test_component_of_one_pod_does_not_fit_two(name: str, strange: list[str], tmp_path: Path) -> None:
    """The reported fault is the cause of all others."""
    rendered = render_over(name, {"namespace": "nereid", **with_components(tmp_path, "keys")}, tmp_path)
    faults = list(judge(rendered))
    assert [fault.split()[0] for fault in faults] == strange
    assert all("no image; a component changes this container" in fault for fault in faults)


def test_missing_requirement_of_a_component_is_reported(tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    names = ("no-namespace", "production")
    late = render_over("overlays/standard", with_components(tmp_path / "late", *names), tmp_path / "late")
    assert any("expected components/no-namespace last in the list" in fault for fault in judge(late))
    found = "\n".join(judge(combine(("external-secrets/s3",), tmp_path / "store")))
    assert "SecretStore acme-nereid is not rendered" in found or "SecretStore nereid is not rendered" in found
    with pytest.raises(RenderError, match="ingressClassName"):
        combine(("service", "ingress", "alb-grpc"), tmp_path / "alb")


def test_signed_models_are_those_of_the_page(tmp_path: Path) -> None:
    block, _ = blocks_of(MANIFESTS.parent / "docs/signed-models.md", "On a cluster")
    (tmp_path / "release.pub").write_text("x")
    head = {key: value for key, value in yaml.safe_load(block).items() if key != "components"}
    assert "components/signed" in block
    rendered = render_over("overlays/standard", head | with_components(tmp_path, "signed"), tmp_path)
    (pod,) = pods_of(rendered)
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "signers")
    (files,) = (
        each for each in rendered.of_kind("ConfigMap") if each["metadata"]["name"] == volume["configMap"]["name"]
    )
    assert files["data"] == {"release.pub": "x"}
    assert files["metadata"]["name"] != "nereid-signers"  # other keys roll the pods
