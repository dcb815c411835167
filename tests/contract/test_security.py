"""SECURITY.md names the test that shows each of its promises."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CELL = re.compile(r"`([\w/]*\.?p?y?)::(test_\w+)`")


def test_every_test_that_security_md_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    found, file = [], ""
    for name, test in _CELL.findall(text):
        file = name or file  # `::test` is of the file before
        found.append((file, test))
    assert len(found) > 30
    for file, test in found:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_promise_of_security_md_names_a_test() -> None:
    section = ""
    for line in (ROOT / "SECURITY.md").read_text().splitlines():
        if line.startswith("## "):
            section = line
        elif line.startswith("|") and section.startswith("## ") and "Who may do what" not in section:
            cells = line.strip("|").split("|")
            is_promise = len(cells) == 3 and not set(line) <= {"|", "-"} and "would gain" not in line
            assert not is_promise or "test_" in cells[2], f"{section}: {line}"
