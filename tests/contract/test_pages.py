"""The pages of the documentation agree with the code, and with each other."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from environment.variables import variable
from stack.pages import PAGES as GENERATED
from stack.pages import PARTS as SETTINGS
from stack.pages import render
from tests.support.pages import PAGES, ROOT, anchors_of, links_of, read_all

CONFIGURATION = ROOT / "docs/configuration.md"
MAX_README_BYTES, MAX_README_LINES = 9_000, 150  # five minutes of reading; the rest has pages below docs/
PARTS = ("cluster", "export", "loadtest", "manifests", "predictor", "registry", "tests", "transformer", "worker")
SOURCES = {".py", ".yaml", ".env"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links_of(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in anchors_of(target), link


def test_links_are_found() -> None:
    assert {"docs/api.md", "docs/models.md#licence-of-your-own-weights"} <= links_of(ROOT / "README.md")
    assert {"documentation"} == anchors_of(ROOT / "docs/README.md")


def test_load_tests_of_a_gateway_leave_grpc_out() -> None:
    # $URL of Knative's gateway leads to REST alone, and without WEIGHTS gRPC requests go to localhost.
    commands = re.findall(r"`(make (?:loadtest|loadtest-cold) URL=[^`]+)`", (ROOT / "manifests/README.md").read_text())
    assert len(commands) >= 3
    for each in commands:
        assert re.search(r'WEIGHTS=(\w+|"[^"]+")', each), each
        assert "grpc" not in each.lower(), each


def test_index_lists_every_page_once() -> None:
    lines = [line for line in (ROOT / "docs/README.md").read_text().splitlines() if line.startswith("| [")]
    listed = [link for line in lines for link in re.findall(r"\]\(([^)]+)\)", line)]
    assert len(set(listed)) == len(listed)
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= set(listed)


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= MAX_README_BYTES
    assert len(text.splitlines()) <= MAX_README_LINES


def test_pages_that_the_code_names_exist() -> None:
    paths = [*ROOT.glob("*.py"), ROOT / "Makefile", *(path for part in PARTS for path in (ROOT / part).rglob("*"))]
    sources = (path.read_text() for path in paths if path.suffix in SOURCES or path.name == "Makefile")
    named = {name for source in sources for name in re.findall(r"\bdocs/[a-z-]+\.md\b", source)}
    assert {"docs/configuration.md", "docs/image-formats.md"} <= named
    assert all((ROOT / name).is_file() for name in named), named


def test_files_that_pages_name_exist() -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = set(re.findall(rf"`((?:{folders})/[\w/.-]+\.(?:py|md|json|yaml|env|txt|conf|onnx))`", read_all()))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_generated_parts_are_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    assert render(text) == text, "next: make pages"


def test_configuration_has_a_table_for_each_part() -> None:
    assert re.findall(r"<!-- settings of (\w+) -->", CONFIGURATION.read_text()) == list(SETTINGS)


def test_every_setting_has_a_description() -> None:
    described = {
        variable(each, name) for each in SETTINGS.values() for name, f in each.model_fields.items() if f.description
    }
    settings = {variable(each, name) for each in SETTINGS.values() for name in each.model_fields}
    assert settings - described <= {"NEREID_API_KEY"}  # of every client: a row of the variables of make


def test_pages_name_no_setting_that_does_not_exist() -> None:
    existing = {variable(settings, name) for settings in SETTINGS.values() for name in settings.model_fields}
    named = set(re.findall(r"`((?:TRANSFORMER|PREDICTOR)_[A-Z_]+)`", read_all()))
    assert "TRANSFORMER_KEEP_ALIVE_S" in named
    assert named <= existing


def test_configuration_names_every_variable_that_make_has_a_default_for() -> None:
    variables = set(re.findall(r"^([A-Z0-9_]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(variables) > 15
    assert variables <= set(re.findall(r"`([A-Z0-9_]+)`", CONFIGURATION.read_text()))


def test_pages_name_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z0-9-]+)", read_all()))
    assert named <= targets
    assert {"demo", "serve", "export", "test", "test-export", "check"} <= named


def test_wait_after_an_apply_begins_once_the_new_revision_is_seen() -> None:
    lines = (ROOT / "manifests/README.md").read_text().partition("### A canary")[2].partition("\n###")[0].splitlines()
    waits = [number for number, line in enumerate(lines) if "--for=condition=Ready --timeout" in line]
    assert waits
    assert all("--for=condition=Ready=Unknown" in lines[number - 1] for number in waits)
