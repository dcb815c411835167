"""JSON schemas that several tasks share; OpenAPI shows them."""

from collections.abc import Mapping
from typing import Any

NUMBER: dict[str, Any] = {"type": "number"}
INTEGER: dict[str, Any] = {"type": "integer"}
STRING: dict[str, Any] = {"type": "string"}
UUID: dict[str, Any] = {"type": "string", "format": "uuid"}
FRACTION: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}


def object_of(properties: Mapping[str, Any], *, optional: tuple[str, ...] = (), title: str = "") -> dict[str, Any]:
    """An object with these members and no others; one with a title is a schema of its own in OpenAPI, of this name."""
    required = [name for name in properties if name not in optional]
    schema = {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
    return {"title": title, **schema} if title else schema


def array_of(items: Mapping[str, Any]) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": dict(items)}


CLASS: dict[str, Any] = {"class": STRING, "class_id": INTEGER, "confidence": FRACTION}
