"""Rules for values of config.pbtxt: what one value may be, and how a message or a map is described."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any, NamedTuple, TypeAlias


class Rule(NamedTuple):
    """A condition for one value, and its description."""

    expected: str
    holds: Callable[[Any], bool]


class MapRule(NamedTuple):
    """A map whose keys are the model's own."""

    key: Rule
    value: "Allowed"


# Rules of a message by field, of a map with fixed keys by key. A repeated field has the rule of its elements.
Allowed: TypeAlias = "Rule | MapRule | Mapping[str, Allowed]"
Table: TypeAlias = Mapping[str, Allowed]


def one_of(*values: str) -> Rule:
    """Accept one of these texts."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


def enum(wrapper: Any) -> Rule:
    """Accept a value of an enum of protobuf."""
    return Rule(f"one of {', '.join(wrapper.keys())}", lambda value: value in wrapper.values())


def like(pattern: str, expected: str) -> Rule:
    """Accept a text that a regular expression matches as a whole."""
    return Rule(expected, lambda value: re.fullmatch(pattern, value) is not None)


def number(low: int, high: int) -> Rule:
    """Accept an integer, or a string of one, as options of backends are."""

    def holds(value: Any) -> bool:
        return re.fullmatch("-?[0-9]{1,19}", str(value)) is not None and low <= int(value) <= high

    return Rule(f"a whole number from {low} to {high}", holds)


def each(rule: Rule, *names: str) -> dict[str, Allowed]:
    """One rule for several fields."""
    return dict.fromkeys(names, rule)


def multiply(factors: Iterable[int], *, most: int) -> int:
    """The product, or `most + 1` where it is larger: factors may be many, and large."""
    return reduce(lambda product, factor: min(product * factor, most + 1), factors, 1)


def shorten(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
