"""What follows a push: digests, the overlay, the branch; git, kubectl and an ECR of moto are real."""

import subprocess
from pathlib import Path

import pytest
from moto import mock_aws

from containers.base_stand_in import BuildError
from containers.digests import read_digests, write_digests
from containers.login import read_token
from containers.overlay import deploy, set_images
from containers.proposal import propose
from containers.sign import main as sign
from tests.manifests.rendering import needs_kubectl

DIGEST = "sha256:" + "ab" * 32
PUSHED = {name: f"registry.test/nereid/{name}@{DIGEST}" for name in ("transformer", "predictor")}
OVERLAY = """\
# Ours.
resources:
  - deployment.yaml
images:
  # By tag; it comes by digest.
  - name: nereid/transformer
    newName: old.test/nereid/transformer  # of before
    newTag: 0.0.9
  - name: other/triton
    newTag: 26.11-py3
  - digest: sha256:0000
    name: nereid/predictor
patches: []
"""
WRITTEN = f"""\
# Ours.
resources:
  - deployment.yaml
images:
  # By tag; it comes by digest.
  - name: nereid/transformer
    newName: registry.test/nereid/transformer
    digest: {DIGEST}
  - name: other/triton
    newTag: 26.11-py3
  - name: nereid/predictor
    newName: registry.test/nereid/predictor
    digest: {DIGEST}
patches: []
"""
DEPLOYMENT = """\
apiVersion: v1
kind: Pod
metadata: {name: nereid}
spec:
  containers:
    - {name: a, image: nereid/transformer}
    - {name: b, image: nereid/predictor}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """An overlay in a repository of git, with a remote."""
    folder = tmp_path / "clusters" / "dublin"
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text(OVERLAY)
    (folder / "deployment.yaml").write_text(DEPLOYMENT)
    for command in (
        ["init", "--quiet", "--bare", "../remote"],
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", str(tmp_path / "remote")],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@test", "commit", "--quiet", "--message=first"],
    ):
        git(tmp_path / "clusters", *command)
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def digests(tmp_path: Path) -> Path:
    path = tmp_path / "output" / "digests.json"
    write_digests(path, PUSHED)
    return path


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": 1}', '{"a": "registry.test/a:latest"}'])
def test_file_of_digests_is_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "digests.json").write_text(content)
    with pytest.raises(BuildError):
        read_digests(tmp_path / "digests.json")


def test_missing_digests_say_how_they_come_about(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="next: make images PUSH=1 DIGESTS="):
        read_digests(tmp_path / "digests.json")


def test_digests_replace_tags_and_nothing_else() -> None:
    pushed = {f"nereid/{name}": named for name, named in PUSHED.items()}
    text, written = set_images(OVERLAY, pushed)
    assert text == WRITTEN
    assert written == ["nereid/transformer", "nereid/predictor"]
    assert set_images(text, pushed)[0] == text


@needs_kubectl
def test_overlay_comes_to_name_what_was_pushed(overlay: Path, digests: Path) -> None:
    deploy(overlay, digests)
    rendered = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True).stdout
    assert all(f"image: {named}" in rendered for named in PUSHED.values())


@needs_kubectl
def test_overlay_that_would_keep_another_image_stays_as_it_was(overlay: Path, digests: Path) -> None:
    path = overlay / "kustomization.yaml"
    path.write_text(OVERLAY.replace("  - digest: sha256:0000\n    name: nereid/predictor\n", ""))
    (overlay / "deployment.yaml").write_text(DEPLOYMENT.replace("nereid/predictor", "old.test/nereid/predictor:1"))
    before = path.read_text()
    with pytest.raises(BuildError, match=r"it renders to old.test/nereid/predictor:1, expected registry.test"):
        deploy(overlay, digests)
    assert path.read_text() == before


def test_overlay_without_any_of_the_images_is_an_error(overlay: Path, digests: Path) -> None:
    (overlay / "kustomization.yaml").write_text("resources: [deployment.yaml]\n")
    with pytest.raises(BuildError, match="images: got none of nereid/transformer, nereid/predictor"):
        deploy(overlay, digests)
    with pytest.raises(BuildError, match=r"OVERLAY: got .*, expected a folder"):
        deploy(overlay / "other", digests)


def test_proposal_is_one_commit_of_the_overlay_alone(overlay: Path) -> None:
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    (overlay / "notes").write_text("of someone")
    git(overlay, "add", "notes")
    propose(overlay, "deploy/1")
    assert git(overlay, "show", "--name-only", "--format=%s", "origin/deploy/1").split("\n")[::2] == [
        "Images of dublin by digest",
        "dublin/kustomization.yaml",
    ]
    assert git(overlay, "branch", "--show-current") == "main\n"
    assert git(overlay, "status", "--porcelain") == "A  dublin/notes\n"
    assert (overlay / "kustomization.yaml").read_text() == OVERLAY


def test_proposal_of_a_detached_checkout_and_of_nothing(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(overlay, "switch", "--quiet", "--detach")
    propose(overlay, "deploy/1")
    assert "nothing has changed" in capsys.readouterr().out
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    propose(overlay, "deploy/1")
    assert DIGEST in git(overlay, "show", "origin/deploy/1:dublin/kustomization.yaml")


@pytest.mark.parametrize("branch", ["-x", "a b", "", "--force"])
def test_branch_of_a_proposal_is_a_name(overlay: Path, branch: str) -> None:
    with pytest.raises(BuildError, match="BRANCH: got"):
        propose(overlay, branch)


def test_login_takes_the_token_of_the_registrys_account_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        user, password = read_token("111122223333.dkr.ecr.eu-central-1.amazonaws.com")
    assert user == "AWS"
    assert password
    with pytest.raises(BuildError, match=r"REGISTRY: got registry.test, expected one of ECR"):
        read_token("registry.test")


def test_signature_needs_a_key_and_an_sbom(
    tmp_path: Path, digests: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sign", "sign", f"--digests={digests}", f"--sign={tmp_path}/none.key"])
    assert sign() == 1
    assert "SIGN: got" in capsys.readouterr().err
