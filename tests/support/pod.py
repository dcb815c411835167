"""Converts rendered manifests to the Pod that KServe would create, for `podman kube play`.

Differences from a cluster:
- Triton is the embedded one: manifests/components/cpu-triton over the overlay.
- The pod is in the host's network: no ports are declared. The containers share loopback, and have no address of their
  own.
- Ignored by podman 4.3, without a replacement: startupProbe, fsGroup (volumes belong to the user of their container
  anyway), sizeLimit and medium of an emptyDir (/dev/shm is on disk), limits of ephemeral storage, the service account.
- Ignored by podman 4.3, done by the tests: readinessProbe (requested over HTTP) and preStop (run before SIGTERM).
- livenessProbe is dropped: podman runs it with systemd's timers.
- Completed here, where podman 4.3 does less than the kubelet: `$(NAME)` in arguments, when NAME comes from a Secret;
  resourceFieldRef of another container.
"""

import base64
import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.manifests.pod import pod_of

Object = dict[str, Any]
Secrets = Mapping[str, Mapping[str, str]]

# Names of podman's volumes and secrets are global to the machine.
_OWN = "nereid-e2e-"
_LEFT_OUT = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports")


@dataclass(frozen=True)
class Pod:
    """A pod for podman.

    Attributes:
        name: of the pod.
        documents: the Pod and its ConfigMaps.
        secrets: content of each, by its name in podman.
        containers: of the manifest by name, with probes and lifecycle.
        grace_s: grace period of a stop.
    """

    name: str
    documents: list[Object]
    secrets: dict[str, str]
    containers: dict[str, Object]
    grace_s: int

    @property
    def yaml(self) -> str:
        """The input of `podman kube play -`."""
        return yaml.safe_dump_all(self.documents, sort_keys=False)


def render(overlay: Path) -> list[Object]:
    """The objects of `kubectl apply -k`."""
    run = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [found for found in yaml.safe_load_all(run.stdout) if found]


def convert(objects: list[Object], *, settings: Mapping[str, str], secrets: Secrets) -> Pod:
    """Convert the InferenceService of a render.

    Args:
        objects: rendered.
        settings: for this machine, over those of the ConfigMap.
        secrets: that a user creates: keys and values by name.
    """
    (service,) = (found for found in objects if found["kind"] == "InferenceService")
    predictor = pod_of(service)["spec"]
    containers: dict[str, Object] = {container["name"]: container for container in predictor["containers"]}
    configmaps = [
        deepcopy(found) | {"data": found["data"] | settings} for found in objects if found["kind"] == "ConfigMap"
    ]
    name = f"{service['metadata']['name']}-e2e"
    spec = {
        "hostNetwork": True,
        "securityContext": predictor.get("securityContext", {}),
        "terminationGracePeriodSeconds": predictor.get("terminationGracePeriodSeconds", 30),
        "containers": [_convert_container(container, containers, secrets) for container in containers.values()],
        "volumes": [volume | {"name": _OWN + volume["name"]} for volume in predictor["volumes"]],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    return Pod(
        name=name,
        documents=[*configmaps, pod],
        secrets={_OWN + secret: _encode(keys) for secret, keys in secrets.items()},
        containers=containers,
        grace_s=spec["terminationGracePeriodSeconds"],
    )


def _convert_container(container: Object, siblings: Mapping[str, Object], secrets: Secrets) -> Object:
    converted = {key: value for key, value in deepcopy(container).items() if key not in _LEFT_OUT}
    converted["imagePullPolicy"] = "Never"
    values = {entry["name"]: _value(entry, container, siblings, secrets) for entry in container.get("env", [])}
    for entry in converted.get("env", []):
        if "resourceFieldRef" in entry.get("valueFrom", {}):
            entry["value"] = values[entry["name"]]
            del entry["valueFrom"]
    for reference in _references(converted):
        reference["name"] = _OWN + reference["name"]
    for key in ("command", "args"):
        if key in converted:
            converted[key] = [_expand(argument, values) for argument in converted[key]]
    for mount in converted.get("volumeMounts", []):
        mount["name"] = _OWN + mount["name"]
    return converted


def _references(container: Object) -> Iterator[Object]:
    """References to Secrets."""
    for source in container.get("envFrom", []):
        if "secretRef" in source:
            yield source["secretRef"]
    for entry in container.get("env", []):
        if "secretKeyRef" in entry.get("valueFrom", {}):
            yield entry["valueFrom"]["secretKeyRef"]


def _value(entry: Object, container: Object, siblings: Mapping[str, Object], secrets: Secrets) -> str:
    """The value of a variable, as the kubelet computes it."""
    source = entry.get("valueFrom", {})
    if reference := source.get("secretKeyRef"):
        return secrets[reference["name"]][reference["key"]]
    if field := source.get("resourceFieldRef"):
        kind, resource = field["resource"].split(".")
        assert resource == "cpu", f"{field['resource']}: only CPUs are converted"
        of = siblings[field["containerName"]] if "containerName" in field else container
        # Rounded up to whole CPUs.
        return str(math.ceil(_cpus(of["resources"][kind][resource])))
    return str(entry["value"])


def _cpus(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def _expand(argument: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the value, `$$(NAME)` stays as `$(NAME)`, an unknown name stays as it is."""
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)",
        lambda found: "$" if found[1] is None else values.get(found[1], found[0]),
        argument,
    )


def _encode(keys: Mapping[str, str]) -> str:
    """A Kubernetes Secret in the format of podman 4.3."""
    return json.dumps({key: base64.b64encode(value.encode()).decode() for key, value in keys.items()})
