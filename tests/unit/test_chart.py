"""How renders beside each other become a template: what comes and goes, and with which component."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from manifests.chart import __main__ as chart
from manifests.chart.tree import ABSENT, Change, Node, differences, keyed
from manifests.chart.values import COMPONENTS
from manifests.chart.writer import ChartError, Writer

ROOT = Path(__file__).parents[2]
# What base has, one that lists others, the mode plain, and a store of secrets, of which each user has another kind.
LEFT = {"images", "s3", "corporate", "deployment", "deployment/pod", "external-secrets", "external-secrets/s3"}


def test_every_component_of_the_manifests_is_in_the_chart() -> None:
    folder = ROOT / "manifests" / "components"
    found = {str(path.parent.relative_to(folder)) for path in folder.rglob("kustomization.yaml")}
    assert {each.folder for each in COMPONENTS} == found - LEFT


@pytest.mark.parametrize(
    ("base", "changes", "guard"),
    [
        (1, [], ""),
        (ABSENT, [], None),
        (1, [Change("a", 1, 2)], ""),
        (ABSENT, [Change("a", ABSENT, 1)], "$on.a"),
        (1, [Change("a", 1, ABSENT)], "not $on.a"),
        (ABSENT, [Change("a", ABSENT, 1), Change("b", ABSENT, 1)], "or $on.a $on.b"),
        (ABSENT, [Change("a", ABSENT, 1), Change("b", 1, ABSENT)], "and $on.a (not $on.b)"),
        (1, [Change("a", 1, ABSENT), Change("b", ABSENT, 1)], "or (not $on.a) $on.b"),
    ],
)
def test_guard_is_the_condition_under_which_the_value_exists(
    base: Any, changes: list[Change], guard: str | None
) -> None:
    assert Node(base, tuple(changes)).guard() == guard


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (set(), {"x": 1}),
        ({"a"}, {"x": 2, "y": 2}),
        ({"b"}, {"x": 3}),
        ({"a", "b"}, {"x": 3, "y": 2}),
    ],
    ids=lambda each: "-".join(sorted(each)),
)
def test_last_component_prevails(on: set[str], expected: Mapping[str, int]) -> None:
    changes = (Change("a", {"x": 1}, {"x": 2, "y": 2}), Change("b", {"x": 1}, {"x": 3}))
    assert Node({"x": 1}, changes).at(on) == expected


def test_items_of_a_list_are_distinguished_by_their_names() -> None:
    base = keyed([{"name": "a", "image": "one"}, {"name": "b"}])
    after = keyed([{"name": "b"}, {"name": "a", "image": "two"}, {"name": "c"}])
    lines = Writer("standard").file(
        "Kind/name", Node({"list": base}, (Change("more", {"list": base}, {"list": after}),))
    )
    assert lines.splitlines()[3:] == [
        "list:",
        "  - name: a",
        "    {{- if $on.more }}",
        "    image: two",
        "    {{- else }}",
        "    image: one",
        "    {{- end }}",
        "  - name: b",
        "  {{- if $on.more }}",
        "  - name: c",
        "  {{- end }}",
        "{{- end }}",
    ]


def test_items_without_names_are_distinguished_by_their_whole_content() -> None:
    two = keyed([{"port": 1}, {"port": 2}])
    assert len(two) == 2
    assert list(differences(two, keyed([{"port": 2}, {"port": 1}]))) == []
    assert list(differences(two, keyed([{"port": 1}]))) == ["/{\"port\": 2}: {'port': 2} and nothing"]


def test_components_whose_order_matters_are_rejected() -> None:
    """With both components kustomize yields the value of the first one, the chart would yield that of the last one."""

    def render(_: str, on: frozenset[str]) -> Mapping[str, Any]:
        value = "first" if "production" in on else "last" if "gpu" in on else "base"
        return {"Kind/name": {"value": value}}

    with pytest.raises(ChartError, match=r"/Kind/name/value: 'last' and 'first'"):
        list(chart.objects_of("standard", render))


def test_text_that_helm_would_read_is_rejected() -> None:
    with pytest.raises(ChartError, match="Helm would read"):
        Writer("standard").file("Kind/name", Node({"text": "{{ .Values.x }}"}))


def test_archive_is_the_same_for_the_same_files() -> None:
    assert chart.pack("nereid", {"a": "1", "b": "2"}) == chart.pack("nereid", {"b": "2", "a": "1"})


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = subprocess.run(
        [sys.executable, "-m", "manifests.chart", str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {file}: File exists, expected a folder that can be written\n",
    )
