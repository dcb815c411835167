"""What the Dockerfiles must agree on with the rest, without building them."""

import re

import pytest

from images import IMAGES, ROOT, BuildError, check_base

DOCKERFILES = sorted({image.dockerfile for image in IMAGES})


def test_base_image_is_one_and_named_by_its_digest() -> None:
    bases = {re.findall(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / path).read_text(), re.MULTILINE)[0] for path in DOCKERFILES}
    (base,) = bases
    assert re.fullmatch(r"docker\.io/library/python:3\.1[12]\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_image_is_made_of_no_other_image(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    stages = set(re.findall(r"^FROM .+ AS (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${PYTHON_IMAGE}", *stages}
    assert set(re.findall(r"--from=(\S+)", text)) <= stages


def test_base_of_ones_own_is_wanted_by_its_digest(capsys: pytest.CaptureFixture[str]) -> None:
    digest = "sha256:" + "0" * 64
    for base in ("", f"localhost/base@{digest}", f"localhost/base:1@{digest}"):
        check_base(base, push=True)
    assert capsys.readouterr() == ("", "")
    for base in ("localhost/base", "localhost/base:1", "localhost/base@sha256:0"):
        check_base(base, push=False)
        assert f"warning: PYTHON_IMAGE: got {base}, expected a digest" in capsys.readouterr().err
        with pytest.raises(BuildError, match="for images that are pushed; next: pull it"):
            check_base(base, push=True)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_shipped_only_copies_and_is_not_root(dockerfile: str) -> None:
    stages = (ROOT / dockerfile).read_text().split("\nFROM ")[1:]
    shipped = [stage for stage in stages if "LABEL " in stage]
    assert shipped
    for stage in shipped:
        assert not re.search(r"^RUN ", stage, re.MULTILINE)
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize(
    ("part", "shared"),
    [
        ("export", {"access", "registry"}),
        ("predictor", {"environment", "hosts", "registry"}),
        ("transformer", {"environment", "hosts"}),
    ],
)
def test_image_has_what_parts_share(part: str, shared: set[str]) -> None:
    said = "\n".join(path.read_text() for path in (ROOT / part).rglob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", said, re.MULTILINE))
    assert {"access", "environment", "hosts", "registry"} & imported == shared
    for name in shared:
        copied = f"{name}.py ./" if (ROOT / f"{name}.py").exists() else f"{name} {name}"
        assert f"\nCOPY {copied}\n" in (ROOT / part / "Dockerfile").read_text()
        assert f"\n!{copied.split(maxsplit=1)[0]}\n" in (ROOT / ".dockerignore").read_text()


def test_models_are_made_with_all_that_export_imports() -> None:
    stages = (ROOT / "export/Dockerfile").read_text().split("\nFROM ")
    (making,) = (stage for stage in stages if "-m export examples" in stage)
    (build,) = (stage for stage in stages if stage.startswith("${PYTHON_IMAGE} AS build"))
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", build + making, re.M) for name in line.split()}
    wanted = {"export"}
    while True:
        paths = [
            path
            for name in wanted
            for path in ((ROOT / name).rglob("*.py") if (ROOT / name).is_dir() else [ROOT / name])
        ]
        imported = {name for path in paths for name in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.M)}
        own = {name if (ROOT / name).is_dir() else f"{name}.py" for name in imported if is_ours(name)} | wanted
        if own == wanted:
            break
        wanted = own
    assert wanted <= copied


def is_ours(module: str) -> bool:
    return (ROOT / module / "__init__.py").exists() or (ROOT / f"{module}.py").exists()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_dockerfile_names_no_package_index(dockerfile: str) -> None:
    assert "://" not in (ROOT / dockerfile).read_text()


def test_image_of_the_transformer_shapes_the_letters_of_class_names() -> None:
    build, shipped = (ROOT / "transformer/Dockerfile").read_text().split("\nFROM ")[1:]
    assert "assert features.check('raqm')" in build
    assert "\nCOPY --from=build /opt/fribidi /usr/lib\n" in shipped


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_shipped_says_what_it_is_made_of(dockerfile: str) -> None:
    stages = [stage for stage in (ROOT / dockerfile).read_text().split("\nFROM ") if "LABEL " in stage]
    assert stages
    for stage in stages:
        assert re.findall(r"org\.opencontainers\.image\.(\w+)=", stage) == ["title", "description", "licenses"]
