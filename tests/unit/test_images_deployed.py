"""What follows a push: digests, the overlay, the branch; git, kubectl and an ECR of moto are real."""

import json
import subprocess
from pathlib import Path

import pytest
from moto import mock_aws

from containers.base_stand_in import BuildError
from containers.digests import read_digests, write_digests
from containers.login import read_token
from containers.overlay import deploy, set_images
from containers.proposal import main as make_propose
from containers.proposal import propose
from containers.scan import find_sboms
from containers.sign import main as sign
from containers.supply import sbom_of
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


@pytest.mark.parametrize("registry", ["registry.test", "registry.test/nereid2", "other.test/nereid"])
def test_digests_are_of_the_registry(overlay: Path, digests: Path, registry: str) -> None:
    assert read_digests(digests, "registry.test/nereid/") == PUSHED
    with pytest.raises(BuildError, match=rf"got registry.test/nereid/transformer@.*, expected {registry}/transformer"):
        deploy(overlay, digests, registry)
    assert (overlay / "kustomization.yaml").read_text() == OVERLAY


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


def test_later_proposal_overwrites_the_earlier(overlay: Path) -> None:
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    assert propose(overlay, "deploy/images")
    (overlay / "notes").write_text("of a later commit of main")
    git(overlay, "add", ".")
    git(overlay, "-c", "user.name=a", "-c", "user.email=a@test", "commit", "--quiet", "--message=second")
    (overlay / "kustomization.yaml").write_text(WRITTEN.replace("abab", "cdcd"))
    assert propose(overlay, "deploy/images")
    assert git(overlay, "log", "--format=%s", "origin/deploy/images") == "Images of dublin by digest\nsecond\nfirst\n"
    assert "cdcd" in git(overlay, "show", "origin/deploy/images:dublin/kustomization.yaml")
    assert git(overlay, "branch", "--format=%(refname:short)") == "main\n"


def test_password_of_the_remote_is_not_shown(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remote = f"file://user:secret@localhost{overlay.parents[1]}/remote"
    git(overlay, "config", f"url.{overlay.parents[1]}/remote.insteadOf", remote)
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    propose(overlay, "deploy/images", remote)
    assert capsys.readouterr().out == f"deploy/images: pushed to file://localhost{overlay.parents[1]}/remote\n"


def test_branch_with_something_else_stays_as_it_is(overlay: Path) -> None:
    git(overlay, "push", "--quiet", "origin", "HEAD:refs/heads/main", "HEAD:refs/heads/work")
    git(overlay / "../../remote", "symbolic-ref", "HEAD", "refs/heads/main")
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    with pytest.raises(BuildError, match="work is there with 'first', expected a proposal"):
        propose(overlay, "work")
    with pytest.raises(BuildError, match="got main, the one that origin starts from"):
        propose(overlay, "main")
    assert git(overlay, "ls-remote", "origin").count(git(overlay, "rev-parse", "HEAD").strip()) == 3
    assert git(overlay, "branch", "--show-current") == "main\n"


@pytest.mark.parametrize(("there", "wanted"), [("", ["list", "create"]), ("https://github.test/1", ["list"])])
def test_pull_request_is_opened_unless_one_is(
    there: str, wanted: list[str], overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program in the place of gh, which reaches nothing but GitHub."""
    (tmp_path / "bin").mkdir()
    gh = tmp_path / "bin" / "gh"
    gh.write_text(f'#!/bin/sh\necho "$2 $PWD" >> {tmp_path}/called\n[ "$2" = create ] || echo "{there}"\n')
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", str(gh.parent), prepend=":")
    monkeypatch.setattr("sys.argv", ["p", f"--overlay={overlay}", "--branch=deploy/images", "--pull-request"])
    assert make_propose() == 0
    assert not (tmp_path / "called").exists()  # nothing has changed
    (overlay / "kustomization.yaml").write_text(WRITTEN)
    assert make_propose() == 0
    assert (tmp_path / "called").read_text().splitlines() == [f"{each} {overlay}" for each in wanted]


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


def test_what_is_scanned_is_what_was_pushed(tmp_path: Path, digests: Path) -> None:
    with pytest.raises(BuildError, match="got no SBOM of an image"):
        find_sboms(None, tmp_path)
    for name, version in {**PUSHED, "worker": "of a run before"}.items():
        sbom_of(name, tmp_path).write_text(json.dumps({"metadata": {"component": {"version": version}}}))
    assert set(find_sboms(None, tmp_path)) == {*PUSHED, "worker"}
    assert set(find_sboms(digests, tmp_path)) == set(PUSHED)
    sbom_of("predictor", tmp_path).write_text('{"metadata": {"component": {"version": "0.1.0"}}}')
    with pytest.raises(BuildError, match=r"predictor.cdx.json: got one of 0.1.0, expected the SBOM of registry.test"):
        find_sboms(digests, tmp_path)
    sbom_of("predictor", tmp_path).unlink()
    with pytest.raises(BuildError, match="missing, expected the SBOM of"):
        find_sboms(digests, tmp_path)
