"""What every test starts from: signals, Hypothesis' examples, the marker of its folder, the time there is."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

# A shell that starts the tests in the background has them ignore Ctrl-C, and whatever they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine, and no limits of time: a busy one would fail them.
settings.register_profile(
    "nereid", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nereid")

_TESTS = Path(__file__).parent
_OUT_OF_TIME = "out of time: not run before --until"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--until`, for a run that may not take longer (.ci/run)."""
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
    """Leave out what there is no time for, before its fixtures start anything."""
    if time.time() > item.config.getoption("until"):
        pytest.skip(_OUT_OF_TIME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the files of what was left out, and say how much of each."""
    skipped = terminalreporter.getreports("skipped")
    left_out = Counter(report.nodeid.split("::")[0] for report in skipped if _OUT_OF_TIME in str(report.longrepr))
    if left_out:
        terminalreporter.section("left out for want of time")
        for name, count in left_out.most_common():
            terminalreporter.line(f"{name}: {count} tests")
