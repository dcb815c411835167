"""Users' kustomizations over ours: partial patches, prefixes, namespaces, labels."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.openapi import compose
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import (
    MANIFESTS,
    Object,
    Render,
    RenderError,
    find_folders,
    needs_kubectl,
    render,
    render_over,
)
from tests.manifests.rules import deployments, egress, kserve, objects, pods, programs, selectors
from tests.support.fixtures import SHARED

pytestmark = needs_kubectl

CASE = SHARED.parent / "cases" / "kustomize" / "kustomization.yaml"
FIRST = "kserve-container"
NAMES_FIT = (
    objects.names_are_legal,
    objects.objects_say_their_namespace,
    objects.texts_name_their_own_namespace,
    objects.references_exist,
    pods.pods_mount_no_token,
    egress.pods_reach_what_they_use,
    programs.containers_find_each_other,
    *deployments.RULES,
    *selectors.RULES,
)
# Both of its InferenceServices come from one base, the second one with a suffix: with another suffix kustomize cannot
# distinguish their objects, and fails; so does a patch, which belongs into the folder stable/ or canary/.
NO_SUFFIX = "overlays/canary/standard"


@pytest.mark.parametrize("name", find_folders())
@pytest.mark.parametrize(
    "changes",
    [
        {"namePrefix": "team-", "namespace": "other", "labels": [{"pairs": {"team": "a"}, "includeSelectors": True}]},
        {"nameSuffix": "-a", "commonLabels": {"team": "a"}},
    ],
    ids=["prefix", "suffix"],
)
def test_names_and_selectors_fit_each_other(name: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    if name == NO_SUFFIX and "nameSuffix" in changes:
        with pytest.raises(RenderError, match="multiple possible referrals"):
            render_over(name, changes, tmp_path)
        return
    rendered = render_over(name, changes, tmp_path)
    assert {rule.__name__: faults for rule in NAMES_FIT if (faults := list(rule(rendered)))} == {}
    for each in rendered.of_kind("InferenceService", "Deployment", "InterceptorRoute"):
        assert each["metadata"]["name"].startswith(changes.get("namePrefix", ""))
        assert each["metadata"]["namespace"] == changes.get("namespace", "nereid")


def test_file_of_a_user_has_the_name_that_kustomize_gives_it(tmp_path: Path) -> None:
    mounts = [{"name": "ca", "mountPath": "/ca", "readOnly": True}]
    containers = [{"name": FIRST}, {"name": "synchroniser", "volumeMounts": mounts}]
    variable = {"name": "MORE", "valueFrom": {"configMapKeyRef": {"name": "ca", "key": "more"}}}
    containers.append({"name": "transformer-container", "env": [variable]})
    volumes = [{"name": "ca", "configMap": {"name": "ca"}}]
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "nereid"}}
    patch = head | {"spec": {"predictor": {"containers": containers, "volumes": volumes}}}
    changes = {
        "namespace": "nereid",
        "configMapGenerator": [{"name": "ca", "literals": ["more=x"]}],
        "patches": [{"patch": yaml.safe_dump(patch), "target": {"kind": "InferenceService"}}],
    }
    rendered = render_over("overlays/standard", changes, tmp_path)
    (given,) = (name for name in rendered.names("ConfigMap") if name.startswith("ca-"))
    (pod,) = pods_of(rendered)
    assert {"name": "ca", "configMap": {"name": given}} in pod["spec"]["volumes"]
    assert str(pod["spec"]["containers"]).count(f"'name': '{given}'") == 1
    assert list(objects.references_exist(rendered)) == []


def test_hosts_follow_a_prefix(tmp_path: Path) -> None:
    rendered = render_over("overlays/local", {"namePrefix": "team-"}, tmp_path)
    hosts = {
        variable["value"]
        for pod in pods_of(rendered)
        for container in containers_of(pod)
        for variable in container.get("env", [])
        if variable["name"] == "S3_SERVICE"
    }
    assert hosts == rendered.names("Service") == {"team-s3"}


def _patch(service: Object, container: str) -> str:
    """A patch as in manifests/README.md: patched containers come first, and KServe completes the first one."""
    component = "transformer" if "transformer" in service["spec"] else "predictor"
    first = [] if container == FIRST else [{"name": FIRST}]
    env = [{"name": "MALLOC_ARENA_MAX", "value": "json"}]
    return yaml.safe_dump(
        {
            "apiVersion": service["apiVersion"],
            "kind": service["kind"],
            "metadata": {key: service["metadata"][key] for key in ("name", "namespace")},
            "spec": {component: {"containers": [*first, {"name": container, "env": env}]}},
        }
    )


def _without(rendered: Render, name: str) -> list[Object]:
    """The objects without this variable; kustomize moves patched items to the front of their list."""
    found: list[Object] = json.loads(json.dumps(rendered.objects))
    for each in found:
        spec = each.get("spec", {})
        for component in (spec, *(spec[key] for key in ("predictor", "transformer") if key in spec)):
            containers = component.get("containers", [])
            for container in containers:
                env = [one for one in container.get("env", []) if one["name"] != name]
                container["env"] = sorted(env, key=lambda one: str(one["name"]))
            containers[1:] = sorted(containers[1:], key=lambda one: str(one["name"]))
    return found


@pytest.mark.parametrize("name", [name for name in find_folders() if name not in {"monitoring", NO_SUFFIX}])
def test_patch_of_one_variable_leaves_everything_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = render_over(name, {}, tmp_path / "plain")
    patches = []
    for service in plain.of_kind("InferenceService"):
        if "containers" in service["spec"]["predictor"]:
            last = service["spec"].get("transformer", service["spec"]["predictor"])["containers"][-1]["name"]
            patches.append({"patch": _patch(service, last)})
    patched = render_over(name, {"patches": patches}, tmp_path)
    assert _without(patched, "MALLOC_ARENA_MAX") == _without(plain, "MALLOC_ARENA_MAX")
    assert str(patched.objects).count("'MALLOC_ARENA_MAX'") == len(patches)


@pytest.mark.parametrize("name", ["", "pinned"])
def test_canary_over_a_users_site_has_its_registry_and_bucket(name: str, tmp_path: Path) -> None:
    # As in the manual: ../../site in place of ../../serverless.
    folder = "overlays/canary/knative/" + name
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    file = tmp_path / "manifests" / folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("../serverless", "../site"))
    (pod,) = pods_of(render(folder, tmp_path / "manifests"))
    images = {each["name"]: each["image"] for each in containers_of(pod)}
    assert images["transformer-container"].startswith("registry.example.com/")
    settings = next(render(folder, tmp_path / "manifests").of_kind("ConfigMap"))["data"]
    assert settings["PREDICTOR_PINS"] == f'{{"digit-finder":[{1 if name else 2}]}}'


def test_patch_of_a_user_keeps_the_other_containers(tmp_path: Path) -> None:
    if not CASE.is_file():
        pytest.skip("../shared/cases is missing: the same patch is tested above")
    patches = yaml.safe_load(CASE.read_text())["patches"]
    rendered = render_over("overlays/site", {"patches": patches}, tmp_path)
    (pod,) = pods_of(rendered)
    containers = {each["name"]: each for each in containers_of(pod)}
    assert containers.keys() == {FIRST, "synchroniser", "transformer-container"}
    assert all(each["image"] for each in containers.values())
    assert {"TRANSFORMER_HOST", "LOG_FORMAT"} <= {each["name"] for each in containers["transformer-container"]["env"]}
    # It patches a container that is not the first one: make manifests reports what KServe would do.
    (fault,) = kserve.the_first_container_is_the_one_kserve_completes(rendered)
    assert "expected kserve-container first" in fault


PARTS = {
    "a runtime": (
        "overlays/storage-uri",
        {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "nereid-triton"}},
        ("spec",),
        "transformer-container",
    ),
    "a deployment": (
        "overlays/local",
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "s3"}},
        ("spec", "template", "spec"),
        "s3",
    ),
    "a deployment that is copied": (
        "overlays/plain",
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nereid"}},
        ("spec", "template", "spec"),
        "synchroniser",
    ),
    "a job": (
        "overlays/local",
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "nereid-publish"}},
        ("spec", "template", "spec"),
        "publish",
    ),
}


@pytest.mark.parametrize(("name", "head", "path", "container"), PARTS.values(), ids=PARTS.keys())
def test_patch_of_a_part_is_merged_in_every_kind(
    name: str, head: dict[str, Any], path: tuple[str, ...], container: str, tmp_path: Path
) -> None:
    part: dict[str, Any] = {
        "containers": [
            {
                "name": container,
                "env": [{"name": "MINE", "value": "1"}],
                "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
            }
        ],
        "volumes": [{"name": "mine", "emptyDir": {}}],
    }
    for key in reversed(path):
        part = {key: part}
    head = head | {"metadata": head["metadata"] | {"namespace": "nereid"}}
    (tmp_path / "plain").mkdir()
    found = []
    for folder, patches in ((tmp_path / "plain", []), (tmp_path, [{"patch": yaml.safe_dump(head | part)}])):
        spec: Any = render_over(name, {"patches": patches}, folder).named(head["kind"], head["metadata"]["name"])
        for key in path:
            spec = spec[key]
        found.append(spec)
    plain, patched = found
    assert {each["name"] for each in patched["volumes"]} == {each["name"] for each in plain["volumes"]} | {"mine"}
    assert {each["name"] for each in patched["containers"]} == {each["name"] for each in plain["containers"]}
    before, after = (next(each for each in of["containers"] if each["name"] == container) for of in (plain, patched))
    assert after["image"] == before["image"]
    assert len(after["env"]) == len(before.get("env", [])) + 1
    assert len(after["volumeMounts"]) == len(before["volumeMounts"]) + 1


def test_merge_keys_are_those_of_kubernetes() -> None:
    assert json.loads((MANIFESTS / "base" / "openapi.json").read_text()) == compose()
