"""Compares renders of the same objects: common fields, and fields that a component adds or removes."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final = object()
# Keys of items in lists: mount path of a volume, name of a container or variable, topology of a spread, type of a
# metric.
_IDENTITIES = ("mountPath", "name", "topologyKey", "type")


class Named(dict[str, Any]):
    """A list of maps by their keys: without an order, so that a component can change a single item."""


def keyed(node: Any) -> Any:
    """Replace lists of maps by `Named`; a list of scalars stays one value."""
    if isinstance(node, dict):
        return {key: keyed(value) for key, value in node.items()}
    if isinstance(node, list) and all(isinstance(each, dict) for each in node):
        by = next((name for name in _IDENTITIES if len({each.get(name) for each in node} - {None}) == len(node)), None)
        return Named({str(each[by]) if by else json.dumps(each, sort_keys=True): keyed(each) for each in node})
    return node


@dataclass(frozen=True)
class Change:
    """The change of a value by a component; `ABSENT` is a value too."""

    component: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Node:
    """A place in an object.

    Attributes:
        base: the value without components.
        changes: by components, in order: the last enabled one prevails.
    """

    base: Any
    changes: tuple[Change, ...] = ()

    def guard(self) -> str | None:
        """The condition under which the value exists, in Helm's syntax; empty: always, None: never."""
        now = None if self.base is ABSENT else ""
        for each in self.changes:
            flag = f"$on.{each.component}"
            if each.before is ABSENT:
                now = flag if now is None else now and f"or {_inner(now)} {flag}"
            elif each.after is ABSENT and now is not None:
                now = f"and {_inner(now)} (not {flag})" if now else f"not {flag}"
        return now

    def inside(self) -> "Node":
        """The node where the value exists: an addition by a single component is its base."""
        adding = [each for each in self.changes if each.before is ABSENT]
        rest = tuple(each for each in self.changes if each.after is not ABSENT)
        if self.base is ABSENT and len(adding) == 1:
            return Node(adding[0].after, tuple(each for each in rest if each is not adding[0]))
        return Node(self.base, rest)

    def alternatives(self) -> list[tuple[str, Any]]:
        """Values by component, in order of precedence; the last without components."""
        found = [(each.component, each.after) for each in reversed(self.changes) if each.after is not ABSENT]
        found += [] if self.base is ABSENT else [("", self.base)]
        if all(_same(value, found[0][1]) for _, value in found):
            return [("", found[0][1])]
        return [*found[:-1], ("", found[-1][1])]

    def is_map(self) -> bool:
        """Whether all alternatives are maps, or all are lists of named items."""
        values = [value for _, value in self.alternatives()]
        return isinstance(values[0], dict) and all(type(each) is type(values[0]) for each in values)

    def children(self) -> "Iterator[tuple[str, Node]]":
        """Children of a map by key: first the key of the item, then in kustomize's order."""
        keys = dict.fromkeys(key for _, value in reversed(self.alternatives()) for key in value)
        first = [key for key in _IDENTITIES if key in keys]
        for key in dict.fromkeys([*first, *keys]):
            changes = (Change(each.component, _get(each.before, key), _get(each.after, key)) for each in self.changes)
            yield key, Node(_get(self.base, key), tuple(each for each in changes if not _same(each.before, each.after)))

    def at(self, on: Collection[str]) -> Any:
        """The template's result with these components: an object, `keyed`, or `ABSENT`."""
        there = self.base is not ABSENT
        for each in self.changes:
            if each.component in on and ABSENT in (each.before, each.after):
                there = each.after is not ABSENT
        if not there:
            return ABSENT
        if not self.is_map():
            return next(value for component, value in self.alternatives() if not component or component in on)
        kind = type(self.alternatives()[0][1])
        items = ((key, child.at(on)) for key, child in self.inside().children())
        return kind({key: value for key, value in items if value is not ABSENT})


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Differences of two objects, as paths with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(_get(one, key), _get(other, key), f"{path}/{key}")
    elif not _same(one, other):
        yield f"{path}: {_said(one)} and {_said(other)}"


def _said(value: Any) -> str:
    return "nothing" if value is ABSENT else repr(value)


def _inner(condition: str) -> str:
    return f"({condition})" if " " in condition else condition


def _get(value: Any, key: str) -> Any:
    return value.get(key, ABSENT) if isinstance(value, Mapping) else ABSENT


def _same(one: Any, other: Any) -> bool:
    return one is other or (ABSENT not in (one, other) and type(one) is type(other) and one == other)
