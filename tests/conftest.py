"""The order of the tests."""

import pytest

# Workers (make test) take files in this order. The first takes longest; those after it share a running stack, which
# each worker that gets one of them starts for itself.
_FIRST = (
    "test_stack.py",
    "test_predict.py",
    "test_bad_input.py",
    "test_protocols.py",
    "test_transformer_program.py",
    "test_clients.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))
