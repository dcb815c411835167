"""Generates parts of docs/ (`make pages`): the tables of settings, from the settings' classes, and the tree of errors.

The generated part is between `<!-- settings of <part> -->` or `<!-- errors of transformer -->` and `<!-- end -->`; the
rest of a page is written by hand.
"""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from environment.error_codes import ErrorCode
from environment.variables import variable
from predictor.settings import Settings as PredictorSettings
from stack.settings import StackSettings
from transformer.errors import ServingError
from transformer.settings import TransformerSettings
from worker.settings import Settings as WorkerSettings

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (DOCS / "configuration.md", DOCS / "architecture.md")
PARTS: Mapping[str, type[BaseSettings]] = {
    "stack": StackSettings,
    "transformer": TransformerSettings,
    "predictor": PredictorSettings,
    "worker": WorkerSettings,
}
_DEFINE_ERRORS = ("transformer.rest.app", "transformer.grpc.server")  # and what these import
_GENERATED = re.compile(r"(<!-- (settings|errors) of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMPUTED = "default:"  # in a description: it says what the default depends on
_LINK = re.compile(r"docs/(?P<page>[a-z-]+)\.md(?P<anchor>#[a-z0-9-]+)?")


def render(page: str) -> str:
    """The text of a page with its generated parts as the code is now."""

    def generate(match: re.Match[str]) -> str:
        lines = write_table(PARTS[match[3]]) if match[2] == "settings" else ["", *write_errors(), ""]
        return match[1] + "\n".join(lines) + "\n" + match[4]

    return _GENERATED.sub(generate, page)


def write_errors() -> Iterator[str]:
    """A line for every error and code of the transformer: name, HTTP status, code."""
    for module in _DEFINE_ERRORS:
        importlib.import_module(module)
    tree = list(walk_tree(ServingError))
    for error, depth in tree:
        yield _write_error("  " * depth + error.__name__, error.code)
    yield from ("", *(_write_error("(no class)", code) for code in without_class(error for error, _ in tree)))


def walk_tree(error: type[ServingError], depth: int = 0) -> Iterator[tuple[type[ServingError], int]]:
    """An error, and each below it that the transformer defines, with its depth."""
    yield error, depth
    for below in error.__subclasses__():
        if below.__module__.startswith("transformer."):
            yield from walk_tree(below, depth + 1)


def without_class(errors: Iterable[type[ServingError]]) -> list[ErrorCode]:
    """The codes that no error has: those of a connection or a route, before there is a request."""
    codes = {error.code for error in errors}
    return [code for code in ErrorCode if code not in codes]


def _write_error(name: str, code: ErrorCode) -> str:
    return f"    {name:<26}{code.http_status}  {code}"


def write_table(settings: type[BaseSettings]) -> Iterator[str]:
    """The lines of a part's table, in the order of its fields.

    A field without a description belongs to another part and has no line here.
    """
    yield "| variable | default | is |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        if not (description := field.description or ""):
            continue
        default = "" if _COMPUTED in description.lower() or field.is_required() else _show(field)
        shown = "required" if field.is_required() else f"`{default}`" if default else ""
        yield f"| `{variable(settings, name)}` | {shown} | {_link(description)} |"


def _show(field: FieldInfo) -> str:
    """A default as it is written in the environment."""
    default: Any = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, frozenset):
        return ",".join(sorted(default))
    return f"{default:g}" if isinstance(default, float) else "" if default is None else str(default)


def _link(description: str) -> str:
    """Links of a page in this folder, for the addresses that a description has from the project's root."""
    return _LINK.sub(lambda match: f"[{_title(match)}]({_address(match)})", description)


def _address(match: re.Match[str]) -> str:
    own = match["page"] == "configuration" and match["anchor"]
    return f"{'' if own else match['page'] + '.md'}{match['anchor'] or ''}"


def _title(match: re.Match[str]) -> str:
    return (match["anchor"] or match["page"]).lstrip("#").replace("-", " ")


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
