"""What is generated in docs/: the tables of settings, from their fields, and the tree of errors: `make pages`.

It stands between `<!-- settings of <part> -->` or `<!-- errors of transformer -->` and `<!-- end -->`; the rest of a
page is written by hand.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from predictor.settings import Settings as PredictorSettings
from stack.settings import StackSettings
from transformer.errors import ServingError
from transformer.settings import TransformerSettings

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (DOCS / "configuration.md", DOCS / "architecture.md")
PARTS: Mapping[str, type[BaseSettings]] = {
    "stack": StackSettings,
    "transformer": TransformerSettings,
    "predictor": PredictorSettings,
}
_GENERATED = re.compile(r"(<!-- (settings|errors) of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMPUTED = "default:"  # in a description: it says what the default depends on
_LINK = re.compile(r"docs/(?P<page>[a-z-]+)\.md(?P<anchor>#[a-z0-9-]+)?")


def render(page: str) -> str:
    """The text of a page with its generated parts as the code is now."""

    def generate(match: re.Match[str]) -> str:
        lines = write_table(PARTS[match[3]]) if match[2] == "settings" else ["", *write_tree(ServingError), ""]
        return match[1] + "\n".join(lines) + "\n" + match[4]

    return _GENERATED.sub(generate, page)


def write_tree(error: type[ServingError], depth: int = 0) -> Iterator[str]:
    """A line for an error and for each below it: name, HTTP status, code."""
    yield f"    {'  ' * depth + error.__name__:<26}{error.code.http_status}  {error.code}"
    for below in error.__subclasses__():
        if below.__module__ == error.__module__:
            yield from write_tree(below, depth + 1)


def write_table(settings: type[BaseSettings]) -> Iterator[str]:
    """The lines of a part's table, in the order of its fields.

    A field without a description belongs to another part and has no line here.
    """
    yield "| variable | default | is |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        if not (description := field.description or ""):
            continue
        default = "" if _COMPUTED in description.lower() else _show(field)
        yield f"| `{variable(settings, name)}` | {f'`{default}`' if default else ''} | {_link(description)} |"


def variable(settings: type[BaseSettings], name: str) -> str:
    """The environment variable that sets a field."""
    alias = settings.model_fields[name].validation_alias
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{name.upper()}")


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
