"""Tests of what the manifests render to are run for each folder."""

import pytest

from tests.manifests.rendering import KUBECTL_MISSING, Render, find_folders, has_kubectl, render


@pytest.fixture(params=find_folders())
def rendered(request: pytest.FixtureRequest) -> Render:
    """A folder below manifests/, as `kubectl apply -k` sends it."""
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    return render(str(request.param))
