"""The jobs, run as their containers run: their own commands, with the paths of this machine, against an S3 server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.rendering import needs_kubectl, render
from tests.support.executables import TRTEXEC, put
from tests.support.s3 import BUCKET, S3, start_s3
from tests.support.stack import ROOT

pytestmark = needs_kubectl


def objects_of(overlay: str) -> dict[tuple[str, str], Any]:
    """Objects by kind and name."""
    return {(entry["kind"], entry["metadata"]["name"]): entry for entry in render(overlay).objects}


def pod_of(overlay: str, job: str) -> dict[str, Any]:
    """The pod of a job."""
    pod: dict[str, Any] = objects_of(overlay)["Job", job]["spec"]["template"]["spec"]
    return pod


def run(
    container: Mapping[str, Any], overlay: str, *, paths: Mapping[str, str], variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a container's command with its ConfigMap's and its own variables."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            environment |= objects_of(overlay)["ConfigMap", source["configMapRef"]["name"]]["data"]
    environment |= {entry["name"]: entry["value"] for entry in container.get("env", [])}

    def here(text: str) -> str:
        for there, place in paths.items():
            text = re.sub(rf"(?<![\w/]){there}\b", place, text)  # whole paths: not the /app of /code/app
        return text

    environment = {name: here(value) for name, value in environment.items()} | dict(variables)
    command = [*container.get("command", []), *container["args"]]
    return subprocess.run(
        [here(part) for part in command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    """A server with an empty bucket."""
    with start_s3(tmp_path / "s3.log") as server:
        yield server


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """PATH with this environment's Python in front, under both names that the jobs use."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "python3"):
        put(folder, name, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return f"{folder}:{os.environ['PATH']}"


def test_publish_brings_the_shipped_models_into_a_new_bucket_and_again_changes_nothing(s3: S3, programs: str) -> None:
    s3.client.delete_bucket(Bucket=BUCKET)
    overlay = "overlays/local"
    pod = pod_of(overlay, "nereid-publish")
    variables = s3.environment() | {"PATH": programs}
    paths = {"/app/model_repository": str(ROOT / "model_repository")}
    for _ in range(2):
        for container in (*pod["initContainers"], *pod["containers"]):
            done = run(container, overlay, paths=paths, variables=variables)
            assert done.returncode == 0, done.stdout + done.stderr
    for model in ("digit-finder", "digits", "iris"):
        assert f"nereid/{model}/1/manifest.json" in s3.keys("nereid/")
        assert not [key for key in s3.keys(f"nereid/{model}/2/") if model != "iris"]


def test_build_publishes_the_version_again_with_a_plan(s3: S3, programs: str, tmp_path: Path) -> None:
    s3.upload(ROOT / "model_repository" / "digit-finder", "nereid/digit-finder")
    before = set(s3.keys("nereid/digit-finder/"))
    numbers = sorted(int(key.split("/")[2]) for key in before if key.endswith("/manifest.json"))
    overlay = "jobs/build-tensorrt"
    pod = pod_of(overlay, "nereid-build-tensorrt")
    fetch, build = pod["initContainers"]
    publish = pod["containers"][0]
    assert build["image"].startswith("nvcr.io/nvidia/tritonserver:")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = tmp_path / "code"
    code.mkdir()
    packages = tmp_path / "packages"
    packages.mkdir()
    paths = {
        "/opt/triton-packages": str(packages),
        "/scratch": str(scratch),
        "/code": str(code),
        "/app": str(ROOT),
    }
    # Files of a node with a GPU.
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 9.0\n")
    put(
        tmp_path / "bin",
        "trtexec",
        TRTEXEC.format(log=tmp_path / "log", act='printf plan > "${argument#--saveEngine=}"'),
    )
    variables = s3.environment() | {"PATH": programs, "PYTHONDONTWRITEBYTECODE": "1"}
    for container in (fetch, build, publish):
        mine = dict(variables)
        if container is build:
            mine = {"PATH": programs}  # neither keys nor our checkout: what fetch laid out must do
        done = run(container, overlay, paths=paths, variables=mine)
        assert done.returncode == 0, container["name"] + done.stdout + done.stderr
    added = {key.removeprefix("nereid/digit-finder/") for key in set(s3.keys("nereid/digit-finder/")) - before}
    number = numbers[-1] + 1
    assert {f"{number}/model.cc90.plan", f"{number}/model.onnx", f"{number}/manifest.json"} <= added
    # Nothing that came from the bucket lies where code is looked for.
    mounts = {mount["name"]: mount for mount in build["volumeMounts"]}
    assert mounts["code"]["readOnly"] is True
    assert {path.name for path in code.iterdir()} == {"app", "packages"}
    # A version that is not there is said, and nothing is left half done.
    done = run(fetch, overlay, paths=paths, variables=variables | {"VERSION": "99"})
    assert done.returncode == 1
    assert "digit-finder 99: got complete versions" in done.stderr


@pytest.mark.parametrize(
    ("overlay", "job"),
    [
        ("jobs/publish", "nereid-publish"),
        ("jobs/build-tensorrt", "nereid-build-tensorrt"),
        ("overlays/local", "nereid-publish"),
    ],
)
def test_jobs_are_restricted_and_bounded(overlay: str, job: str) -> None:
    spec = objects_of(overlay)["Job", job]["spec"]
    assert spec["activeDeadlineSeconds"]
    pod = pod_of(overlay, job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert ":" in container["image"].rpartition("/")[2], "a tag"
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_overlay_local_has_every_object_that_its_parts_name() -> None:
    objects = objects_of("overlays/local")
    pods = [
        objects["InferenceService", "nereid"]["spec"]["predictor"],
        pod_of("overlays/local", "nereid-publish"),
        objects["Deployment", "s3"]["spec"]["template"]["spec"],
    ]
    for pod in pods:
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            for source in container.get("envFrom", []):
                kind, name = (
                    ("ConfigMap", source["configMapRef"]["name"])
                    if "configMapRef" in source
                    else ("Secret", source["secretRef"]["name"])
                )
                assert (kind, name) in objects
    settings = next(entry["data"] for (kind, name), entry in objects.items() if name.startswith("nereid-settings-"))
    published = next(entry["data"] for (kind, name), entry in objects.items() if name.startswith("nereid-publish-"))
    service = objects["Service", "s3"]
    url = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for pod in pods[:2]:
        variables = [
            {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
            for container in (*pod.get("initContainers", []), *pod["containers"])
        ]
        given = [each for each in variables if "AWS_ENDPOINT_URL" in each]
        assert given
        assert {each["AWS_ENDPOINT_URL"].replace("$(S3_SERVICE)", each["S3_SERVICE"]) for each in given} == {url}
    assert settings["PREDICTOR_REPOSITORY"] == published["REPOSITORY"]
