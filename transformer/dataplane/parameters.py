"""Parameters of a request: names, types and ranges, the same in every protocol."""

import itertools
from collections.abc import Mapping
from typing import Any

from transformer.errors import InvalidRequest, excerpt
from transformer.tasks.detect import Selection
from transformer.triton.model import Model, fold_name

NAMES = ("confidence", "iou", "max_detections", "classes")
MAX_CLASSES = 10_000
_MOST_LETTERS = 2**18  # of all of them: they are composed (NFC) before they are looked up
MAX_DETECTIONS_LIMIT = 1000  # NMS takes time by candidates times detections


def read_selection(parameters: Mapping[str, Any], model: Model) -> Selection:
    """Check the parameters of a request against a model.

    Args:
        parameters: as a protocol carries them: numbers, or strings that hold numbers; `classes` as one of, or a list
            of, indices as whole numbers, and strings. A string is a name as a whole; or else, between its commas, names
            and, where they are no names, indices.
        model: says which classes there are, and whether it is a detector at all.

    Raises:
        InvalidRequest: an unknown parameter, a wrong type or range, an unknown class.
    """
    known = NAMES if model.task == "detect" else ()
    unknown = [name for name in parameters if name not in known]
    if unknown:
        expected = f"one of {', '.join(known)}" if known else f"none, {model.name} is a model for {model.task}"
        raise InvalidRequest(f"parameter {unknown[0]!r} is unknown; expected {expected}")
    defaults = Selection()
    return Selection(
        confidence=_fraction(parameters, "confidence", defaults.confidence),
        iou=_fraction(parameters, "iou", defaults.iou),
        max_detections=_count(parameters, "max_detections", defaults.max_detections),
        class_ids=_class_ids(parameters["classes"], model) if "classes" in parameters else None,
    )


def _fraction(parameters: Mapping[str, Any], name: str, default: float) -> float:
    value = parameters.get(name, default)
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise InvalidRequest(f"parameter {name!r}: got {excerpt(value)}, expected a number from 0 to 1")
    return number


def _count(parameters: Mapping[str, Any], name: str, default: int) -> int:
    value = parameters.get(name, default)
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MAX_DETECTIONS_LIMIT:
        raise InvalidRequest(
            f"parameter {name!r}: got {excerpt(value)}, expected a whole number from 1 to {MAX_DETECTIONS_LIMIT}"
        )
    return int(text)


def _class_ids(value: Any, model: Model) -> frozenset[int]:
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if len(entries) <= MAX_CLASSES:
        length = sum(len(entry) for entry in entries if isinstance(entry, str))
        if length > _MOST_LETTERS:
            raise InvalidRequest(f"parameter 'classes': got {length} characters, expected at most {_MOST_LETTERS}")
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
