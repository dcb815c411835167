"""manifests/components/deployment: the pod of an InferenceService in a Deployment, without KServe."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.__main__ import judge
from tests.manifests.pod import MODE, containers_of, pods_of
from tests.manifests.rendering import (
    MANIFESTS,
    Object,
    Render,
    RenderError,
    needs_kubectl,
    render,
    render_over,
    with_components,
)
from tests.manifests.rules.selectors import selects

pytestmark = needs_kubectl

STANDARD, BLUE_GREEN = "overlays/standard", "overlays/plain/blue-green"
PLAIN = ("overlays/plain", "overlays/plain/nodeport", "overlays/plain/loadbalancer", "overlays/http-add-on")
KSERVE = "serving.kserve.io/"


def _without_kserve(pod: Object) -> tuple[Any, Mapping[str, str]]:
    """The pod's spec and annotations, without what KServe adds."""
    spec = json.loads(json.dumps(pod["spec"]))
    for container in spec["containers"]:
        container["env"] = [each for each in container["env"] if each["name"] != "INFERENCE_SERVICE_NAME"]
    annotations = pod["metadata"].get("annotations", {})
    return spec, {key: value for key, value in annotations.items() if not key.startswith(KSERVE)}


def _named(spec: Any, settings: str) -> Any:
    """The spec with another ConfigMap."""
    return json.loads(re.sub(r"nereid-settings[-a-z0-9]*", settings, json.dumps(spec)))


def _as_deployment(name: str, folder: Path) -> Render:
    """An overlay of ours with the component."""
    return render_over(name, {"namespace": "nereid", **with_components(folder, "deployment", "service")}, folder)


@pytest.mark.parametrize("name", PLAIN)
def test_pod_is_that_of_standard(name: str) -> None:
    (pod,), (expected,) = pods_of(render(name)), pods_of(render(STANDARD))
    assert _without_kserve(pod) == _without_kserve(expected)
    assert MODE in expected["metadata"]["annotations"]
    assert not any(key.startswith(KSERVE) for key in (*pod["metadata"]["annotations"], *pod["metadata"]["labels"]))


def test_pods_of_blue_and_green_are_that_of_standard_with_pins_of_their_own() -> None:
    rendered = render(BLUE_GREEN)
    (expected,) = pods_of(render(STANDARD))
    pods = {pod["metadata"]["labels"]["color"]: pod for pod in pods_of(rendered)}
    assert pods.keys() == {"blue", "green"}
    pins = []
    for color, pod in pods.items():
        assert pod["metadata"]["name"] == f"nereid-{color}"
        (reference,) = {
            source["configMapRef"]["name"]
            for container in containers_of(pod)
            for source in container.get("envFrom", [])
            if "configMapRef" in source
        }
        spec, annotations = _without_kserve(pod)
        wanted, of_standard = _without_kserve(expected)
        assert (_named(spec, "same"), annotations) == (_named(wanted, "same"), of_standard)
        settings = rendered.named("ConfigMap", reference)
        assert settings
        pins.append(json.loads(settings["data"]["PREDICTOR_PINS"]))
    assert pins[0] != pins[1]
    assert all(pins)


@pytest.mark.parametrize("name", [STANDARD, "overlays/gpu", "overlays/production"])
def test_every_overlay_of_one_pod_can_be_a_deployment(name: str, tmp_path: Path) -> None:
    rendered = _as_deployment(name, tmp_path)
    (pod,), (expected,) = pods_of(rendered), pods_of(render(name))
    assert _without_kserve(pod) == _without_kserve(expected)
    assert list(judge(rendered)) == []
    (service,), (deployment,) = render(name).of_kind("InferenceService"), rendered.of_kind("Deployment")
    assert deployment["spec"]["strategy"] == service["spec"]["predictor"]["deploymentStrategy"]


def test_overlays_with_two_pods_or_knative_cannot(tmp_path: Path) -> None:
    for name in ("separate", "serverless"):
        (tmp_path / name).mkdir()
    found = list(judge(_as_deployment("overlays/separate-transformer", tmp_path / "separate")))
    assert any("Service/nereid" in fault for fault in found), found
    with pytest.raises(RenderError, match="deploymentStrategy"):
        _as_deployment("overlays/serverless", tmp_path / "serverless")


def test_scale_is_standard_s_from_three_pods_on() -> None:
    (scaler,) = render("overlays/plain").of_kind("HorizontalPodAutoscaler")
    (service,) = render(STANDARD).of_kind("InferenceService")
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"]["name"] == service["spec"]["predictor"]["scaleMetric"]
    assert metric["resource"]["target"]["averageUtilization"] == service["spec"]["predictor"]["scaleTarget"]
    assert scaler["spec"]["minReplicas"] == 3


@pytest.mark.parametrize(
    ("name", "type_", "has_ingress"),
    [
        ("overlays/plain", "ClusterIP", True),
        ("overlays/plain/nodeport", "NodePort", False),
        ("overlays/plain/loadbalancer", "LoadBalancer", False),
    ],
)
def test_ingress_of_each_variant(name: str, type_: str, has_ingress: bool) -> None:
    (service,) = render(name).of_kind("Service")
    assert service["spec"]["type"] == type_
    assert any(render(name).of_kind("Ingress")) == has_ingress
    rules = [rule for each in render(name).of_kind("NetworkPolicy") for rule in each["spec"].get("ingress", [])]
    peers = [peer for rule in rules for peer in rule["from"]]
    assert any("ipBlock" in peer for peer in peers) != has_ingress


def test_scaling_by_keda_is_not_lost_silently(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="autoscalerClass"):
        _as_deployment("overlays/keda", tmp_path)


def test_registry_and_bucket_of_a_user_reach_a_deployment(tmp_path: Path) -> None:
    site = yaml.safe_load((MANIFESTS / "overlays" / "site" / "kustomization.yaml").read_text())
    mine = {key: site[key] for key in ("images", "configMapGenerator")}
    mine["configMapGenerator"][0]["literals"] = ["PREDICTOR_REPOSITORY=s3://mine/models"]
    rendered = render_over("overlays/plain", mine, tmp_path)
    (pod,) = pods_of(rendered)
    images = [each["image"] for each in containers_of(pod)]
    assert sum(image.startswith("registry.example.com/nereid/") for image in images) == 2
    (settings,) = rendered.of_kind("ConfigMap")
    assert settings["data"]["PREDICTOR_REPOSITORY"] == "s3://mine/models"
    assert {"name": settings["metadata"]["name"]} in _references(rendered)


def _references(rendered: Render) -> list[Any]:
    sources = [s for pod in pods_of(rendered) for each in containers_of(pod) for s in each.get("envFrom", [])]
    return [source["configMapRef"] for source in sources if "configMapRef" in source]


def test_commands_of_the_manual_switch_the_colour_and_back(tmp_path: Path) -> None:
    manual = (MANIFESTS / "README.md").read_text()
    patches = re.findall(r"kubectl -n nereid patch service nereid -p '(\{.*\})'", manual)
    assert len(patches) == 2
    rendered = render(BLUE_GREEN)
    (service,) = rendered.of_kind("Service")
    served = [_served(service, rendered)]
    for patch in patches:
        (tmp_path / "service.yaml").write_text(yaml.safe_dump(service))
        command = ["kubectl", "patch", "--local", "-f", str(tmp_path / "service.yaml"), "-p", patch, "-o", "yaml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        service = yaml.safe_load(done.stdout)
        served.append(_served(service, rendered))
    assert served == [["nereid-blue"], ["nereid-green"], ["nereid-blue"]]


def _served(service: Object, rendered: Render) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods_of(rendered) if selects(service, pod)]
