"""Setup of every test: signals, Hypothesis' examples, the marker of its folder, the time limit of a run."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

# A shell that starts the tests in the background has them ignore Ctrl-C, and their child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine, and no deadlines: they would fail on a busy one.
settings.register_profile(
    "nereid", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nereid")

_TESTS = Path(__file__).parent
_OUT_OF_TIME = "out of time: not run before --until"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--until`, for a run with a time limit (.ci/run)."""
    parser.addoption(
        "--until", type=float, default=float("inf"), help="start no test after this time (seconds since 1970)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder: `-m faults`."""
    for item in items:
        item.add_marker(item.path.relative_to(_TESTS).parts[0])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests after `--until`, before their fixtures start anything."""
    if time.time() > item.config.getoption("until"):
        pytest.skip(_OUT_OF_TIME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of each file were skipped for `--until`."""
    skipped = terminalreporter.getreports("skipped")
    left_out = Counter(report.nodeid.split("::")[0] for report in skipped if _OUT_OF_TIME in str(report.longrepr))
    if left_out:
        terminalreporter.section("skipped: out of time")
        for name, count in left_out.most_common():
            terminalreporter.line(f"{name}: {count} tests")
