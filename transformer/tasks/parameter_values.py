"""Values of parameters: checked and converted."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

from transformer.errors import InvalidRequest, excerpt
from transformer.triton.model import Model, fold_name

Choice = TypeVar("Choice", bound=str)

MAX_CLASSES = 10_000
_MAX_LETTERS = 2**18  # of all names: they are composed (NFC) before they are looked up


def read_fraction(name: str, value: Any) -> float:
    """A parameter from 0 to 1, a number or a string that holds one.

    Raises:
        InvalidRequest: it is something else.
    """
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a number from 0 to 1")
    return number


def read_count(name: str, value: Any, *, most: int) -> int:
    """A parameter from 1 to `most`, a whole number or a string that holds one.

    Raises:
        InvalidRequest: it is something else.
    """
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a whole number from 1 to {most}")
    return int(text)


def read_positive(name: str, value: Any, *, most: float) -> float:
    """A parameter above 0 and up to `most`, a number or a string that holds one.

    Raises:
        InvalidRequest: it is something else.
    """
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= most:
        raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a number above 0, at most {most:g}")
    return number


def read_choice(name: str, value: Any, choices: Sequence[Choice]) -> Choice:
    """A parameter that is one of several words.

    Raises:
        InvalidRequest: it is something else.
    """
    for choice in choices:
        if value == choice:
            return choice
    raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected one of {', '.join(choices)}")


def read_name(name: str, value: Any) -> str:
    """A parameter that is the name of a model.

    Raises:
        InvalidRequest: it is not a text, or an empty one.
    """
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected the name of a model")
    return value


def read_classes(value: Any, model: Model) -> frozenset[int]:
    """Indices of the classes that a parameter selects.

    Args:
        value: one of, or a list of, indices as whole numbers, and strings. A string is a name as a whole; or else,
            between its commas, names and, where they are no names, indices.
        model: for its classes.

    Raises:
        InvalidRequest: an unknown class, or too many.
    """
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if len(entries) <= MAX_CLASSES:
        length = sum(len(entry) for entry in entries if isinstance(entry, str))
        if length > _MAX_LETTERS:
            raise InvalidRequest(f"parameter 'classes': got {length} characters, expected at most {_MAX_LETTERS}")
        entries = [part for entry in entries for part in _split(entry, model)]
    if len(entries) > MAX_CLASSES:
        raise InvalidRequest(f"parameter 'classes': got {len(entries)}, expected at most {MAX_CLASSES}")
    return frozenset().union(*(_ids_of(entry, model) for entry in entries))


def _split(entry: Any, model: Model) -> list[Any]:
    """A name that holds commas is one name."""
    return entry.split(",") if isinstance(entry, str) and fold_name(entry) not in model.ids_by_name else [entry]


def _ids_of(entry: Any, model: Model) -> frozenset[int]:
    """All classes of a name, or the class of an index; in text a name comes first, in JSON numbers are indices."""
    index = entry if isinstance(entry, int) and not isinstance(entry, bool) else None
    if isinstance(entry, str):
        text = fold_name(entry)
        if text in model.ids_by_name:
            return model.ids_by_name[text]
        index = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
    # A class without a name counts too: in a gap between names, or every class of a model without names.
    if index is not None and index >= 0 and (index < model.classes or not model.names):
        return frozenset([index])
    shown = [f"{class_id}: {name[:60]!r}" for class_id, name in itertools.islice(model.names.items(), 20)]
    raise InvalidRequest(
        f"parameter 'classes': {model.name} has no class {excerpt(entry)}; expected names or indices of"
        f" {{{', '.join(shown)}{', ...' if len(model.names) > 20 else ''}}}"
    )
