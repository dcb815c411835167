"""Objects against the schemas of their kinds."""

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.rendering import Render, find_folders, needs_kubectl, render, title
from tests.manifests.schemas import CRDS, CRDS_MISSING, close, find_faults
from tests.support.changes import changed

NO_CRDS = Path("/no/crds")
SERVICE: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "nereid"},
    "spec": {
        "predictor": {
            "minReplicas": 0,
            "containers": [{"name": "kserve-container", "resources": {"limits": {"cpu": 2, "memory": "4Gi"}}}],
        },
        "canary": [{"trafficPercent": 10, "predictor": {"containers": [{"name": "kserve-container"}]}}],
    },
}
MONITOR: dict[str, Any] = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PodMonitor",
    "metadata": {"name": "nereid"},
    "spec": {"selector": {}, "podMetricsEndpoints": [{"portNumber": 8002, "interval": "15s"}]},
}
SCALED: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "nereid"},
    "spec": {"scaleTargetRef": {"name": "nereid"}, "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}]},
}
KNATIVE: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "nereid"},
    "spec": {"template": {"spec": {"containers": [{"image": "nereid/transformer:1"}]}}},
}
ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "nereid"},
    "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "nereid", "port": 80}]}]},
}
INTERCEPTED: dict[str, Any] = {
    "apiVersion": "http.keda.sh/v1beta1",
    "kind": "InterceptorRoute",
    "metadata": {"name": "nereid"},
    "spec": {
        "target": {"service": "nereid", "port": 80},
        "rules": [{"hosts": ["nereid.example.com"]}],
        "scalingMetric": {"concurrency": {"targetValue": 2}},
        "timeouts": {"readiness": "1m30s"},
    },
}
BUDGET: dict[str, Any] = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "nereid"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "nereid"}}},
}


def test_manifests_fit_their_schemas(rendered: Render) -> None:
    assert {title(each): found for each in rendered.objects if (found := find_faults(each))} == {}


def test_crds_of_kserve_are_used() -> None:
    if not CRDS.is_dir():
        pytest.skip(CRDS_MISSING)
    assert find_faults(SERVICE) == []
    assert "maximum" in find_faults(changed(SERVICE, "spec canary 0 trafficPercent", 101))[0]
    assert find_faults(changed(SERVICE, "spec predictor scaleMetric", "requests"))
    assert find_faults(changed(SERVICE, "spec canary 0", {"trafficPercent": 10})) == [
        "spec.canary.0: 'predictor' is a required property"
    ]


@pytest.mark.parametrize("each", [SERVICE, MONITOR, SCALED, KNATIVE, ROUTE, INTERCEPTED, BUDGET], ids=title)
def test_valid_object_has_no_fault(each: dict[str, Any]) -> None:
    assert find_faults(each, NO_CRDS) == []


@pytest.mark.parametrize(
    ("each", "path", "value", "message"),
    [
        (SERVICE, "spec predictr", {}, "'predictr' was unexpected"),
        (SERVICE, "spec predictor containers 0 imagePolicy", "Always", "'imagePolicy' was unexpected"),
        (SERVICE, "spec canary 0 predictor containers 0 env", [{"nme": "A"}], "'nme' was unexpected"),
        (SERVICE, "spec predictor minReplicas", "0", "is not of type 'integer'"),
        (SERVICE, "spec predictor timeout", None, "spec.predictor.timeout: has no value"),
        (SERVICE, "metadata labels", {"version": 1}, "metadata.labels.version: 1 is not of type 'string'"),
        (SERVICE, "apiVersion", "serving.kserve.io/v1", "no model in the package kserve"),
        (MONITOR, "spec podMetricsEndpoints 0 portNumer", 8002, "'portNumer' was unexpected"),
        (MONITOR, "spec podMetricsEndpoints 0 interval", "15 s", "does not match"),
        (MONITOR, "kind", "PodMonitr", "no such kind"),
        (SCALED, "spec triggers 0 metadata start", 8, "is not of type 'string'"),
        (SCALED, "spec minReplicas", 1, "'minReplicas' was unexpected"),
        (KNATIVE, "spec template spec containerConcurency", 1, "'containerConcurency' was unexpected"),
        (ROUTE, "spec rules 0 backendRefs 0 wait", 1, "'wait' was unexpected"),
        (ROUTE, "spec rules 0 backendRefs 0 port", "80", "is not of type 'integer'"),
        (INTERCEPTED, "spec target portName", "http", "is valid under each of"),
        (INTERCEPTED, "spec scalingMetric", {}, "should be non-empty"),
        (INTERCEPTED, "spec timeouts readiness", "300", "does not match"),
        (INTERCEPTED, "spec minReplicas", 0, "'minReplicas' was unexpected"),
        (BUDGET, "spec maxUnavailible", 1, "'maxUnavailible' was unexpected"),
        (BUDGET, "metadata labels", {"version": 1}, "is not of type 'string'"),
        (BUDGET, "apiVersion", "policy/v9", "no schema"),
    ],
)
def test_invalid_object_is_found(each: dict[str, Any], path: str, value: Any, message: str) -> None:
    faults = find_faults(changed(each, path, value), NO_CRDS)
    assert faults
    assert any(message in fault for fault in faults), faults


def test_closed_schema_keeps_what_is_open() -> None:
    opened = {"properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": True}
    assert "additionalProperties" not in close(opened)
    assert close({"properties": {"a": {}}, "additionalProperties": {"type": "string"}})["additionalProperties"]
    assert close({"x-kubernetes-int-or-string": True})["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    # A field may have the name of a keyword.
    assert close({"properties": {"properties": {"type": "string"}, "default": {"type": "string"}}}) == {
        "properties": {"properties": {"type": "string"}, "default": {"type": "string"}},
        "additionalProperties": False,
    }


def test_folders_are_found_without_components_and_parts(tmp_path: Path) -> None:
    for name, kind in {"base": "Kustomization", "overlays/a": "Kustomization", "images": "Component"}.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text(f"kind: {kind}\n")
    (tmp_path / "overlays" / "a" / "part").mkdir()
    (tmp_path / "overlays" / "a" / "part" / "kustomization.yaml").write_text("resources: [../../../base]\n")
    (tmp_path / "overlays" / "a" / "kustomization.yaml").write_text("resources: [part]\n")
    assert find_folders(tmp_path) == ("base", "overlays/a")


@needs_kubectl
def test_overlay_differs_from_base(rendered: Render) -> None:
    if rendered.name != "base":
        assert rendered.objects != render("base").objects
