"""Rules for our overlays, beyond those for users' overlays."""

import pytest

from tests.manifests.rendering import Render, find_folders, needs_kubectl, render, title

pytestmark = needs_kubectl

LABELS = ("name", "part-of", "managed-by")
ON_KEPT = {
    "argocd.argoproj.io/sync-options": "Prune=false",
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
ON_JOBS = {
    "argocd.argoproj.io/hook": "Sync",
    "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
}


def test_objects_have_labels(rendered: Render) -> None:
    """Next, for an overlay with objects of its own: `labels` in its kustomization.yaml, as in overlays/gpu."""
    labels = {title(each): each["metadata"].get("labels", {}) for each in rendered.objects}
    assert [
        f"{name} has no app.kubernetes.io/{label}"
        for name, given in labels.items()
        for label in LABELS
        if f"app.kubernetes.io/{label}" not in given
    ] == []
    assert {given["app.kubernetes.io/part-of"] for given in labels.values()} == {"nereid"}


@pytest.mark.parametrize("name", ["base", *(name for name in find_folders() if name.startswith("overlays/"))])
def test_settings_of_an_old_revision_stay(name: str) -> None:
    """Argo CD and Flux prune what is no longer rendered, and an old revision starts with its ConfigMap."""
    configmaps = render(name).of_kind("ConfigMap")
    kept = [each for each in configmaps if each["metadata"]["name"].startswith("nereid-settings-")]
    assert kept
    assert all(ON_KEPT.items() <= each["metadata"]["annotations"].items() for each in kept)


def test_policies_have_no_empty_list(rendered: Render) -> None:
    """The API server drops empty lists, so each server-side apply would be a change; a missing list denies all too."""
    specs = {title(each): each["spec"] for each in rendered.of_kind("NetworkPolicy")}
    assert [name for name, spec in specs.items() if [] in (spec.get("ingress"), spec.get("egress"))] == []


@pytest.mark.parametrize("name", ["jobs/build-tensorrt", "jobs/publish", "overlays/local"])
def test_job_runs_again_in_each_sync(name: str) -> None:
    """A job is immutable: Argo CD has to delete the previous one."""
    (job,) = render(name).of_kind("Job")
    assert ON_JOBS.items() <= job["metadata"]["annotations"].items()


@pytest.mark.parametrize("kind", ["cpu", "memory"])
def test_triton_of_production_requests_its_limit(kind: str) -> None:
    """Pods that use more than requested are evicted first."""
    (service,) = render("overlays/production").of_kind("InferenceService")
    resources = service["spec"]["predictor"]["containers"][0]["resources"]
    assert resources["requests"][kind] == resources["limits"][kind]


@needs_kubectl
def test_targets_of_keda_can_be_exceeded() -> None:
    """A transformer limits its requests to Triton, of which at least one is in the model, not in the queue."""
    rendered = render("overlays/keda")
    (settings,) = rendered.of_kind("ConfigMap")
    waiting = int(settings["data"]["TRANSFORMER_MAX_IN_FLIGHT"]) - 1
    (service,) = rendered.of_kind("InferenceService")
    metrics = service["spec"]["predictor"]["autoScaling"]["metrics"]
    targets = [float(each["external"]["target"]["value"]) for each in metrics]
    assert len(targets) == 2
    assert all(target < waiting for target in targets), f"{targets}, and {waiting} can wait"
