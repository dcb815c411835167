"""A release is one number: in pyproject.toml, in the images' tags, in the changelog, in the example of a base."""

import re
from datetime import date

import yaml

from containers.build import IMAGES, ROOT, version

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
HEADINGS = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
NOT_YET = "not tagged yet"


def _released() -> list[tuple[tuple[int, ...], str]]:
    """Numbers and dates of the headings below `Unreleased`, as they stand."""
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (.+)", heading) for heading in HEADINGS[1:]]
    assert all(found), HEADINGS
    return [(tuple(map(int, each.groups()[:3])), each[4]) for each in found if each]


def test_changelog_begins_with_unreleased_changes_and_descends() -> None:
    assert HEADINGS[0] == "[Unreleased]"
    numbers = [number for number, _ in _released()]
    assert numbers == sorted(set(numbers), reverse=True)
    days = [day for _, day in _released()]
    assert all(date.fromisoformat(day) for day in days if day != NOT_YET)
    assert NOT_YET not in days[1:]


def test_newest_version_of_the_changelog_is_that_of_the_project() -> None:
    assert ".".join(map(str, _released()[0][0])) == version()


def test_manifests_take_the_images_of_the_version() -> None:
    files = [ROOT / "manifests/components" / name / "kustomization.yaml" for name in ("images", "cpu-triton")]
    images = [each for file in files for each in yaml.safe_load(file.read_text())["images"]]
    tags = {each["name"]: each["newTag"] for each in images if each["name"].startswith("nereid/")}
    used = {f"nereid/{image.name}" for image in IMAGES} - {"nereid/standalone"}  # which no manifest has
    assert tags == dict.fromkeys(used, version())


def test_example_of_a_base_is_the_version() -> None:
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md"), *ROOT.glob("manifests/**/*.md")]
    named = {ref for page in pages for ref in re.findall(r"\?ref=(v[0-9][^\s)`]*)", page.read_text())}
    assert named == {f"v{version()}"}
    releases = (ROOT / "docs/releases.md").read_text()
    assert set(re.findall(r"git (?:tag \S+|checkout) (v\S+?)[`\s]", releases)) == named


def test_each_version_of_the_changelog_has_steps_before_an_upgrade() -> None:
    parts = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[2:]
    assert parts
    assert all("### Before you upgrade\n" in part for part in parts)
