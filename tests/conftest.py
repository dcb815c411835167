"""The order of the tests, and what all of them start from."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# A shell that starts the tests in the background has them ignore Ctrl-C, and whatever they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine, and no limits of time: a busy one would fail them.
settings.register_profile(
    "nereid", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nereid")

# Workers (make test) take files in this order. The first takes longest; those after it share a running stack, which
# each worker that gets one of them starts for itself.
_FIRST = (
    "test_stack.py",
    "test_sync_faults.py",
    "test_sync_swaps.py",
    "test_predict.py",
    "test_bad_input.py",
    "test_loadtest.py",
    "test_protocols.py",
    "test_transformer_program.py",
    "test_clients.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))
