"""Schema of InterceptorRoutes of KEDA's HTTP add-on 0.15: the fields that the manifests use."""

from typing import Any

from tests.manifests.gateway import fields, list_of

_NAME = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$"}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_TARGET_VALUE = fields("targetValue", targetValue={"type": "integer", "minimum": 1})
_TARGET: dict[str, Any] = fields("service", service=_NAME, port=_PORT, portName=_NAME)
_METRIC: dict[str, Any] = fields(concurrency=_TARGET_VALUE, requestRate=_TARGET_VALUE)
_RULE = fields(
    hosts=list_of(_NAME),
    paths=list_of(fields("value", value=_NAME)),
    headers=list_of(fields("name", name=_NAME, value={"type": "string"})),
)
INTERCEPTOR_ROUTE = fields(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "http.keda.sh/v1beta1"},
    kind={"const": "InterceptorRoute"},
    metadata={"type": "object"},
    spec=fields(
        "scalingMetric",
        "target",
        # Validation rules of the CRD: exactly one of the two, at least one of the two.
        target={**_TARGET, "oneOf": [{"required": ["port"]}, {"required": ["portName"]}]},
        scalingMetric={**_METRIC, "minProperties": 1},
        rules=list_of(_RULE),
        timeouts=fields(readiness=_DURATION, request=_DURATION, responseHeader=_DURATION),
    ),
)
