"""Parameters of a request: names, types and ranges, the same in every protocol."""

from collections.abc import Iterable, Mapping
from typing import Any

from transformer.errors import InvalidRequest, excerpt
from transformer.model import Model
from transformer.tasks.detect import Selection

NAMES = ("confidence", "iou", "max_detections", "classes")
MAX_CLASSES = 10_000
MAX_DETECTIONS_LIMIT = 1000  # a model returns no more candidates


def read_selection(parameters: Mapping[str, Any], model: Model) -> Selection:
    """Check the parameters of a request against a model.

    Args:
        parameters: as a protocol carries them: numbers, or strings that hold numbers; `classes` as a list or a
            comma-separated string of names and indices.
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
    if isinstance(value, str):
        entries: list[Any] = [entry.strip() for entry in value.split(",")]
    elif isinstance(value, Iterable) and not isinstance(value, Mapping):
        entries = list(value)
    else:
        entries = [value]
    if len(entries) > MAX_CLASSES:
        raise InvalidRequest(f"parameter 'classes': got {len(entries)}, expected at most {MAX_CLASSES}")
    ids_by_name = {name: class_id for class_id, name in model.names.items()}
    class_ids = set()
    for entry in entries:
        text = str(entry) if isinstance(entry, str | int) else excerpt(entry)
        # A name comes first: digits are the names of some models' classes.
        class_id = ids_by_name.get(text)
        if class_id is None and text.isdecimal() and len(text) < 10 and int(text) in model.names:
            class_id = int(text)
        if class_id is None:
            raise InvalidRequest(
                f"parameter 'classes': {model.name} has no class {text[:60]!r}; expected names or indices of"
                f" {list(model.names.values())[:20]}{' ...' if len(model.names) > 20 else ''}"
            )
        class_ids.add(class_id)
    return frozenset(class_ids)
