"""docs/runbooks.md has what the alerts lead to, and its commands are ones that their programs take."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.__main__ import judge
from tests.manifests.rendering import needs_kubectl, read_documents, render, render_foreign
from tests.support.kubectl_arguments import NOWHERE, PATIENCE_S, read_arguments
from tests.support.pages import ROOT, anchors_of

PAGE = ROOT / "docs" / "runbooks.md"
MONITORING = ROOT / "manifests" / "monitoring"
EXAMPLES = {"<n>": "4", "<url>": NOWHERE, "<repository>": "s3://bucket/models", "localhost:8003": "127.0.0.1:1"}
OFTEN_RETRIED = ("--retry 5", "--retry 0")
CURL_FAILED_TO_CONNECT = 7
RELEASE = "kube-prometheus-stack"


def read_rule() -> dict[str, Any]:
    """The PrometheusRule."""
    (content,) = read_documents((MONITORING / "prometheusrule.yaml").read_text())
    return dict(content)


ALERTS = {rule["alert"]: rule for group in read_rule()["spec"]["groups"] for rule in group["rules"] if "alert" in rule}


def sections() -> dict[str, str]:
    """The section of the page on each alert, by its heading."""
    parts = re.split(r"^## (\w+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> list[str]:
    """Each command of the page and of the alerts, with examples in place of what differs."""
    texts = re.findall(r"`((?:kubectl|make|curl) [^`]+)`", PAGE.read_text())
    texts += [rule["annotations"]["runbook"] for rule in ALERTS.values()]
    return sorted({fill(text) for text in texts})


def fill(text: str) -> str:
    """A command as a user would run it."""
    for placeholder, example in EXAMPLES.items():
        text = text.replace(placeholder, example)
    return re.sub(r"<[a-z-]+>|\{\{ \$labels\.\w+ \}\}", "example", text).replace(*OFTEN_RETRIED)


def test_each_alert_has_a_section_and_leads_to_it() -> None:
    assert list(sections()) == list(dict.fromkeys(sections()))
    assert set(sections()) == set(ALERTS)
    anchors = anchors_of(PAGE)
    for name, rule in ALERTS.items():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / path, anchor) == (PAGE, name.lower())
        assert anchor in anchors


@pytest.mark.parametrize("name", ALERTS)
def test_section_of_an_alert_says_whether_it_can_wait(name: str) -> None:
    severity, section = ALERTS[name]["labels"]["severity"], sections()[name]
    if severity == "critical":
        assert "**It cannot wait" in section
        assert re.search("Back to bed (when|after)", section)
    elif severity == "warning":
        assert re.search(r"\*\*It\s+can\s+wait|\*\*Go back to bed\*\*", section)


@needs_kubectl
@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("kubectl ")])
def test_kubectl_takes_a_command(command: str) -> None:
    parts = [shlex.split(part) for part in re.split(r" \| (?=grep)", command)]
    assert [part[0] for part in parts[1:]] in ([], ["grep"]), command
    assert not (problem := read_arguments(shlex.join(parts[0]))), problem


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("make ")])
def test_make_has_a_target_and_its_variables(command: str) -> None:
    words = shlex.split(command)
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{re.escape(words[1])}:.* ## ", makefile, re.MULTILINE), command
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known = set(re.findall(r"\b[A-Z][A-Z_]+\b", makefile))
    assert {word.partition("=")[0] for word in words[2:]} <= known


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("curl ")])
def test_curl_takes_a_command(command: str) -> None:
    done = subprocess.run(shlex.split(command), capture_output=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == CURL_FAILED_TO_CONNECT, done.stderr


def test_commands_are_found() -> None:
    assert {each.split()[0] for each in commands()} == {"kubectl", "make", "curl"}
    # A command that names its namespace runs where the alert is, whatever the context.
    for each in commands():
        if each.startswith("kubectl ") and not each.startswith("kubectl drain"):
            assert " -n example" in each, each


def test_address_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    prefix = read_rule()["metadata"]["annotations"]["nereid/runbooks"]
    assert prefix == f"https://git.example.com/nereid/blob/v{version}/docs/runbooks.md"
    assert (MONITORING / "prometheusrule.yaml").read_text().count("git.example.com") == 1


def addresses(objects: Any) -> set[str]:
    """The address of each runbook_url, without its anchor."""
    rules = [
        rule
        for each in objects
        if each["kind"] == "PrometheusRule"
        for group in each["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert [rule["annotations"]["runbook_url"].partition("#")[2] for rule in rules] == [each.lower() for each in ALERTS]
    return {rule["annotations"]["runbook_url"].partition("#")[0] for rule in rules}


@needs_kubectl
def test_address_of_the_manifests_is_defined_in_one_place() -> None:
    assert addresses(render("monitoring").objects) == {read_rule()["metadata"]["annotations"]["nereid/runbooks"]}


@needs_kubectl
def test_overlay_of_the_manual_has_its_own_address(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", (MONITORING / "README.md").read_text(), re.DOTALL)[0]
    written = re.sub(r"https://git\.example\.com/nereid//manifests/monitoring\?ref=\S+", "base", example)
    assert written != example
    (tmp_path / "kustomization.yaml").write_text(written)
    (tmp_path / "base").mkdir()
    for file in MONITORING.iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    rendered = render_foreign(tmp_path)
    assert list(judge(rendered)) == []
    (given,) = re.findall(r"nereid/runbooks: (\S+)", example)
    assert addresses(rendered.objects) == {given}
    assert {each["metadata"]["namespace"] for each in rendered.objects} == {"vision"}
    # As kube-prometheus-stack selects them.
    selected = [each for each in rendered.objects if each["metadata"]["labels"].get("release") == RELEASE]
    assert {each["kind"] for each in selected} == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    # Without an address of its own it is at fault.
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(yaml.safe_load(written) | {"patches": []}))
    assert any("git.example.com" in fault for fault in judge(render_foreign(tmp_path)))
