"""What the tests of Terraform share: `make terraform-test` sets MODULES, and CONFIGURATION for another folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terraform import workspace
from tests.terraform.__main__ import FOLDER


@pytest.fixture(scope="session")
def published() -> bool:
    """Whether providers and modules are the registry's; skips where a program is missing."""
    found = workspace.reaches_registry()
    if missing := workspace.missing_programs(published=found):
        pytest.skip(f"missing: {', '.join(missing)}")
    return found


@pytest.fixture(scope="session")
def opened(published: bool) -> Iterator[workspace.Workspace]:
    """The configuration, initialised."""
    modules = os.environ.get("MODULES")
    if not published and not modules:
        pytest.skip("the registry cannot be reached, and MODULES names no folder of modules")
    folder = Path(os.environ.get("CONFIGURATION") or FOLDER)
    with workspace.opened(folder, modules=Path(modules) if modules else None, published=published) as found:
        yield found
