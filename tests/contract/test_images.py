"""The Dockerfile agrees with the parts and the Makefile; no image is built."""

import re

import pytest

from containers.base_stand_in import BuildError, check_base
from containers.build import DOCKERFILE, IMAGES, ROOT

TEXT = (ROOT / DOCKERFILE).read_text()
STAGES = {stage.split(" AS ", 1)[1].split()[0]: stage for stage in TEXT.split("\nFROM ")[1:]}
SHIPPED = [image.target for image in IMAGES]


def test_base_image_is_the_same_everywhere_and_pinned_by_digest() -> None:
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.1[12]\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)


def test_image_is_made_of_no_other_image() -> None:
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) <= {"${PYTHON_IMAGE}", *STAGES}
    assert set(re.findall(r"--from=(\S+)", TEXT)) <= STAGES.keys()


def test_every_image_has_its_stage() -> None:
    assert set(SHIPPED) == {name for name, stage in STAGES.items() if "\nLABEL " in stage}


@pytest.mark.parametrize("target", SHIPPED)
def test_images_have_the_standard_library_compiled(target: str) -> None:
    assert "COPY --from=compiled /compiled /\n" in STAGES[target]


@pytest.mark.parametrize("target", SHIPPED)
def test_packages_of_an_image_are_slimmed(target: str) -> None:
    (made,) = set(re.findall(r"^COPY --from=(\S+) (?:/opt/nereid|/opt/tritonserver) ", STAGES[target], re.MULTILINE))
    assert re.search(r"python3 (/build/)?containers/slim\.py (/opt/nereid|\.)", STAGES[made])


def test_own_base_image_has_to_be_pinned_by_digest(capsys: pytest.CaptureFixture[str]) -> None:
    digest = "sha256:" + "0" * 64
    for base in ("", f"localhost/base@{digest}", f"localhost/base:1@{digest}"):
        check_base(base, push=True)
    assert capsys.readouterr() == ("", "")
    for base in ("localhost/base", "localhost/base:1", "localhost/base@sha256:0"):
        check_base(base, push=False)
        assert f"warning: PYTHON_IMAGE: got {base}, expected a digest" in capsys.readouterr().err
        with pytest.raises(BuildError, match="for images that are pushed; next: pull it"):
            check_base(base, push=True)


@pytest.mark.parametrize("target", SHIPPED)
def test_shipped_stages_only_copy_files_and_do_not_run_as_root(target: str) -> None:
    assert STAGES[target].startswith("${PYTHON_IMAGE} AS ")
    assert not re.search(r"^RUN ", STAGES[target], re.MULTILINE)
    assert re.findall(r"^USER (.+)$", STAGES[target], re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize(
    ("part", "stage"),
    [
        ("export", "models"),
        ("predictor", "synchroniser-build"),
        ("stack", "standalone-build"),
        ("transformer", "transformer-build"),
        ("worker", "worker-build"),
    ],
)
def test_image_has_all_that_its_part_imports(part: str, stage: str) -> None:
    wanted, found = {part}, set[str]()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    while wanted - found:
        name = (wanted - found).pop()
        found.add(name)
        for path in (path for path in (ROOT / name).rglob("*.py") if str(path.relative_to(ROOT)) not in ignored):
            imported = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
            wanted |= {word for word in imported if is_ours(word)}
    copied = set[str]()
    while stage in STAGES:
        copied |= set(re.findall(r"^COPY (\w+) \1$", STAGES[stage], re.MULTILINE))
        stage = STAGES[stage].split()[0]
    assert wanted <= copied
    assert {f"!{name}" for name in wanted} <= set(ignored)


def is_ours(module: str) -> bool:
    return (ROOT / module / "__init__.py").exists()


def test_dockerfile_names_no_package_index() -> None:
    assert "://" not in TEXT


def test_image_of_the_transformer_shapes_the_letters_of_class_names() -> None:
    assert "assert features.check('raqm')" in STAGES["transformer-build"]
    assert "\nCOPY --from=transformer-build /opt/fribidi /usr/lib\n" in STAGES["transformer"]


@pytest.mark.parametrize("target", SHIPPED)
def test_shipped_stages_have_title_description_and_licence(target: str) -> None:
    assert re.findall(r"org\.opencontainers\.image\.(\w+)=", STAGES[target]) == ["title", "description", "licenses"]
