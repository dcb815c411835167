"""The files of infra/terraform, read without Terraform: blocks by python-hcl2, and the directives of the templates."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

from tests.manifests.rendering import ROOT

FOLDER = ROOT / "infra" / "terraform"
_DIRECTIVE = re.compile(r"%\{ (?P<text>[^}]+?) ~\}\n")
_VALUE = re.compile(r"(?<!\$)\$\{(?P<text>[^}]+)\}")


@cache
def files() -> dict[str, str]:
    """Text of each `.tf` file, by name."""
    return {each.name: each.read_text() for each in sorted(FOLDER.glob("*.tf"))}


@cache
def _parsed() -> list[dict[str, Any]]:
    return [plain(hcl2.loads(text)) for text in files().values()]


def blocks(kind: str, *, of: str | None = None) -> dict[str, dict[str, Any]]:
    """Blocks of a kind by name, with text without quotes; `of`: the type of a resource."""
    found: dict[str, dict[str, Any]] = {}
    for parsed in _parsed():
        for each in parsed.get(kind, []):
            for name, content in each.items():
                if of is None:
                    found[name] = content
                elif name == of:
                    found |= content
    return found


@cache
def named_locals() -> dict[str, Any]:
    """All `locals`; expressions are their text, in `${}`."""
    return {name: value for parsed in _parsed() for each in parsed.get("locals", []) for name, value in each.items()}


def values_of(path: Path) -> dict[str, Any]:
    """A file of variables' values."""
    return dict(plain(hcl2.loads(path.read_text())))


def plain(value: Any) -> Any:
    """What python-hcl2 read without quotes around text, and without its own members."""
    if isinstance(value, Mapping):
        kept = {plain(name): plain(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if not str(name).startswith("__")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == '"' else value


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A template as `templatefile` fills it: values, members of values, `jsonencode`, `if` with `else`, `for`.

    Args:
        template: name of a file of `templates/`.
        values: by name; a condition is a value or `!` and one.
    """
    text = (FOLDER / "templates" / template).read_text()
    parts = _DIRECTIVE.split(text)
    return "".join(_filled(iter(parts), dict(values)))


def _filled(parts: Iterator[str], values: dict[str, Any]) -> Iterator[str]:
    yield _with_values(next(parts), values)
    for directive in parts:
        word, _, rest = directive.partition(" ")
        body = _body(parts)
        if word == "for":
            names, _, source = rest.partition(" in ")
            for each in _items(values[source], [name.strip() for name in names.split(",")]):
                yield from _filled(iter(body), values | each)
        else:
            holds = not values[rest[1:]] if rest.startswith("!") else bool(values[rest])
            yield from _filled(iter(_branches(body)[0 if holds else 1]), values)
        yield _with_values(next(parts), values)


def _items(source: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    if isinstance(source, Mapping):
        yield from (dict(zip(names, pair, strict=True)) for pair in sorted(source.items()))
    else:
        yield from ({names[0]: each} for each in source)


def _body(parts: Iterator[str]) -> list[str]:
    """Parts up to the block's end, which is taken too."""
    body, depth = [next(parts)], 0
    for directive in parts:
        depth += directive.startswith(("if ", "for ")) - directive.startswith("end")
        if depth < 0:
            return body
        body += [directive, next(parts)]
    raise ValueError("a block without its end")


def _branches(body: list[str]) -> tuple[list[str], list[str]]:
    depth = 0
    for index in range(1, len(body), 2):
        depth += body[index].startswith(("if ", "for ")) - body[index].startswith("end")
        if body[index] == "else" and depth == 0:
            return body[:index], body[index + 1 :]
    return body, [""]


def _with_values(text: str, values: dict[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match["text"]
        if encoded := re.fullmatch(r"jsonencode\((\w+)\)", name):
            return f'"{values[encoded[1]]}"'
        first, _, member = name.partition(".")
        return str(values[first][member] if member else values[first])

    return _VALUE.sub(value, text)
