"""Schemas for routes of the Gateway API: the fields that the manifests use. No package has the complete ones."""

from typing import Any

_NAME = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    """Schema of an object with these properties only."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(items: Any) -> dict[str, Any]:
    """Schema of a list of the Gateway API: not empty, at most 16 items."""
    return {"type": "array", "minItems": 1, "maxItems": 16, "items": items}


_MATCH = fields(path=fields(type={"enum": ["Exact", "PathPrefix", "RegularExpression"]}, value=_NAME))
_BACKENDS = list_of(fields("name", "port", name=_NAME, port=_PORT, weight={"type": "integer", "minimum": 0}))
_METHOD = fields(method=fields("service", type={"enum": ["Exact", "RegularExpression"]}, service=_NAME, method=_NAME))


def _route(kind: str, rule: Any) -> Any:
    return fields(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        apiVersion={"const": "gateway.networking.k8s.io/v1"},
        kind={"const": kind},
        metadata={"type": "object"},
        spec=fields(
            "parentRefs",
            "rules",
            parentRefs=list_of(fields("name", name=_NAME, namespace=_NAME, sectionName=_NAME)),
            hostnames=list_of(_NAME),
            rules=list_of(rule),
        ),
    )


HTTP_ROUTE = _route(
    "HTTPRoute",
    fields(
        "backendRefs",
        matches=list_of(_MATCH),
        backendRefs=_BACKENDS,
        timeouts=fields(request=_DURATION, backendRequest=_DURATION),
    ),
)
GRPC_ROUTE = _route("GRPCRoute", fields("backendRefs", matches=list_of(_METHOD), backendRefs=_BACKENDS))
