"""Copies of objects with one change, for tests of what finds faults."""

import copy
from collections.abc import Callable
from typing import Any

GONE = object()


def changed(each: Any, path: str, value: Any) -> Any:
    """A copy with another value at a path.

    Args:
        each: nested dicts and lists.
        path: keys, and for lists indices or names of items, separated by spaces; `-` at the end appends.
        value: the new value; GONE removes it; a function maps the old value to the new one.
    """
    copied = copy.deepcopy(each)
    *parents, last = path.split()
    node = copied
    for part in parents:
        node = node[_key(part, node)]
    if last == "-":
        node.append(value)
        return copied
    last = _key(last, node)
    if value is GONE:
        del node[last]
    else:
        node[last] = value(node[last]) if callable(value) else value
    return copied


def _key(part: str, node: Any) -> Any:
    if not isinstance(node, list):
        return part
    if part.removeprefix("-").isdecimal():
        return int(part)
    return next(index for index, each in enumerate(node) if each["name"] == part)


def replaced(old: str, new: str) -> Callable[[list[str]], list[str]]:
    """A function that replaces a word in texts; the word must occur."""

    def replace(texts: list[str]) -> list[str]:
        assert any(old in text for text in texts), old
        return [text.replace(old, new) for text in texts]

    return replace
