"""Fixtures of all tests on the cluster: a bucket and a namespace for each file, and artefacts of failures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kubectl import kubectl
from cluster.layout import ROOT, ClusterError
from tests.support import cluster

ARTEFACTS = ROOT / "output" / "cluster"


@pytest.fixture(scope="module")
def fresh() -> Iterator[None]:
    """An empty bucket, and the namespace with its Secrets; removed afterwards."""
    if missing := cluster.find_missing():
        pytest.skip(missing)
    cluster.make_bucket()
    cluster.make_namespace()
    yield
    kubectl("delete", "namespace", cluster.NAMESPACE, "--wait=false")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep artefacts of a failed file before its namespace is removed."""
    if (nextitem is None or nextitem.path != item.path) and not cluster.find_missing():
        _keep(ARTEFACTS / item.path.stem)


def _keep(folder: Path) -> None:
    try:
        cluster.keep_artefacts(folder)
    except ClusterError as exc:  # the failure of the test is the one to report
        (folder / "incomplete.txt").write_text(str(exc))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the folder of the artefacts."""
    if ARTEFACTS.exists():
        terminalreporter.write_line(f"events, objects and logs of this run: {ARTEFACTS}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep events, objects and logs of a failed test while they exist."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        folder = ARTEFACTS / item.name
        _keep(folder)
        report.sections.append(("artefacts", str(folder)))
