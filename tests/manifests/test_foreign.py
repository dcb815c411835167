"""A user's overlay in another repository: that of the manual, over a release of this one."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.manifests.__main__ import judge, main
from tests.manifests.releases import NEREID, make_release, needs_git
from tests.manifests.rendering import MANIFESTS, ROOT, Render, needs_kubectl, render_foreign

pytestmark = [needs_kubectl, needs_git]

# Like manifests/components/s3/addresses.yaml.
ADDRESSES = """
- op: replace
  path: /spec/egress
  value:
    - to: [{ipBlock: {cidr: 10.9.8.0/24}}]
      ports: [{port: 443, protocol: TCP}]
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A release of this working tree."""
    return make_release(tmp_path_factory.mktemp("nereid"))


@pytest.fixture
def overlay(release: str, tmp_path: Path) -> Path:
    """The overlay of the manual, with its files."""
    manual = (MANIFESTS / "README.md").read_text()
    written = re.search(
        rf"(?:^    .*\n)*^ +- {NEREID}//manifests/overlays/standard(?:.*\n)(?:^    .*\n)*", manual, re.M
    )
    assert written
    text = textwrap.dedent(written[0])
    (tmp_path / "kustomization.yaml").write_text(text.replace(NEREID, release))
    (tmp_path / "addresses.yaml").write_text(ADDRESSES)
    (tmp_path / "ca.crt").write_text("certificates")
    return tmp_path


def test_overlay_of_the_manual_is_valid(overlay: Path) -> None:
    rendered = render_foreign(overlay)
    assert list(judge(rendered)) == []
    assert {each["metadata"].get("namespace", "vision") for each in rendered.objects} == {"vision"}
    (ingress,) = rendered.of_kind("Ingress")
    assert ingress["spec"]["rules"][0]["host"] == "vision.acme.example"


def faults_without(overlay: Path, key: str) -> list[str]:
    """Faults of the overlay without one of its fields."""
    path = overlay / "kustomization.yaml"
    written = yaml.safe_load(path.read_text())
    written.pop(key)
    path.write_text(yaml.safe_dump(written))
    return list(judge(render_foreign(overlay)))


def test_placeholders_of_addresses_and_hosts_are_found(overlay: Path) -> None:
    found = "\n".join(faults_without(overlay, "patches"))
    assert "192.0.2.0" in found
    assert "vision.example.com" in found


def test_placeholders_of_images_and_buckets_are_found(overlay: Path) -> None:
    """Anyone may register docker.io/nereid, and s3://models/nereid is a placeholder."""
    images = faults_without(overlay, "images")
    assert sum("is docker.io's, expected your registry" in fault for fault in images) == 2
    assert any("s3://models/nereid" in fault for fault in faults_without(overlay, "configMapGenerator"))


def test_secrets_of_the_user_are_known_by_name(overlay: Path) -> None:
    patch = {"target": {"kind": "InferenceService"}, "patch": PATCH}
    path = overlay / "kustomization.yaml"
    written = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(written | {"patches": [*written["patches"], patch]}))
    assert any("Secret acme-certificate" in fault for fault in judge(render_foreign(overlay)))
    right = render_foreign(overlay, ["acme-certificate"])
    assert not any("acme-certificate" in fault for fault in judge(right) if "neither rendered" in fault)
    made = {"kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {"target": {"name": "acme-certificate"}}}
    synced = Render(right.name, (*render_foreign(overlay).objects, made), is_foreign=True)
    assert not any("neither rendered" in fault for fault in judge(synced))


PATCH = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: nereid}
spec:
  predictor:
    imagePullSecrets: [{name: acme-registry}]
    containers:
      - name: kserve-container
      - name: transformer-container
        volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
    volumes: [{name: tls, secret: {secretName: acme-certificate}}]
"""


def test_command_validates_any_folder(overlay: Path) -> None:
    command = [sys.executable, "-m", "tests.manifests", "--overlay", str(overlay)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(SystemExit, match="expected a folder with a kustomization"):
        main(["--overlay", str(overlay.parent / "none")])
