"""KServe's Python models as JSON Schemas on stdout: `python -m tests.manifests.kserve_models`.

The models (and those of the Kubernetes client in them) are generated from KServe's types, but accept any key. They do
not have the required fields; the CRDs do.
"""

import json
import re
from typing import Any

import kserve.models
import kubernetes.client.models

KINDS = {
    "serving.kserve.io/v1beta1 InferenceService": "V1beta1InferenceService",
    "serving.kserve.io/v1alpha1 ServingRuntime": "V1alpha1ServingRuntime",
    "serving.kserve.io/v1alpha1 ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
}

_QUANTITY: dict[str, Any] = {"type": ["string", "number"]}
_PRIMITIVES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "object": {},
    "ResourceQuantity": _QUANTITY,
    "V1beta1MetricQuantity": _QUANTITY,
}
# Names of the Go types that the generator did not map.
_RENAMED = re.compile(r"^K8sIoApi(?:Apps|Autoscaling)")
_LIST = re.compile(r"^[lL]ist\[(.*)\]$")
_DICT = re.compile(r"^[dD]ict[(\[]\w+, (.*)[)\]]$")


def main() -> None:
    """Print `{"<apiVersion> <kind>": schema}`."""
    definitions: dict[str, Any] = {}
    for name in KINDS.values():
        _define(name, definitions)
    print(json.dumps({kind: {"$ref": f"#/$defs/{name}", "$defs": definitions} for kind, name in KINDS.items()}))


def _define(name: str, definitions: dict[str, Any]) -> None:
    model = getattr(kserve.models, name, None) or getattr(kubernetes.client.models, name, None)
    if model is None:
        definitions[name] = {}  # Knative's status and similar types
        return
    definitions[name] = {"type": "object", "additionalProperties": False, "properties": {}}
    for attribute, type_name in model.openapi_types.items():
        # A number is a quantity too, contrary to the generated type.
        has_quantities = name.endswith("ResourceRequirements") and attribute in {"limits", "requests"}
        of_type = _of_type("dict(str, ResourceQuantity)" if has_quantities else type_name, definitions)
        definitions[name]["properties"][model.attribute_map[attribute]] = of_type


def _of_type(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    if found := _LIST.match(name):
        return {"type": "array", "items": _of_type(found[1], definitions)}
    if found := _DICT.match(name):
        return {"type": "object", "additionalProperties": _of_type(found[1], definitions)}
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    name = _RENAMED.sub("", name)
    if name not in definitions:
        _define(name, definitions)
    return {"$ref": f"#/$defs/{name}"}


if __name__ == "__main__":
    main()
