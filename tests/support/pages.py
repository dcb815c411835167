"""The pages of the documentation, and their headings and links as Markdown reads them."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it.token import Token
from rich.markdown import Markdown

ROOT = Path(__file__).resolve().parents[2]
# Without those of the virtual environments.
PAGES = sorted(
    page
    for glob in ("*.md", "docs/*.md", "cluster/*.md", "loadtest/**/*.md", "manifests/**/*.md")
    for page in ROOT.glob(glob)
)


def read_all() -> str:
    """The text of all pages."""
    return "\n".join(page.read_text() for page in PAGES)


def links_of(page: Path) -> set[str]:
    """The targets of a page's links, as written."""
    tokens = _walk(Markdown(page.read_text()).parsed)
    return {str(token.attrs["href"]) for token in tokens if token.type == "link_open"}


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page: its headings by GitHub's rule, their letters, digits, hyphens and underscores."""
    anchors: Counter[str] = Counter()
    for opening, heading in pairwise(Markdown(page.read_text()).parsed):
        if opening.type == "heading_open":
            words = "".join(token.content for token in heading.children or [] if token.type in {"text", "code_inline"})
            anchors[re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")] += 1
    return {f"{anchor}-{index}" if index else anchor for anchor, count in anchors.items() for index in range(count)}


def read_examples() -> list[tuple[str, str, str]]:
    """The examples of docs/clients.md: heading, program, expected output."""
    pattern = r"^## ([\w.]+)\n\n(?:(?!```)[^\n#][^\n]*\n\n)?```python\n(.*?)```\n\n```text\n(.*?)```"
    return re.findall(pattern, (ROOT / "docs/clients.md").read_text(), re.MULTILINE | re.DOTALL)


def blocks_of(page: Path, heading: str) -> list[str]:
    """The indented blocks below a heading, up to the next one, without their indentation."""
    section = re.split(rf"^#+ {re.escape(heading)}\n", page.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"(?:^\n)((?:^ {4}.*\n|^\n(?= {4}))+)", section, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


class Block(NamedTuple):
    """A block of code of a page.

    Attributes:
        page: relative to the project.
        heading: the nearest one above it.
        number: which of those below this heading, from 0.
        language: of a fenced block; "" for an indented one.
        text: without its indentation.
    """

    page: str
    heading: str
    number: int
    language: str
    text: str


def all_blocks() -> Iterator[Block]:
    """The blocks of every page."""
    for page in PAGES:
        heading, seen = "", Counter[str]()
        tokens = Markdown(page.read_text()).parsed
        for number, token in enumerate(tokens):
            if token.type == "heading_open":
                heading = tokens[number + 1].content
            elif token.type in {"code_block", "fence"}:
                yield Block(str(page.relative_to(ROOT)), heading, seen[heading], token.info, token.content)
                seen[heading] += 1


def _walk(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _walk(token.children or [])
