"""Scan the rendered pods with checkov: `python -m tests.manifests.scan` (`make manifests-scan`).

A scanner ignores InferenceServices, so it gets the Pods that KServe creates. Each finding is a fault, unless it is in
scan-exceptions.yaml with a reason; an unused exception is a fault too.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tests.manifests.pod import pods_of
from tests.manifests.rendering import KUBECTL_MISSING, ROOT, Render, RenderError, find_folders, has_kubectl, render

EXCEPTIONS = Path(__file__).with_name("scan-exceptions.yaml")
CHECKOV = ROOT / ".venv-scan" / "bin" / "checkov"
_TIMEOUT_S = 300

Finding = tuple[str, str]  # check, and pod or object as `Kind.namespace.name`


def main() -> None:
    """Print a table, and the faults below it; exit with 1 where there are any."""
    if not has_kubectl():
        sys.exit(f"error: {KUBECTL_MISSING}")
    if not CHECKOV.is_file():
        sys.exit("error: checkov is missing; next: make manifests-scan")
    try:
        passed, found = scan(render(name) for name in find_folders())
    except RenderError as exc:
        sys.exit(f"error: {exc}")
    exceptions = read_exceptions()
    table = Table("check", "pods", "folders", "reason", title=f"checkov: {passed} passed, {len(found)} findings")
    rows: dict[tuple[str, str], list[set[str]]] = {}
    for finding, (_, folders) in sorted(found.items()):
        reason = _reason(finding, exceptions) or "missing: a fault"
        rows.setdefault((finding[0], reason), []).append(folders)
    for (check, reason), pods in rows.items():
        table.add_row(check, str(len(pods)), str(len(set().union(*pods))), reason)
    Console(width=120 if not sys.stdout.isatty() else None).print(table)
    faults = judge(found, exceptions)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(f"error: {len(faults)} faults")


def judge(found: dict[Finding, tuple[str, set[str]]], exceptions: dict[Finding, str]) -> list[str]:
    """Findings without a reason, and unused reasons."""
    return [
        f"{check} {of} in {', '.join(sorted(folders))}: {name}"
        for (check, of), (name, folders) in sorted(found.items())
        if not _reason((check, of), exceptions)
    ] + [
        f"{EXCEPTIONS.name}: {check} {of} is no longer found; next: remove it"
        for check, of in sorted(exceptions)
        if not any(_reason(finding, {(check, of): "listed"}) for finding in found)
    ]


def _reason(finding: Finding, exceptions: dict[Finding, str]) -> str | None:
    """The reason for a finding; listed objects may be patterns."""
    fitting = (why for (check, of), why in exceptions.items() if check == finding[0] and fnmatchcase(finding[1], of))
    return next(fitting, None)


def scan(renders: Iterable[Render]) -> tuple[int, dict[Finding, tuple[str, set[str]]]]:
    """Number of passed checks, and for each finding its name and folders."""
    with tempfile.TemporaryDirectory() as folder:
        for rendered in renders:
            objects = [dict(each) for each in rendered.objects if each["kind"] != "InferenceService"]
            pods = pods_of(Render(rendered.name, tuple(rendered.of_kind("InferenceService", "ServingRuntime"))))
            path = Path(folder, rendered.name, "all.yaml")
            path.parent.mkdir(parents=True)
            path.write_text(yaml.safe_dump_all([*objects, *pods]))
        options = ["--framework", "kubernetes", "--output", "json", "--quiet", "--compact", "--skip-download"]
        done = subprocess.run(
            [CHECKOV, "--directory", folder, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"error: checkov did not finish: {done.stderr.strip()[-500:]}")
    if report["summary"]["parsing_errors"]:
        sys.exit(f"error: checkov cannot read {report['results']['parsing_errors']}")
    found: dict[Finding, tuple[str, set[str]]] = {}
    for each in report["results"]["failed_checks"]:
        finding = each["check_id"], each["resource"]
        name = str(Path(each["file_path"].lstrip("/")).parent)
        found.setdefault(finding, (each["check_name"], set()))[1].add(name)
    return report["summary"]["passed"], found


def read_exceptions() -> dict[Finding, str]:
    """Reasons by finding."""
    listed = yaml.safe_load(EXCEPTIONS.read_text()) or []
    return {(each["check"], of): each["reason"] for each in listed for of in each["of"]}


if __name__ == "__main__":
    main()
