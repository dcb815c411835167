"""The Helm chart on the cluster: install, changed setting, rollback and uninstall.

The tests are steps of one run, in this order.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.kubectl import get, kubectl
from cluster.layout import KUBECONFIG, OUTSIDE, ROOT
from manifests.chart.__main__ import compose, pack
from tests.support import cluster
from tests.support.cluster import wait_for

IMAGE = ROOT / "loadtest/pictures/digits.jpg"
# Like cluster/overlays/standard: this cluster's S3 server, and requests that fit its nodes.
VALUES: dict[str, Any] = {
    "settings": {"AWS_ENDPOINT_URL": cluster.S3_URL, "AWS_REGION": "us-east-1"},
    "s3": {"addresses": [f"{OUTSIDE.address}/32"], "port": 9000},
    "triton": {"resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}},
    "synchroniser": {
        "image": {"repository": "docker.io/nereid/predictor"},  # the names of the loaded images on the nodes
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    },
    "transformer": {
        "image": {"repository": "docker.io/nereid/transformer"},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The archive; the cluster has the namespace with its Secrets, and a model in the bucket."""
    if shutil.which("helm") is None:
        pytest.skip("helm is missing; next: https://helm.sh/docs/intro/install/")
    if missing := cluster.find_missing("envoy-gateway-system/envoy-gateway"):
        pytest.skip(missing)
    cluster.make_bucket()
    cluster.make_namespace()
    cluster.make("publish", MODEL="digit-finder", REPOSITORY=f"s3://{cluster.BUCKET}/nereid")
    made = tmp_path_factory.mktemp("chart")
    (made / "nereid.tgz").write_bytes(pack("nereid", compose()))
    yield made
    kubectl("delete", "namespace", cluster.NAMESPACE, "--wait=false")


def helm(*words: str) -> str:
    """Run helm in the namespace; returns its output."""
    command = ["helm", f"--kubeconfig={KUBECONFIG}", f"--namespace={cluster.NAMESPACE}", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def release(verb: str, folder: Path, **settings: str) -> str:
    """Install or upgrade the release, with more settings."""
    repository = {"PREDICTOR_REPOSITORY": f"s3://{cluster.BUCKET}/nereid"}
    values = VALUES | {"settings": VALUES["settings"] | repository | settings}
    (folder / "values.yaml").write_text(json.dumps(values))
    return helm(verb, "nereid", str(folder / "nereid.tgz"), f"--values={folder / 'values.yaml'}")


def settings() -> set[str]:
    """The ConfigMaps of the chart."""
    names = (each["metadata"]["name"] for each in get("configmap", f"--namespace={cluster.NAMESPACE}")["items"])
    return {name for name in names if name.startswith("nereid-settings-")}


def used() -> str:
    """The ConfigMap that the InferenceService uses."""
    service = get("isvc", "nereid", f"--namespace={cluster.NAMESPACE}")
    sources = service["spec"]["predictor"]["containers"][1]["envFrom"]
    return str(sources[0]["configMapRef"]["name"])


def test_install_serves(folder: Path) -> None:
    notes = release("install", folder)
    assert "pod-security.kubernetes.io/enforce=restricted" in notes
    wait_for("the InferenceService", cluster.is_ready, 600)
    command = ["curl", "-sS", "-m", "60", "-F", f"image=@{IMAGE}", f"{cluster.url()}/predict/digit-finder"]

    def detects() -> bool:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        return '"predictions"' in run.stdout

    wait_for("a detection", detects, 60)


def test_changed_setting_keeps_the_old_configmap_and_a_rollback_uses_it(folder: Path) -> None:
    before = used()
    release("upgrade", folder, PREDICTOR_POLL_S="5")
    after = used()
    assert before != after
    assert {before, after} <= settings()
    helm("rollback", "nereid", "1")
    assert used() == before
    assert {before, after} <= settings()


def test_uninstall_keeps_the_settings_and_an_install_uses_them(folder: Path) -> None:
    before = used()
    helm("uninstall", "nereid")
    assert not cluster.exists("isvc", "nereid", cluster.NAMESPACE)
    assert before in settings()
    release("install", folder)
    assert used() == before
    helm("uninstall", "nereid")
