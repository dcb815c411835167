"""Validates objects against the strict schemas of their kinds: an unknown field is a fault.

| kinds | schema |
|---|---|
| Kubernetes' own | the package kubernetes-validate |
| KServe | its CRDs in ../shared/data/crds, where present, and its Python models, see kserve_models.py |
| Knative, KEDA, the Prometheus operator | the models of cloudcoil, generated from the CRDs |
| HTTPRoute, GRPCRoute of the Gateway API | of ours, see gateway.py |
| InterceptorRoute of KEDA's HTTP add-on | one of ours, see interceptor.py |
| External Secrets', Argo CD's, Argo Rollouts' | of ours, see operators.py |
"""

import importlib
import importlib.resources
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry, Resource

from tests.manifests.gateway import GRPC_ROUTE, HTTP_ROUTE
from tests.manifests.interceptor import INTERCEPTOR_ROUTE
from tests.manifests.operators import ANALYSIS_TEMPLATE, APPLICATION_SET, EXTERNAL_SECRET, ROLLOUT, SECRET_STORE
from tests.manifests.rendering import ROOT, Object, read_documents

# The oldest version that KServe's last releases support; newer ones have all of its fields.
KUBERNETES = "1.32"
CRDS = ROOT.parent / "shared" / "data" / "crds"
CRDS_MISSING = "KServe's CRDs (../shared/data/crds) are missing: only its Python models validate its kinds"

_KSERVE = "serving.kserve.io/"
_MODELS = {
    "serving.knative.dev/v1": "cloudcoil.models.knative_serving.serving.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
_OURS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): GRPC_ROUTE,
    ("http.keda.sh/v1beta1", "InterceptorRoute"): INTERCEPTOR_ROUTE,
    ("external-secrets.io/v1", "ExternalSecret"): EXTERNAL_SECRET,
    ("external-secrets.io/v1", "SecretStore"): SECRET_STORE,
    ("argoproj.io/v1alpha1", "ApplicationSet"): APPLICATION_SET,
    ("argoproj.io/v1alpha1", "Rollout"): ROLLOUT,
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): ANALYSIS_TEMPLATE,
}
_DEEPEST_FAULT = 12
_TIMEOUT_S = 60
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
    "additionalProperties": False,
}


def find_faults(each: Object, crds: Path = CRDS) -> list[str]:
    """Faults of an object: `path.of.the.field: fault`."""
    try:
        validators = _validators(each["apiVersion"], each["kind"], crds)
    except LookupError as exc:
        return [str(exc)]
    faults = [_say(error) for validator in validators for error in validator.iter_errors(each)]
    # Two schemas may report the same fault.
    return [*_nulls(each), *dict.fromkeys(faults)]


def _say(error: ValidationError) -> str:
    # Of an anyOf, the branch with the deepest error is the intended one.
    for _ in range(_DEEPEST_FAULT):
        if not error.context:
            break
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), inner.validator != "type"))
    return f"{_dotted(error.absolute_path)}: {error.message}"


def _nulls(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Keys without a value: schemas allow them, and the API server drops them silently."""
    if node is None:
        yield f"{_dotted(path)}: has no value"
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _nulls(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _nulls(value, (*path, index))


def _dotted(path: Any) -> str:
    return ".".join(str(part) for part in path) or "(object)"


@cache
def _validators(api_version: str, kind: str, crds: Path) -> list[Validator]:
    """Raises: LookupError: the kind is unknown."""
    if api_version.startswith(_KSERVE):
        by_model = _kserve_models().get(f"{api_version} {kind}")
        schemas = [_crd(api_version, kind, crds)] if crds.is_dir() else []
        schemas += [by_model] if by_model else []
    elif api_version in _MODELS:
        schemas = [_model(api_version, kind)]
    elif (api_version, kind) in _OURS:
        schemas = [_OURS[api_version, kind]]
    else:
        return [_kubernetes(api_version, kind)]
    if not schemas:
        raise LookupError(f"{api_version} {kind}: no model in the package kserve")
    return [Draft202012Validator(schema) for schema in schemas]


def _model(api_version: str, kind: str) -> dict[str, Any]:
    model = getattr(importlib.import_module(_MODELS[api_version]), kind, None)
    if model is None:
        raise LookupError(f"{api_version} {kind}: no such kind in {_MODELS[api_version]}")
    schema: dict[str, Any] = close(model.model_json_schema())
    return schema


def _kubernetes(api_version: str, kind: str) -> Validator:
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part)
    folder = importlib.resources.files("kubernetes_validate").joinpath(
        "kubernetes-json-schema", f"v{KUBERNETES}.0-local-strict"
    )
    file = folder.joinpath(f"{name}.json")
    if not file.is_file():
        raise LookupError(f"{api_version} {kind}: no schema in Kubernetes {KUBERNETES}, KServe or {', '.join(_MODELS)}")
    definitions = Resource.from_contents(json.loads(folder.joinpath("_definitions.json").read_text()))
    return Draft202012Validator(json.loads(file.read_text()), registry=definitions @ Registry())


def _crd(api_version: str, kind: str, crds: Path) -> dict[str, Any]:
    group, _, version = api_version.partition("/")
    path = crds / f"{group}_{kind.lower()}s.yaml"
    if not path.is_file():
        raise LookupError(f"{api_version} {kind}: no {path.name} in {crds}")
    (definition,) = read_documents(path.read_text())
    found = next((each for each in definition["spec"]["versions"] if each["name"] == version), None)
    if found is None:
        raise LookupError(f"{api_version} {kind}: no such version in {path}")
    schema: dict[str, Any] = close(found["schema"]["openAPIV3Schema"])
    # Checked by the API server; a CRD never has its fields.
    schema["properties"]["metadata"] = _METADATA
    return schema


def close(schema: Any) -> Any:
    """A structural schema, or one of pydantic, in which objects reject unknown fields and nulls."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in {"default", "nullable"}}
    closed = {
        key: {name: close(each) for name, each in value.items()} if key in {"properties", "$defs"} else close(value)
        for key, value in kept.items()
    }
    if schema.get("x-kubernetes-int-or-string"):
        closed.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    names_fields = schema.get("properties") and "additionalProperties" not in schema
    if names_fields and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    # Pydantic's optional type; with one branch left, a fault inside is reported directly.
    branches = [each for each in closed.get("anyOf", []) if each != {"type": "null"}]
    if len(branches) == 1 and len(branches) < len(closed["anyOf"]):
        return {key: value for key, value in closed.items() if key != "anyOf"} | branches[0]
    return closed


@cache
def _kserve_models() -> dict[str, dict[str, Any]]:
    """Schemas of KServe's models; from another process, because the SDK's protobufs conflict with Triton's."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.manifests.kserve_models"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    schemas: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return schemas
