"""Every installed package is verified: the locks have hashes, and no command installs without them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = (
    "requirements/build-constraints.txt",
    "requirements/constraints.txt",
    "requirements/installer.txt",
    "requirements/tools/syft.txt",
    "requirements/torch-cpu.txt",
    "integrations/track/requirements.txt",
    "predictor/requirements.txt",
    "tests/e2e/clients/requirements.txt",
    "tests/e2e/compose/requirements.txt",
    "tests/e2e/frigate/requirements.txt",
    "tests/labelling/cvat-requirements.txt",
    "tests/labelling/fiftyone-requirements.txt",
    "tests/labelling/label-studio-requirements.txt",
    "tests/manifests/scan-requirements.txt",
)
RECIPES = ("Makefile", "containers/Dockerfile")


def pins(lock: str) -> dict[str, list[str]]:
    """The hashes of each `name==version`."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {line.split()[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\S)", line) for line in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_a_hash_for_each_package_and_no_index_address(lock: str) -> None:
    found = pins(lock)
    assert found
    assert all("==" in name and hashes for name, hashes in found.items())
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host| @ ", (ROOT / lock).read_text())


def test_build_backend_needs_no_package_of_an_index() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert build["requires"] == []
    assert (ROOT / build["backend-path"][0] / f"{build['build-backend']}.py").is_file()


def test_locks_have_the_versions_that_were_chosen_by_hand() -> None:
    (uv,) = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert list(pins("requirements/installer.txt")) == [f"uv=={uv}"]
    chosen = [line for line in (ROOT / "predictor/requirements.in").read_text().splitlines() if line[0] != "#"]
    assert sorted(pins("predictor/requirements.txt")) == sorted(chosen)
    plan = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["plan"]
    assert {name.partition("==")[0] for name in pins("requirements/constraints.txt")} >= set(plan)


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_installed_without_hashes(recipe: str) -> None:
    text = (ROOT / recipe).read_text().replace("\\\n", " ")
    (hashed,) = re.findall(r"^HASHED := (.+)$", text, re.MULTILINE) or [""]
    text = text.replace("$(HASHED)", hashed)
    commands = re.findall(r"\bpip install\b[^&\n]*", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    assert commands
    for command in commands:
        if "--editable ." in command:
            # This folder, built by its own backend: nothing comes from anywhere.
            assert {"--no-deps", "--no-index", "--offline"} <= set(command.split())
            continue
        assert "--require-hashes" in command
        # Build requirements of a source distribution run code too.
        assert re.search(r"--no-build|--only-binary :all:|--require-build-hashes", command)
    assert not re.search(r"\buvx\b|\buv tool\b|\$\(UV\) tool\b|\bcurl\b|\bwget\b|git clone", text)
