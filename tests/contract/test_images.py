"""What the Dockerfiles must agree on with the rest, without building them."""

import re

import pytest

from images import IMAGES, ROOT

DOCKERFILES = sorted({image.dockerfile for image in IMAGES})


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_image_is_installed_by_the_same_uv_as_the_project(dockerfile: str) -> None:
    (wanted,) = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^ARG UV_VERSION=(.+)$", (ROOT / dockerfile).read_text(), re.MULTILINE) == [wanted]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_shipped_only_copies_and_is_not_root(dockerfile: str) -> None:
    stages = (ROOT / dockerfile).read_text().split("\nFROM ")[1:]
    shipped = [stage for stage in stages if "LABEL " in stage]
    assert shipped
    for stage in shipped:
        assert not re.search(r"^RUN ", stage, re.MULTILINE)
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("part", ["predictor", "transformer"])
def test_image_has_the_modules_that_parts_share(part: str) -> None:
    said = "\n".join(path.read_text() for path in (ROOT / part).rglob("*.py"))
    shared = {name for name in re.findall(r"^from (\w+) import", said, re.MULTILINE) if (ROOT / f"{name}.py").exists()}
    assert shared == {"hosts"}
    for name in shared:
        assert f"\nCOPY {name}.py ./\n" in (ROOT / part / "Dockerfile").read_text()
        assert f"\n!{name}.py\n" in (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_dockerfile_names_no_package_index(dockerfile: str) -> None:
    assert "://" not in (ROOT / dockerfile).read_text()
