"""The word list of `make check` finds what it is there for, and nothing else."""

import re
from pathlib import Path

import pytest

from tests.words.__main__ import ROOT, Finding, find, main

GLOSSARY = ROOT / "tests/words/glossary.txt"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The picture is refused.", ["picture", "refused"]),
        ("def test_what_is_asked_of_nobody() -> None:", ["asked", "nobody"]),
        ("class ImageAsked:", ["asked"]),
        ("16 requests are worked at, 32 are held against it", ["worked at", "held against"]),
        ("--pictures PICTURES loadtest/pictures/digits.jpg docs/image-formats.md", []),
        ("The response is rejected; masking; a task at hand; askance", []),
        ("an answer section of DNS  # codespell:ignore answer", []),
    ],
)
def test_words_of_the_glossary_are_found(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "text.py").write_text(text + "\n")
    assert [each.word for each in find(str(tmp_path))] == words


def test_finding_is_printed_with_its_place_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.words.__main__.find", lambda _: [Finding("a.py", 3, "asked", "requested")])
    assert main() == 1
    assert capsys.readouterr().out == "a.py:3: got asked, expected requested\n"


def test_glossary_of_contributing_has_every_word_of_the_list() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = [line.partition("->")[0] for line in GLOSSARY.read_text().splitlines()]
    assert len(words) > 30
    # Of each word some form: answered and answers are those of answer.
    assert not [word for word in words if not re.search(rf"\b{word[:3]}", section)]
