"""The files of the pipelines: their stages, and the commands of each."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.pages import ROOT

WORKFLOWS = (".github/workflows/ci.yml", ".github/workflows/model.yml")
GITLAB, JENKINS, DEPENDABOT = ".gitlab-ci.yml", "Jenkinsfile", ".github/dependabot.yml"
FILES = (*WORKFLOWS, GITLAB, JENKINS, DEPENDABOT)
STAGES = ("lint", "test", "images", "release", "deploy", "export", "staging", "production")
APPROVAL = "approval"  # a stage of Jenkins without commands
# Overlays of clusters, of this repository: what merges a proposal into them is not released again.
OVERLAYS = "clusters/"
Commands = Mapping[str, list[str]]


def read(texts: Mapping[str, str]) -> dict[str, Commands]:
    """Commands of each stage, by system."""
    jobs = {name: job for path in WORKFLOWS for name, job in yaml.safe_load(texts[path])["jobs"].items()}
    return {
        "GitHub": {name: lines(step["run"] for step in job["steps"] if "run" in step) for name, job in jobs.items()},
        "GitLab": {name: lines(job["script"]) for name, job in gitlab_jobs(texts[GITLAB]).items()},
        "Jenkins": {
            name: re.findall(r"^\s*sh '(.*)'$", body, re.MULTILINE)
            for name, body in jenkins(texts[JENKINS]).items()
            if name != APPROVAL
        },
    }


def lines(runs: Any) -> list[str]:
    return [line.strip() for run in runs for line in str(run).splitlines() if line.strip()]


def gitlab_jobs(text: str) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(text)
    jobs = {name: job for name, job in document.items() if isinstance(job, dict) and {"script", "extends"} & job.keys()}
    return {name: merged(document.get(job.get("extends"), {}), job) for name, job in jobs.items() if name[0] != "."}


def merged(template: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """What GitLab makes of `extends`: maps are merged, all else is replaced."""
    both = {key: merged(template[key], job[key]) for key in template.keys() & job.keys()
            if isinstance(template[key], dict) and isinstance(job[key], dict)}  # fmt: skip
    return {**template, **job, **both}


def jenkins(text: str) -> dict[str, str]:
    parts = re.split(r"^ {8}stage\('(\w+)'\) \{$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def texts() -> dict[str, str]:
    return {path: (ROOT / path).read_text() for path in FILES}
