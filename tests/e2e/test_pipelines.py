"""The files of the pipelines by programs that PyPI and Debian do not have: actionlint, gitlab-ci-local.

`make e2e-pipelines` installs them, or says what is missing.
"""

import subprocess
from pathlib import Path

import pytest

from tests.support.pages import ROOT
from tests.support.pipelines import GITLAB, STAGES, WORKFLOWS

TOOLS = ROOT / ".venv-tools"
ACTIONLINT = TOOLS / "bin" / "actionlint"
LOCAL = TOOLS / "node_modules" / ".bin" / "gitlab-ci-local"
MAIN = ("--variable", "CI_COMMIT_BRANCH=main", "--variable", "CI_DEFAULT_BRANCH=main")
STARTED = {  # by what starts a pipeline: the jobs that it has
    "merge_request_event": ["lint", "test", "images"],
    "push": ["lint", "test", "release", "deploy"],
    "web": ["export", "staging", "production"],
}

pytestmark = pytest.mark.skipif(
    not (ACTIONLINT.exists() and LOCAL.exists()), reason="needs .venv-tools: make e2e-pipelines"
)


def run(*command: str | Path, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def listed(folder: Path, source: str) -> list[str]:
    done = run(LOCAL, "--list-csv", *MAIN, "--variable", f"CI_PIPELINE_SOURCE={source}", folder=folder)
    assert done.returncode == 0, done.stderr
    return [line.split(";")[0] for line in done.stdout.splitlines() if line.split(";")[0] in STAGES]


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    done = run(ACTIONLINT, *WORKFLOWS)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "ci.yml"
    broken.write_text((ROOT / WORKFLOWS[0]).read_text().replace("needs: [release]", "needs: [relase]"))
    assert 'needs job "relase" which does not exist' in run(ACTIONLINT, broken).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with this file alone."""
    (tmp_path / GITLAB).write_text((ROOT / GITLAB).read_text())
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@test", "commit", "--quiet", "--message=first"]
    subprocess.run(commit, cwd=tmp_path, check=True)
    remote = ["git", "remote", "add", "origin", "https://gitlab.test/acme/vision.git"]
    subprocess.run(remote, cwd=tmp_path, check=True)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], cwd=tmp_path, check=True)
    return tmp_path


def change(checkout: Path, *paths: str) -> None:
    for path in paths:
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text("new")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)


@pytest.mark.parametrize("source", STARTED)
def test_gitlab_has_the_jobs_of_what_started_it(checkout: Path, source: str) -> None:
    change(checkout, "transformer/main.py")
    assert listed(checkout, source) == STARTED[source]


def test_gitlab_takes_a_commit_of_weights_for_one_of_a_model(checkout: Path) -> None:
    change(checkout, "weights/parts.onnx")
    assert listed(checkout, "push") == STARTED["push"] + STARTED["web"]


OVERLAY = "clusters/dublin/kustomization.yaml"


@pytest.mark.parametrize(
    "beside", [[], ["cluster/builds.py"], ["compose.yaml"], ["containers/Dockerfile"], [".github/a"]]
)
def test_gitlab_does_not_release_a_commit_of_overlays_alone(checkout: Path, beside: list[str]) -> None:
    change(checkout, OVERLAY, *beside)
    assert listed(checkout, "push") == (STARTED["push"] if beside else ["lint", "test"])


def test_gitlab_resolves_the_file(checkout: Path) -> None:
    done = run(LOCAL, "--preview", *MAIN, folder=checkout)
    assert done.returncode == 0, done.stderr
    assert "make publish MODEL=" in done.stdout
    (checkout / GITLAB).write_text((ROOT / GITLAB).read_text().replace("extends: .publish", "extends: .publsh"))
    assert run(LOCAL, "--preview", *MAIN, folder=checkout).returncode != 0


def test_job_runs_here() -> None:
    """The job `lint`; the job `test` takes minutes, and docs/pipelines.md has its time."""
    done = run(LOCAL, "lint", "--force-shell-executor", "--variable", "CI_PIPELINE_SOURCE=push")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
