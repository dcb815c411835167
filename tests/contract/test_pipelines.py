"""The pipelines of GitHub, GitLab and Jenkins: the same targets of make in the same order, and each file valid.

What another program can judge, it judges: zizmor the workflows' permissions, pins and injections, check-jsonschema all
that has a schema. `make e2e-pipelines` runs them with programs that are neither PyPI's nor Debian's.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.variables import known_names
from tests.support.pages import ROOT
from tests.support.pipelines import (
    APPROVAL,
    DEPENDABOT,
    GITLAB,
    JENKINS,
    OVERLAYS,
    STAGES,
    WORKFLOWS,
    gitlab_jobs,
    jenkins,
    read,
    texts,
)

BIN = ROOT / ".venv" / "bin"
# Commands that are no target, and why: what one system alone has.
OTHERS = {
    'umask 077 && printf \'%s\' "$SIGNING_KEY" > "$SIGN"': "GitLab and Jenkins have secrets that are files",
    'umask 077 && printf \'%s\' "$AWS_ID_TOKEN" > "$AWS_WEB_IDENTITY_TOKEN_FILE"': "boto3 reads the token from a file",
}
# Of these jobs what they do may not be ended by the next commit, and what they hold is for them alone.
WITH_A_ROLE = {"release", "deploy", "staging", "production"}
# Programs that targets need and the image of GitLab's jobs lacks, as packages of Debian. All else that they need comes
# from an index with its hash: Debian's Go and kubectl are too old for us.
PACKAGES = {"images": "buildah", "images-login": "buildah"}
OF_THE_IMAGE = {"make", "git"}


def faults(given: Mapping[str, str]) -> list[str]:
    """What of the project's own rules the files break."""
    found = [f"{path}: {why}" for path, rule in RULES for why in rule(given[path])]
    systems = read(given)
    wanted = {stage: targets(commands) for stage, commands in systems["GitHub"].items()}
    if tuple(wanted) != STAGES:
        found.append(f"GitHub: stages {', '.join(wanted)}")
    for system, stages in systems.items():
        found += [f"{system}: {stage}: {why}" for stage, each in stages.items() for why in unknown(each)]
        if {stage: targets(each) for stage, each in stages.items()} != wanted or tuple(stages) != STAGES:
            found.append(f"{system}: other commands than GitHub")
    return found


def targets(commands: list[str]) -> list[str]:
    return [command for command in commands if command not in OTHERS]


def unknown(commands: list[str]) -> list[str]:
    """Commands that are neither targets nor listed; targets and variables that make has not."""
    makefile = (ROOT / "Makefile").read_text()
    known, found = known_names(), []
    for command in targets(commands):
        words = command.split()
        if words[0] != "make" or re.search(r"[;&|`]|\$\(|\$\{\{", command):
            found.append(f"no target: {command}")
            continue
        if not re.search(rf"^{re.escape(words[1])}:.*## ", makefile, re.MULTILINE):
            found.append(f"no such target: {words[1]}")
        names = [word.partition("=")[0] for word in words[2:]]
        found += [f"no such variable: {name}" for name in names if name not in known]
    return found


def github(text: str) -> list[str]:
    workflow = yaml.safe_load(text)
    found = [] if workflow.get("permissions") == {} else ["permissions: not {} at the top"]
    found += [] if workflow.get("concurrency") else ["no concurrency"]
    for name, job in workflow["jobs"].items():
        found += [] if isinstance(job.get("timeout-minutes"), int) else [f"{name}: no timeout"]
        found += [] if re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]) else [f"{name}: runner {job['runs-on']}"]
        may = job.get("permissions", {})
        found += (
            [f"{name}: id-token without a role"] if (may.get("id-token") == "write") != (name in WITH_A_ROLE) else []
        )
        found += [f"{name}: a role without an environment"] if name in WITH_A_ROLE and "environment" not in job else []
        cached = any(step.get("uses", "").startswith("actions/cache@") for step in job["steps"])
        found += [f"{name}: a cache beside a role"] if cached and name in WITH_A_ROLE else []
    pushes = workflow[True].get("push", {})  # YAML 1.1 reads `on` so
    if "release" in workflow["jobs"] and pushes.get("paths-ignore") != [f"{OVERLAYS}**"]:
        found.append("release: of a merged proposal too")
    found += [f"{name}: TAG can be there" for name in tags_that_stay(workflow["jobs"], "env", "github.run_attempt")]
    uses = re.findall(r"uses: (.*)", text)
    return found + [f"not pinned: {each}" for each in uses if not re.match(r"\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)]


def gitlab(text: str) -> list[str]:
    document = yaml.safe_load(text)
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / "containers/Dockerfile").read_text(), re.MULTILINE)
    found = [] if document["default"]["image"] == base else ["image: another than the Dockerfile's"]
    found += [] if document["default"].get("tags") else ["no tags of runners"]
    for name, job in gitlab_jobs(text).items():
        found += [] if "timeout" in job else [f"{name}: no timeout"]
        if name in WITH_A_ROLE:
            found += [f"{name}: no {key}" for key in ("environment", "resource_group", "id_tokens") if key not in job]
            found += [f"{name}: a cache beside a role"] if "cache" in job else []
        elif "id_tokens" in job:
            found.append(f"{name}: id_tokens without a role")
        needed = {PACKAGES[each.split()[1]] for each in job["script"] if each.split()[1] in PACKAGES}
        given = set((job.get("variables") or {}).get("PACKAGES", "").split())
        found += [f"{name}: PACKAGES {given or ''}, expected {needed}"] if given != needed else []
    installed = re.search(r"--no-install-recommends ([a-z ]+)\$PACKAGES", text)
    found += [] if installed and set(installed[1].split()) == OF_THE_IMAGE else ["before_script: not make and git"]
    found += [f"{name}: TAG can be there" for name in tags_that_stay(gitlab_jobs(text), "variables", "$CI_JOB_ID")]
    return found


def tags_that_stay(jobs: Mapping[str, Any], key: str, of_a_run: str) -> list[str]:
    """Jobs whose TAG is the same when they are repeated: ECR's tags cannot be overwritten."""
    tags = {name: (job.get(key) or {}).get("TAG") for name, job in jobs.items()}
    return [name for name, tag in tags.items() if tag and of_a_run not in tag]


def jenkinsfile(text: str) -> list[str]:
    found = [] if re.search(r"^    agent none", text, re.MULTILINE) else ["an agent beside those of stages"]
    found += [] if "disableConcurrentBuilds()" in text else ["no concurrency"]
    for name, body in jenkins(text).items():
        found += [] if "options { timeout(" in body else [f"{name}: no timeout"]
        held = "agent { label 'nereid' }" in body
        found += [f"{name}: agent"] if held == (name == APPROVAL) else []
        found += [f"{name}: an approval"] if ("input {" in body) != (name == APPROVAL) else []
        if name in {"release", "deploy"} and f"pattern: '^(?!{OVERLAYS}).*$'" not in body:
            found.append(f"{name}: of a merged proposal too")
        found += [f"{name}: TAG can be there"] if "TAG = " in body and "env.BUILD_NUMBER" not in body else []
        found += [f"{name}: credentials"] if ("credentials('aws-" in body) != (name in WITH_A_ROLE) else []
    # In double quotes Groovy would write secrets into the command.
    return found + [f"not in single quotes: {line}" for line in re.findall(r'^\s*sh ".*$', text, re.MULTILINE)]


RULES: tuple[tuple[str, Callable[[str], list[str]]], ...] = (
    *((path, github) for path in WORKFLOWS),
    (GITLAB, gitlab),
    (JENKINS, jenkinsfile),
)


def test_pipelines_keep_the_rules_and_have_the_same_commands() -> None:
    assert faults(texts()) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (WORKFLOWS[0], "run: make check", "run: ruff check", "no target: ruff check"),
        (WORKFLOWS[0], "run: make check", "run: make chek", "no such target: chek"),
        (WORKFLOWS[0], "run: make check", "run: make check; curl x", "no target: make check; curl x"),
        (WORKFLOWS[0], "TAG=", "TGA=", "no such variable: TGA"),
        (WORKFLOWS[0], "permissions: {}\n", "permissions: read-all\n", "not {} at the top"),
        (WORKFLOWS[0], "concurrency:", "x-concurrency:", "no concurrency"),
        (WORKFLOWS[0], "timeout-minutes: 45", "name: test", "test: no timeout"),
        (WORKFLOWS[0], "ubuntu-24.04\n", "ubuntu-latest\n", "runner ubuntu-latest"),
        (WORKFLOWS[0], "    environment: registry\n", "", "release: a role without an environment"),
        (WORKFLOWS[0], "contents: read # the sources\n    steps", "id-token: write\n    steps", "lint: id-token"),
        (WORKFLOWS[0], "# v7.0.1\n", "\n", "not pinned: actions/checkout"),
        (WORKFLOWS[1], "aws-actions/configure-aws-credentials", "actions/cache", "staging: a cache beside a role"),
        (GITLAB, "    - make sbom\n", "", "GitLab: other commands than GitHub"),
        (GITLAB, "check\n    - make images-lint\n", "images-lint\n    - make check\n", "GitLab: other commands"),
        (GITLAB, "@sha256:", "@sha256:0", "image: another than the Dockerfile's"),
        (GITLAB, "  tags: [saas-linux-medium-amd64]\n", "", "no tags"),
        (GITLAB, "  timeout: 90m\n", "", "release: no timeout"),
        (GITLAB, "  resource_group: staging\n", "", "staging: no resource_group"),
        (JENKINS, "sh 'make test'", "sh 'make test-all'", "Jenkins: other commands than GitHub"),
        (JENKINS, "sh 'make test'", 'sh "make test"', "not in single quotes"),
        (JENKINS, "options { timeout(time: 45, unit: 'MINUTES') }", "", "test: no timeout"),
        (JENKINS, "credentials('aws-staging')", "'x'", "staging: credentials"),
        (JENKINS, "agent { label 'nereid' }", "agent any", "lint: agent"),
        (JENKINS, "agent none", "agent any", "an agent beside those of stages"),
        (JENKINS, "input {", "x {", "approval: an approval"),
        (JENKINS, "(?!clusters/)", "", "deploy: of a merged proposal too"),
        (JENKINS, "-${env.BUILD_NUMBER}", "", "release: TAG can be there"),
        (GITLAB, "-$CI_JOB_ID", "", "release: TAG can be there"),
        (GITLAB, "PACKAGES: buildah", "PACKAGES: buildah golang", "images: PACKAGES"),
        (GITLAB, "    PACKAGES: buildah\n", "", "images: PACKAGES"),
        (GITLAB, "make git $PACKAGES", "make git kubernetes-client $PACKAGES", "before_script: not make and git"),
        (WORKFLOWS[0], "clusters/**", "docs/**", "release: of a merged proposal too"),
        (WORKFLOWS[0], "-${{ github.run_attempt }}", "", "release: TAG can be there"),
        (JENKINS, "disableConcurrentBuilds()", "", "no concurrency"),
    ],
)  # fmt: skip
def test_rule_finds_what_breaks_it(path: str, old: str, new: str, fault: str) -> None:
    given = texts()
    assert old in given[path]
    given[path] = given[path].replace(old, new)
    assert any(fault in each for each in faults(given)), faults(given)


@pytest.mark.parametrize("command", OTHERS)
def test_command_that_is_no_target_is_used(command: str) -> None:
    assert any(command in each for stages in read(texts()).values() for each in stages.values())


def test_gitlab_releases_what_is_not_an_overlay_alone() -> None:
    """Ruby's File.fnmatch with FNM_PATHNAME and FNM_DOTMATCH, as GitLab compares: a * ends at a slash."""
    rule = gitlab_jobs(texts()[GITLAB])["release"]["rules"][0]
    patterns = [re.compile(as_expression(each)) for each in rule["changes"]]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in tracked.splitlines():
        assert any(each.fullmatch(path) for each in patterns) != path.startswith(OVERLAYS), path
    for path in ("clusters/dublin/kustomization.yaml", "clusters/README.md"):
        assert not any(each.fullmatch(path) for each in patterns), path


def as_expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*|\[\^[a-z]\])", pattern)
    known = {"**/": "(?:[^/]+/)*", "*": "[^/]*"}
    return "".join(known.get(each) or (f"[^{each[2]}/]" if each[:2] == "[^" else re.escape(each)) for each in parts)


ROW = re.compile(r"^\| `[A-Z`, _0-9]+ \|.*\|([^|]*)\|$", re.MULTILINE)


def unknown_to_terraform(page: str) -> list[str]:
    """What the page's column Terraform names and infra/terraform has not."""
    (outputs, variables) = ((ROOT / "infra/terraform" / name).read_text() for name in ("outputs.tf", "variables.tf"))
    found = []
    for variable, name in re.findall(r"(variable )?`([a-z_.]+)`", "\n".join(ROW.findall(page))):
        first, _, second = name.partition(".")
        kind, text = ("variable", variables) if variable else ("output", outputs)
        block = re.search(rf'^{kind} "{first}" \{{$.*?^\}}$', text, re.MULTILINE | re.DOTALL)
        if not block or (second and not re.search(rf"^ +{second} +=", block[0], re.MULTILINE)):
            found.append(f"{kind} {name}")
    return found


def test_page_names_outputs_of_terraform() -> None:
    page = (ROOT / "docs/pipelines.md").read_text()
    assert len(ROW.findall(page)) > 10
    assert unknown_to_terraform(page) == []
    broken = page.replace("| `roles.pipeline_images` |", "| `roles.pipeline` |").replace("| `url` |", "| `address` |")
    assert unknown_to_terraform(broken) == ["output roles.pipeline", "output address"]


SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "vendor.github-workflows"),
    GITLAB: "vendor.gitlab-ci",
    DEPENDABOT: "vendor.dependabot",
}


def judge_schema(path: Path, schema: str) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = [BIN / "check-jsonschema", "--builtin-schema", schema, path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", SCHEMAS)
def test_file_fits_its_schema(path: str, tmp_path: Path) -> None:
    done = judge_schema(ROOT / path, SCHEMAS[path])
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    given = (ROOT / path).read_text()
    changed = re.sub(r"timeout(-minutes)?: \S+", r"timeout\1: {}", given).replace("interval: weekly", "interval: often")
    assert changed != given
    broken.write_text(changed)
    assert judge_schema(broken, SCHEMAS[path]).returncode == 1


def judge_workflows(folder: Path) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = [
        BIN / "zizmor",
        "--offline",
        "--persona=pedantic",
        "--format=plain",
        folder / ".github",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing() -> None:
    done = judge_workflows(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (WORKFLOWS[0], "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
        (WORKFLOWS[0], "permissions: {}", "permissions: write-all", "excessive-permissions"),
        (WORKFLOWS[0], 'REGISTRY="$REGISTRY"', "REGISTRY=${{ github.head_ref }}", "template-injection"),
        (WORKFLOWS[0], "pull_request:", "pull_request_target:", "dangerous-triggers"),
        (WORKFLOWS[0], "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        (WORKFLOWS[1], "concurrency:", "x-concurrency:", "concurrency-limits"),
        (DEPENDABOT, "default-days: 7", "default-days: 0", "dependabot-cooldown"),
    ],
)
def test_zizmor_finds_what_is_broken(path: str, old: str, new: str, fault: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    given = (tmp_path / path).read_text()
    assert old in given
    (tmp_path / path).write_text(given.replace(old, new))
    done = judge_workflows(tmp_path)
    assert done.returncode != 0
    assert fault in done.stdout
