"""Pods of an InferenceService, as observed with KServe (tests/cluster/test_objects.py)."""

from typing import Any

import pytest

from tests.manifests.pod import components_of, grace_s_of, pod_of
from tests.manifests.rendering import MANIFESTS, needs_kubectl
from tests.support.changes import GONE, changed
from tests.support.pod import convert, render

KNATIVE_POD = {
    "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
    "autoscaling.knative.dev/min-scale": "0",
    "autoscaling.knative.dev/max-scale": "4",
    "autoscaling.knative.dev/metric": "concurrency",
    "autoscaling.knative.dev/target": "2",
}
MODE = "metadata annotations serving.kserve.io/deploymentMode"
SERVICE: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "nereid", "annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
    "spec": {
        "predictor": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "scaleMetric": "concurrency",
            "scaleTarget": 2,
            "timeout": 120,
            "containers": [{"name": "kserve-container", "env": []}],
        }
    },
}
STABLE: dict[str, Any] = {
    "minReplicas": 4,
    "maxReplicas": 8,
    "scaleMetric": "cpu",
    "scaleTarget": 70,
    "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
    "terminationGracePeriodSeconds": 90,
    "model": {"runtime": "nereid-triton", "name": "one", "storageUri": "s3://models/releases/1"},
}
CANARY: dict[str, Any] = {
    "trafficPercent": 30,
    "predictor": {"name": "next", "model": {"name": "", "storageUri": "s3://models/releases/2"}},
}


def with_canary(canary: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "nereid", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {"predictor": STABLE, "canary": [canary]},
    }


def test_pod_of_knative_has_annotations_for_scaling_and_no_label_of_a_deployment() -> None:
    pod = pod_of(SERVICE)
    assert KNATIVE_POD.items() <= pod["metadata"]["annotations"].items()
    assert "app" not in pod["metadata"]["labels"]
    assert pod["spec"]["containers"][0]["env"] == [{"name": "INFERENCE_SERVICE_NAME", "value": "nereid"}]


def test_pod_of_knative_without_an_upper_bound_has_no_annotation_for_it() -> None:
    pod = pod_of(changed(SERVICE, "spec predictor maxReplicas", GONE))
    assert "autoscaling.knative.dev/max-scale" not in pod["metadata"]["annotations"]


def test_model_is_merged_into_the_container_of_its_runtime() -> None:
    own = {
        "name": "kserve-container",
        "args": ["a"],
        "env": [{"name": "HOME", "value": "/"}, {"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2", "memory": "4Gi"}},
    }
    model = {"args": ["b"], "env": [{"name": "HOME", "value": "/x"}], "resources": {"limits": {"cpu": "3"}}}
    service = changed(changed(SERVICE, MODE, "Standard"), "spec predictor containers", GONE)
    service = changed(service, "spec predictor model", {**model, "runtime": "triton"})
    (container,) = pod_of(service, runtime={"spec": {"containers": [own]}})["spec"]["containers"]
    assert container["args"] == ["a", "b"]
    assert [each["name"] for each in container["env"]] == ["HOME", "A", "INFERENCE_SERVICE_NAME"]
    assert container["env"][0]["value"] == "/x"
    assert container["resources"] == {"requests": {"cpu": "2"}, "limits": {"cpu": "3", "memory": "4Gi"}}


def test_pod_of_standard_has_the_label_of_its_deployment_and_nothing_of_knative() -> None:
    pod = pod_of(changed(SERVICE, MODE, "Standard"))
    assert pod["metadata"]["labels"]["app"] == "isvc.nereid-predictor"
    assert not any("knative" in key for key in pod["metadata"]["annotations"])


@pytest.mark.parametrize(
    ("mode", "field", "value", "grace"),
    [
        ("Knative", "timeout", 120, 120),
        ("Knative", "timeout", GONE, 300),
        ("Knative", "terminationGracePeriodSeconds", 60, 120),
        ("Standard", "terminationGracePeriodSeconds", 60, 60),
        ("Standard", "timeout", 120, 30),
    ],
)
def test_knative_takes_the_timeout_for_the_grace_period(mode: str, field: str, value: Any, grace: int) -> None:
    service = changed(changed(SERVICE, MODE, mode), f"spec predictor {field}", value)
    assert grace_s_of(service, service["spec"]["predictor"]) == grace


@needs_kubectl
def test_pod_of_podman_has_the_variables_of_kserve() -> None:
    secrets = {"nereid-triton": {"secret": "x"}, "nereid-s3": {}}
    pod = convert(render(MANIFESTS / "overlays" / "standard"), settings={}, secrets=secrets).documents[-1]
    for each in pod["spec"]["containers"]:
        assert {"name": "INFERENCE_SERVICE_NAME", "value": "nereid"} in each["env"], each["name"]


def test_canary_inherits_its_pod_and_neither_its_scaling_nor_its_strategy() -> None:
    service = with_canary(CANARY)
    (_, stable), (name, canary) = components_of(service)
    assert name == "predictor"
    assert (stable["minReplicas"], stable["maxReplicas"]) == (2, 8)
    assert (canary["minReplicas"], canary["maxReplicas"]) == (2, 2)  # 30 % of four, rounded up
    assert (canary["scaleMetric"], canary["scaleTarget"]) == ("cpu", 80)
    assert "deploymentStrategy" not in canary
    assert canary["terminationGracePeriodSeconds"] == 90
    pod = pod_of(service, name, canary, {"spec": {"containers": []}})
    assert pod["metadata"]["name"] == "nereid-next-predictor"
    source = "internal.serving.kserve.io/storage-initializer-sourceuri"
    assert pod["metadata"]["annotations"][source] == "s3://models/releases/2"


def test_canary_has_its_number_of_pods_and_no_empty_fields() -> None:
    _, (_, canary) = components_of(with_canary(changed(CANARY, "predictor minReplicas", 1)))
    assert (canary["minReplicas"], canary["maxReplicas"]) == (1, 1)
    assert canary["model"] == {"runtime": "nereid-triton", "name": "one", "storageUri": "s3://models/releases/2"}
