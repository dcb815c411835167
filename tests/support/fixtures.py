"""Fixtures of several files: read by many tests, changed by none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manifests.rendering import KUBECTL_MISSING, Render, find_folders, has_kubectl, render
from tests.support.stack import ROOT, Stack, start_stack

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with weights and images that are no part of the project."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is missing: images and weights that are no part of the project")
    return SHARED


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the models of the repository, one for each worker."""
    with start_stack(ROOT / "model_repository", tmp_path_factory.mktemp("stack") / "log") as running:
        yield running


@pytest.fixture(params=find_folders())
def rendered(request: pytest.FixtureRequest) -> Render:
    """Each folder below manifests/, rendered."""
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    return render(str(request.param))
