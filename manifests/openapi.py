"""Writes base/openapi.json: merge keys of lists, by which kustomize merges a patch of a part of an object.

Without it a patch of one container replaces all of them: kustomize knows Kubernetes' own kinds only. The file replaces
its built-in schema, so those kinds are in it too; overlays inherit it from base.

    python manifests/openapi.py > manifests/base/openapi.json
"""

import importlib.resources
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

KUBERNETES = "1.32"
_MERGED = ("x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy")
_KIND = "x-kubernetes-group-version-kind"
_POD = "io.k8s.api.core.v1.PodSpec"
_CONTAINER = "io.k8s.api.core.v1.Container"
_HERE = "#/definitions/"

Schema = Mapping[str, Any]


def compose() -> dict[str, Any]:
    """The content of the file."""
    definitions = _kubernetes()
    kept = _find_merging(definitions)
    pruned = {name: _prune(definitions[name], kept) for name in sorted(kept)}
    return {"definitions": pruned | _kserve(pruned[_POD]["properties"])}


def _kubernetes() -> dict[str, Schema]:
    folder = importlib.resources.files("kubernetes_validate").joinpath("kubernetes-json-schema")
    text = folder.joinpath(f"v{KUBERNETES}.0-local-strict", "_definitions.json").read_text()
    definitions: dict[str, Schema] = json.loads(text)["$defs"]
    return definitions


def _find_merging(definitions: Mapping[str, Schema]) -> set[str]:
    """Definitions with merged lists, and those that refer to them; no lists of objects, and no other schemas."""
    kept = {name for name, schema in definitions.items() if any(_MERGED[0] in each for each in _walk(schema))}
    while True:
        leading = {name for name, schema in definitions.items() if any(_target(each) in kept for each in _walk(schema))}
        if leading <= kept:
            return {name for name in kept if not name.endswith("List") and ".api." in name}
        kept |= leading


def _walk(schema: Any) -> Iterator[Schema]:
    if isinstance(schema, dict):
        yield schema
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _walk(each)


def _target(schema: Schema) -> str:
    """Name of the referenced definition; empty without one."""
    reference = schema.get("$ref")  # JSONSchemaProps has a property of this name
    return reference.rpartition("/")[2] if isinstance(reference, str) else ""


def _prune(schema: Schema, kept: set[str]) -> dict[str, Any]:
    """Parts of a schema with merge keys, or with references to them; empty without any."""
    pruned: dict[str, Any] = {name: schema[name] for name in (*_MERGED, _KIND) if name in schema}
    if _target(schema) in kept:
        pruned["$ref"] = _HERE + _target(schema)
    if items := "items" in schema and _prune(schema["items"], kept):
        pruned["items"] = items
    properties = {name: _prune(each, kept) for name, each in schema.get("properties", {}).items()}
    if properties := {name: each for name, each in properties.items() if each}:
        pruned["properties"] = properties
    if pruned and "$ref" not in pruned:
        pruned["type"] = "array" if "items" in schema else "object"
    return pruned


def _kserve(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A component: a PodSpec with additional fields, of which `model` is a container."""
    component = {"type": "object", "properties": {**pod, "model": {"$ref": _HERE + _CONTAINER}}}
    return {
        "io.kserve.v1beta1.InferenceService": _describe(
            "v1beta1", "InferenceService", dict.fromkeys(("predictor", "transformer", "explainer"), component)
        ),
        "io.kserve.v1alpha1.ServingRuntime": _describe("v1alpha1", "ServingRuntime"),
        "io.kserve.v1alpha1.ClusterServingRuntime": _describe("v1alpha1", "ClusterServingRuntime"),
    }


def _describe(version: str, kind: str, components: Mapping[str, Any] | None = None) -> dict[str, Any]:
    spec = {"type": "object", "properties": components} if components else {"$ref": _HERE + _POD}
    gvk = {"group": "serving.kserve.io", "version": version, "kind": kind}
    return {"type": "object", _KIND: [gvk], "properties": {"spec": spec}}


if __name__ == "__main__":
    json.dump(compose(), sys.stdout, indent=1, sort_keys=True)
    print()
