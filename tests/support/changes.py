"""Objects with one thing changed, for tests that must see it found."""

import copy
from collections.abc import Callable
from typing import Any

GONE = object()


def changed(each: Any, path: str, value: Any) -> Any:
    """A copy in which the field at a path is another.

    Args:
        each: nested dicts and lists.
        path: keys, and of lists indices or names of their items, separated by spaces; `-` at the end appends.
        value: the new one; GONE: none; a function: what it makes of the old one.
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
    """Texts in which one word is another; it must be there."""

    def replace(texts: list[str]) -> list[str]:
        assert any(old in text for text in texts), old
        return [text.replace(old, new) for text in texts]

    return replace
