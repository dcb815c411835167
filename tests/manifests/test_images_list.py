"""`make images-list` has the rendered images, without placeholders of examples."""

import re
from pathlib import Path

import pytest
import yaml

from tests.manifests import images
from tests.manifests.rendering import MANIFESTS, ROOT, RenderError, needs_kubectl


@needs_kubectl
def test_list_has_every_image_with_the_tags_of_the_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    images.main([])
    lines = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    component = yaml.safe_load((MANIFESTS / "components/images/kustomization.yaml").read_text())
    tags = {f"{each['name']}:{each['newTag']}" for each in component["images"]}
    assert tags <= set(lines)
    assert {lines[name] for name in tags if name.startswith("nereid/")} == {"built"}
    assert {lines[name] for name in tags if not name.startswith("nereid/")} == {"pulled"}
    written = {
        name
        for path in MANIFESTS.rglob("*.yaml")
        if "kind" not in path.parts
        for name in re.findall(r"^\s+image: (\S+)", path.read_text(), re.MULTILINE)
    }
    assert {re.split(r"[:@]", name)[0] for name in written} == {
        re.split(r"[:@]", name)[0] for name, source in lines.items() if source != "base"
    }
    (base,) = (name for name, source in lines.items() if source == "base")
    assert f"ARG PYTHON_IMAGE={base}\n" in (ROOT / "containers/Dockerfile").read_text()
    assert not [name for name in lines if "example" in name or "111122223333" in name]


@needs_kubectl
def test_list_of_an_overlay_is_what_it_renders_to() -> None:
    by_name = images.of_overlay(Path("overlays/production"))
    by_path = images.of_overlay(MANIFESTS / "overlays/production")
    assert list(by_name) == list(by_path)
    assert len(by_name) == 3
    assert all("@sha256:" in name for name in by_name)
    assert sum(images.origin(name) == "built" for name in by_name) == 2


@needs_kubectl
def test_folder_without_manifests_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"OVERLAY: got .+, expected a folder with a kustomization.yaml"):
        images.of_overlay(tmp_path)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("nereid/export:1", "built"),
        ("registry.test:5000/a/nereid/predictor@sha256:00", "built"),
        ("nereid/cpu-triton:1", "built"),
        ("notnereid/export:1", "pulled"),
        ("nvcr.io/nvidia/tritonserver:26.11-py3", "pulled"),
    ],
)
def test_origin_does_not_depend_on_the_registry(name: str, origin: str) -> None:
    assert images.origin(name) == origin


def test_images_are_those_of_init_containers_too() -> None:
    pod = {"spec": {"initContainers": [{"image": "a"}], "containers": [{"image": "b"}, {"name": "without"}]}}
    assert list(images.images_in([{"spec": {"template": pod}}])) == ["a", "b"]
