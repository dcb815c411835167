"""The OpenAPI document as a whole: names of operations and of schemas, keys, servers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from transformer.auth import is_keyless
from transformer.rest.openapi import SCHEMAS

_UNUSED = ("HTTPValidationError", "ValidationError", "ErrorCode")
_TAGS = (
    ("predict", "images or rows in, predictions out: one route for every model"),
    ("v1", "KServe's v1 protocol"),
    ("v2", "Open Inference Protocol (v2), Triton's"),
    ("server", "what runs here"),
)
_SECURITY = {
    "bearerKey": {"type": "http", "scheme": "bearer", "description": "an API key of this server"},
    "headerKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same, for other clients"},
}


def operation_id(route: APIRoute) -> str:
    """A name that clients are generated with: `predict`, `v2_model_infer`, `v2_model_infer_of_version`."""
    name = route.name.strip("_")
    tag = str(route.tags[0]) if route.tags else ""
    prefix = "" if tag in {"", name, "server"} else f"{tag}_"
    return f"{prefix}{name}{'_of_version' if '{version}' in route.path_format else ''}"


def describe(app: FastAPI, *, keyless: Collection[str] | None) -> dict[str, Any]:
    """The document.

    Args:
        app: whose routes.
        keyless: patterns of paths that need no API key; None: no path needs one.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["servers"] = [{"url": "/", "description": "where this document is from"}]
    used = {
        tag for path in document["paths"].values() for operation in path.values() for tag in operation.get("tags", ())
    }
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS if name in used]
    schemas = document["components"]["schemas"]
    for name in _UNUSED:
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # validation is ours, see errors.py
    named: dict[str, Any] = {}
    schemas |= {
        name: schema if "$ref" in schema else _name_parts(schema, named, top=name) for name, schema in SCHEMAS.items()
    }
    document["paths"] = _name_parts(document["paths"], named)
    schemas |= named
    if keyless is not None:
        _require_keys(document, keyless)
    return document


def _require_keys(document: dict[str, Any], keyless: Collection[str]) -> None:
    document["components"]["securitySchemes"] = _SECURITY
    document["security"] = [{name: []} for name in _SECURITY]
    for path, operations in document["paths"].items():
        if is_keyless(path, keyless):
            for operation in operations.values():
                operation["security"] = []


def _name_parts(value: Any, named: dict[str, Any], *, top: str = "") -> Any:
    """The same with a reference in place of each object that has a title, which becomes a schema of that name.

    Generators of clients name a class by it, and find the same object in two places to be one.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_name_parts(each, named) for each in value]
    if not isinstance(value, Mapping):
        return value
    part = {name: _name_parts(each, named) for name, each in value.items()}
    title = part.get("title")
    if not isinstance(title, str) or title == top or part.get("type") != "object" or "properties" not in part:
        return part
    assert named.setdefault(title, part) == part, f"two schemas have the title {title}"  # noqa: S101
    return {"$ref": f"#/components/schemas/{title}"}
