"""manifests/examples/argo-cd: the ApplicationSet and its clusters, in a user's repository."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.__main__ import judge
from tests.manifests.releases import TAG, make_release, needs_git
from tests.manifests.rendering import (
    MANIFESTS,
    ROOT,
    Render,
    needs_kubectl,
    render,
    render_foreign,
    render_over,
    title,
)
from tests.manifests.rules import objects
from tests.manifests.schemas import find_faults
from tests.support.changes import changed

pytestmark = [needs_kubectl, needs_git]

EXAMPLE = MANIFESTS / "examples" / "argo-cd"
# Placeholders of the example, with their replacements.
OWN = {
    "111122223333": "121212121212",
    "444455556666": "343434343434",
    "777788889999": "565656565656",
    "example-models": "acme-models",
    ".vision.example.com": ".vision.acme.example",
    "git.example.com": "git.acme.example",
    "192.0.2.": "10.9.8.",
    "sha256:" + "0" * 60: "sha256:" + "ab" * 30,
    "certificate/00000000": "certificate/12345678",
}


def read_set() -> dict[str, Any]:
    """The ApplicationSet."""
    read: dict[str, Any] = yaml.safe_load((EXAMPLE / "applicationset.yaml").read_text())
    return read


def expand(applications: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The Applications of an ApplicationSet, whose only template is `{{.name}}`."""
    for element in applications["spec"]["generators"][0]["list"]["elements"]:
        text = yaml.safe_dump(applications["spec"]["template"])
        for name, value in element.items():
            text = text.replace(f"{{{{.{name}}}}}", value)
        yield yaml.safe_load(text)


PATHS = [each["spec"]["source"]["path"] for each in expand(read_set())]
CLUSTERS = [each["spec"]["destination"]["name"] for each in expand(read_set())]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in a copy of the manifests, with a user's values."""
    copy = tmp_path_factory.mktemp("nereid") / "manifests"
    shutil.copytree(MANIFESTS, copy)
    folder = copy / EXAMPLE.relative_to(MANIFESTS)
    for path in folder.rglob("*.yaml"):
        text = path.read_text()
        for example, own in OWN.items():
            text = text.replace(example, own)
        path.write_text(text)
    return folder


def test_there_is_an_application_for_each_folder() -> None:
    applications = list(expand(read_set()))
    assert len(applications) == 3
    assert {each["spec"]["source"]["path"] for each in applications} == {
        str(path.parent.relative_to(EXAMPLE)) for path in EXAMPLE.glob("clusters/*/kustomization.yaml")
    }
    assert len({each["metadata"]["name"] for each in applications}) == 3
    assert "{{" not in yaml.safe_dump_all(applications)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_cluster_is_valid_in_a_users_repository(cluster: str, repository: Path) -> None:
    (application,) = (each for each in expand(read_set()) if each["spec"]["destination"]["name"] == cluster)
    rendered = render_foreign(repository / application["spec"]["source"]["path"])
    assert list(judge(rendered)) == []
    namespaces = {each["metadata"].get("namespace") for each in rendered.objects} - {None}
    assert namespaces == {application["spec"]["destination"]["namespace"]}


def test_cluster_is_the_same_over_a_release(repository: Path, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release")
    folder = tmp_path / "repository"
    shutil.copytree(repository, folder)
    path = folder / "common" / "kustomization.yaml"
    path.write_text(re.sub(r"(?:\.\./){3}(\S+)", rf"{release}//manifests/\1?ref={TAG}", path.read_text()))
    name = f"clusters/{CLUSTERS[0]}"
    assert render_foreign(folder / name).objects == render_foreign(repository / name).objects


def test_clusters_differ_in_their_own_values_only() -> None:
    rendered = [render(f"examples/argo-cd/clusters/{cluster}") for cluster in CLUSTERS]
    for value in (_bucket, _host, _role, _store, _image, _address):
        assert len({value(each) for each in rendered}) == len(CLUSTERS), value.__name__


def test_remaining_placeholders_are_found() -> None:
    found = "\n".join(fault for name in ("", *PATHS) for fault in judge(render_foreign(EXAMPLE / name)))
    for example in OWN:
        # Follows an account in the same text, which is reported instead.
        hidden = example.startswith(("sha256:", "certificate/"))
        assert objects.PLACEHOLDERS.search(f"{example}-") if hidden else f"has {example.strip('.')}" in found, example


def read_patches() -> list[dict[str, Any]]:
    """Patches of docs/gitops.md, in order."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", (ROOT / "docs" / "gitops.md").read_text(), re.MULTILINE)
    return [yaml.safe_load(textwrap.dedent(each)) for each in blocks if each.strip("\n").startswith("    patches:")]


def test_canary_is_promoted_by_the_commit_of_the_page(tmp_path: Path) -> None:
    (promote,) = read_patches()
    promoted = render_over("overlays/canary/knative", {"namespace": "nereid", **promote}, tmp_path)
    (service,) = promoted.of_kind("InferenceService")
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == 100


def test_previous_settings_survive_a_sync() -> None:
    for cluster in CLUSTERS:
        (settings,) = render(f"examples/argo-cd/clusters/{cluster}").of_kind("ConfigMap")
        notes = settings["metadata"]["annotations"]
        assert notes["argocd.argoproj.io/sync-options"] == "Prune=false"
        assert notes["argocd.argoproj.io/compare-options"] == "IgnoreExtraneous"
        assert notes["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec goTemplte", True),
        ("spec template spec destination server", "https://10.0.0.1"),
        ("spec template spec syncPolicy syncOptions", ["ServerSideApply"]),
        ("spec template spec syncPolicy automated selfheal", True),
        ("spec template spec source targetRevision", ""),
        ("spec generators", []),
    ],
)
def test_invalid_application_set_is_found(path: str, value: Any) -> None:
    assert find_faults(read_set()) == []
    assert find_faults(changed(read_set(), path, value))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("nereid-keys", "spec data 0 remoteRef", {}),
        ("nereid-keys", "spec refrshInterval", "1h"),
        ("nereid-keys", "spec data", []),
        ("nereid", "spec provider aws region", ""),
        ("nereid", "spec provider aws service", "Secrets"),
    ],
)
def test_invalid_external_secret_is_found(name: str, path: str, value: Any) -> None:
    rendered = render(f"examples/argo-cd/clusters/{CLUSTERS[0]}")
    (right,) = (each for each in rendered.of_kind("ExternalSecret", "SecretStore") if title(each).endswith(f"/{name}"))
    assert find_faults(right) == []
    assert find_faults(changed(right, path, value))


def _bucket(rendered: Render) -> str:
    (settings,) = rendered.of_kind("ConfigMap")
    return str(settings["data"]["PREDICTOR_REPOSITORY"])


def _host(rendered: Render) -> str:
    (ingress,) = rendered.of_kind("Ingress")
    return str(ingress["spec"]["rules"][0]["host"])


def _role(rendered: Render) -> str:
    (account,) = (each for each in rendered.of_kind("ServiceAccount") if each["metadata"]["name"] == "nereid")
    return str(account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"])


def _store(rendered: Render) -> str:
    (store,) = rendered.of_kind("SecretStore")
    return str(store["spec"]["provider"]["aws"]["region"])


def _image(rendered: Render) -> str:
    (service,) = rendered.of_kind("InferenceService")
    return str(service["spec"]["predictor"]["containers"][0]["image"])


def _address(rendered: Render) -> str:
    (policy,) = (each for each in rendered.of_kind("NetworkPolicy") if each["metadata"]["name"] == "nereid-alb")
    return str(policy["spec"]["ingress"][0]["from"][0]["ipBlock"]["cidr"])
