"""Every part of a kustomization, and every object, that a page shows renders."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.releases import NEREID, make_release, needs_git
from tests.manifests.rendering import MANIFESTS, needs_kubectl
from tests.support.pages import Block, all_blocks

PARTS = ("resources:", "patches:", "images:", "configMapGenerator:", "apiVersion: kustomize.config")
OVERLAYS = {"docs/gitops.md": "serverless", "docs/production-on-eks.md": "eks"}
WHOLE = "kind: Kustomization"  # names its base itself, in a release


def fragments() -> list[Block]:
    """The blocks that are a part of a kustomization."""
    return [each for each in all_blocks() if each.text.startswith(PARTS) and not each.page.startswith("manifests/")]


def test_fragments_are_found() -> None:
    assert {each.page for each in fragments()} >= {"docs/day-2.md", "docs/releases.md", "docs/container-images.md"}


@needs_kubectl
@needs_git
@pytest.mark.parametrize("block", fragments(), ids=lambda each: f"{each.page} {each.heading} {each.number}")
def test_fragment_renders(block: Block, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    text = block.text
    if WHOLE in text:
        release = make_release(tmp_path / "release")
        text = re.sub(rf"{re.escape(NEREID)}(?:\.git)?(?=//)", release, text)
    else:
        text += f"\nresources: [../manifests/overlays/{OVERLAYS.get(block.page, 'standard')}]\n"
        shutil.copytree(MANIFESTS, tmp_path / "manifests")  # kustomize reads through no link
    (own / "kustomization.yaml").write_text(text)
    rendered = render(own)
    assert any(each["kind"] == "InferenceService" for each in rendered)


@needs_kubectl
def test_service_of_the_page_has_the_port_of_grpc(tmp_path: Path) -> None:
    (block,) = [each for each in all_blocks() if each.page == "docs/sizing.md" and "kind: Service" in each.text]
    (tmp_path / "service.yaml").write_text(block.text)
    (tmp_path / "kustomization.yaml").write_text("resources: [service.yaml]\n")
    (service,) = render(tmp_path)
    assert service["spec"]["ports"] == [{"name": "grpc", "port": 8081}]
    assert service["spec"]["clusterIP"] == "None"


def render(folder: Path) -> list[Any]:
    """The objects of a folder, as kubectl has them."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
