"""A schema of ours for HTTPRoutes of the Gateway API: the fields that the manifests use. No package has the whole."""

from typing import Any

_NAME = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def _fields(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": 16, "items": items}


_MATCH = _fields(path=_fields(type={"enum": ["Exact", "PathPrefix", "RegularExpression"]}, value=_NAME))
_RULE = _fields(
    "backendRefs",
    matches=_list(_MATCH),
    backendRefs=_list(_fields("name", "port", name=_NAME, port=_PORT, weight={"type": "integer", "minimum": 0})),
    timeouts=_fields(request=_DURATION, backendRequest=_DURATION),
)
HTTP_ROUTE = _fields(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "gateway.networking.k8s.io/v1"},
    kind={"const": "HTTPRoute"},
    metadata={"type": "object"},
    spec=_fields(
        "parentRefs",
        "rules",
        parentRefs=_list(_fields("name", name=_NAME, namespace=_NAME, sectionName=_NAME)),
        hostnames=_list(_NAME),
        rules=_list(_RULE),
    ),
)
