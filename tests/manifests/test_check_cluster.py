"""What a cluster's Knative must have turned on."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.rendering import needs_kubectl
from tests.support.stack import ROOT

pytestmark = needs_kubectl

SERVERLESS = "manifests/overlays/serverless"


def check(overlay: str, *configmaps: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program against ConfigMaps in a file."""
    file = folder / "configmaps.json"
    file.write_text(json.dumps({"kind": "List", "items": configmaps}))
    return subprocess.run(
        [sys.executable, "manifests/check_cluster.py", overlay, "--configmaps", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def configmap(name: str, owner: str | None = None, **data: str) -> dict[str, Any]:
    """One of Knative's."""
    owners = [{"kind": "KnativeServing", "name": owner}] if owner else []
    data = {key.replace("__", ".").replace("_", "-"): value for key, value in data.items()}
    return {"metadata": {"name": name, "ownerReferences": owners}, "data": data}


def write(folder: Path, *, annotations: dict[str, str] | None = None, **predictor: Any) -> str:
    """An overlay of one InferenceService."""
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "nereid", "annotations": annotations or {}},
        "spec": {"predictor": predictor},
    }
    (folder / "service.yaml").write_text(yaml.safe_dump(service))
    (folder / "kustomization.yaml").write_text("resources: [service.yaml]\n")
    return str(folder)


def test_knative_as_it_is_installed_takes_the_serverless_overlay(tmp_path: Path) -> None:
    done = check(SERVERLESS, configmap("config-features"), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OFF" not in done.stdout
    # Three containers, scratch space, zero replicas, and a request of a minute.
    for key in ("multi-container", "podspec-volumes-emptydir", "enable-scale-to-zero", "max-revision-timeout-seconds"):
        assert key in done.stdout


def test_what_is_off_is_turned_on_by_the_command_that_is_printed(tmp_path: Path) -> None:
    off = (
        configmap("config-features", multi_container="disabled"),
        configmap("config-autoscaler", enable_scale_to_zero="false"),
        configmap("config-defaults", max_revision_timeout_seconds="30"),
    )
    done = check(SERVERLESS, *off, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("OFF") == 3
    commands = [
        shlex.split(line.removeprefix("next: ")) for line in done.stdout.splitlines() if line.startswith("next")
    ]
    assert [command[:6] for command in commands] == [
        ["kubectl", "patch", "configmap", entry["metadata"]["name"], "-n", "knative-serving"] for entry in off
    ]
    for entry, command in zip(off, commands, strict=True):
        entry["data"] |= json.loads(command[-1])["data"]
    assert check(SERVERLESS, *off, folder=tmp_path).returncode == 0


def test_the_operator_is_told_and_not_its_configmap(tmp_path: Path) -> None:
    off = configmap("config-features", owner="knative-serving", multi_container="disabled")
    (line,) = [line for line in check(SERVERLESS, off, folder=tmp_path).stdout.splitlines() if line.startswith("next")]
    command = shlex.split(line)
    assert command[1:6] == ["kubectl", "patch", "knativeserving", "knative-serving", "-n"]
    assert json.loads(command[-1]) == {"spec": {"config": {"features": {"multi-container": "enabled"}}}}


ONE = {"containers": [{"name": "kserve-container"}]}
FIELD_REF = {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}


@pytest.mark.parametrize(
    ("predictor", "flag"),
    [
        (ONE, None),
        (ONE | {"securityContext": {"fsGroup": 1}}, "kubernetes.podspec-securitycontext"),
        (ONE | {"nodeSelector": {"gpu": "yes"}}, "kubernetes.podspec-nodeselector"),
        (ONE | {"tolerations": [{"key": "gpu"}]}, "kubernetes.podspec-tolerations"),
        (ONE | {"topologySpreadConstraints": [{}]}, "kubernetes.podspec-topologyspreadconstraints"),
        (ONE | {"initContainers": [{"name": "x"}]}, "kubernetes.podspec-init-containers"),
        (ONE | {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "kubernetes.podspec-volumes-hostpath"),
        (
            ONE | {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "x", "readOnly": True}}]},
            "kubernetes.podspec-persistent-volume-claim",
        ),
        ({"containers": [{"name": "kserve-container", "env": [FIELD_REF]}]}, "kubernetes.podspec-fieldref"),
        (
            {"containers": [{"name": "a", "ports": [{"containerPort": 8080}]}, {"name": "b", "livenessProbe": {}}]},
            "multi-container-probing",
        ),
    ],
)
def test_each_field_of_a_pod_needs_its_flag(predictor: dict[str, Any], flag: str | None, tmp_path: Path) -> None:
    overlay = write(tmp_path, **predictor)
    done = check(overlay, configmap("config-features"), folder=tmp_path)
    off = [line.split()[2].removesuffix("=enabled") for line in done.stdout.splitlines() if line.startswith("OFF")]
    assert off == ([flag] if flag else [])
    if flag:
        allowed = {"metadata": {"name": "config-features"}, "data": {flag: "Allowed"}}
        assert check(overlay, allowed, folder=tmp_path).returncode == 0


def test_standard_mode_asks_nothing_of_knative(tmp_path: Path) -> None:
    overlay = write(tmp_path, annotations={"serving.kserve.io/deploymentMode": "Standard"}, nodeSelector={"a": "b"})
    done = check(overlay, configmap("config-features"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{overlay}: nothing of it is served by Knative\n")


def test_a_cluster_without_knative_is_said(tmp_path: Path) -> None:
    done = check(SERVERLESS, configmap("kube-root-ca.crt"), folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: namespace knative-serving: got ConfigMaps kube-root-ca.crt, expected config-")
    assert "Traceback" not in done.stderr


def test_a_wrong_overlay_is_said(tmp_path: Path) -> None:
    done = check("manifests/overlays/nothing", configmap("config-features"), folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: kubectl kustomize manifests/overlays/nothing: ")
    assert done.stderr.count("\n") == 1
