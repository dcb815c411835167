"""Whether a cluster's Knative lets an overlay in: `python manifests/check_cluster.py manifests/overlays/serverless`.

Knative refuses pod fields whose feature is off. What is needed is read in the rendered overlay, what is on in the
cluster's ConfigMaps; each feature that is off is printed with the command that turns it on.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

NAMESPACE = "knative-serving"
FEATURES, AUTOSCALER, DEFAULTS = "config-features", "config-autoscaler", "config-defaults"
_TIMEOUT_S = 60
_MODE = "serving.kserve.io/deploymentMode"
# Knative serving 1.21. Everything else that a pod may have is off until somebody turns it on.
_ON = {"multi-container", "kubernetes.podspec-volumes-emptydir"}
# Fields of a pod that stand for a feature of their own.
_POD = {
    field: f"kubernetes.podspec-{field.lower()}"
    for field in (
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "nodeSelector",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "securityContext",
        "shareProcessNamespace",
        "tolerations",
        "topologySpreadConstraints",
    )
} | {"initContainers": "kubernetes.podspec-init-containers"}
_VOLUMES = {
    "csi": "kubernetes.podspec-volumes-csi",
    "emptyDir": "kubernetes.podspec-volumes-emptydir",
    "hostPath": "kubernetes.podspec-volumes-hostpath",
    "image": "kubernetes.podspec-volumes-image",
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
}


class CheckError(Exception):
    """The overlay or the cluster cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Need:
    """A key of a ConfigMap that must have a value.

    Attributes:
        configmap: its name.
        value: what turns it on.
        reason: who needs it.
        at_least: whether a larger number will do as well.
    """

    configmap: str
    key: str
    value: str
    reason: str
    at_least: bool = False

    def met(self, data: Mapping[str, str]) -> bool:
        """Whether the ConfigMap has it, or leaves it to a default that will do."""
        if self.at_least:
            return int(data.get(self.key, 600)) >= int(self.value)
        value = data.get(self.key, "enabled" if self.key in _ON else "disabled").lower()
        if self.configmap == AUTOSCALER:
            return data.get(self.key, "true").lower() == "true"
        return value in {"enabled", "allowed"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is needed and whether it is on; 0 when all is, 1 when not, 2 when neither can be known."""
    parser = argparse.ArgumentParser(prog="check_cluster.py", description="Does Knative let this overlay in?")
    parser.add_argument("overlay", help="a kustomization; -: rendered objects from standard input")
    parser.add_argument("--configmaps", metavar="FILE", help="as `kubectl get -o json` prints them, instead of asking")
    args = parser.parse_args(arguments)
    try:
        needs = find_needs(render(args.overlay))
        if not needs:
            print(f"{args.overlay}: nothing of it is served by Knative")
            return 0
        configmaps = read_configmaps(args.configmaps)
    except CheckError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    missing = []
    for need in needs:
        met = need.met(configmaps[need.configmap].get("data") or {})
        print(f"{'ok ' if met else 'OFF'}  {need.configmap}  {need.key}={need.value}  ({need.reason})")
        if not met:
            missing.append(need)
    for command in remedies(missing, configmaps):
        print(f"next: {command}")
    return 1 if missing else 0


def find_needs(objects: Sequence[Mapping[str, Any]]) -> list[Need]:
    """What the InferenceServices of an overlay that Knative serves ask of it."""
    needs: dict[tuple[str, str], Need] = {}
    for service in objects:
        annotations = service["metadata"].get("annotations") or {}
        if service["kind"] != "InferenceService" or annotations.get(_MODE, "Knative") not in {"Knative", "Serverless"}:
            continue
        for component in ("predictor", "transformer"):
            if spec := service["spec"].get(component):
                for need in _of_component(spec, annotations):
                    needs.setdefault((need.configmap, need.key), need)
    return list(needs.values())


def _of_component(spec: Mapping[str, Any], annotations: Mapping[str, str]) -> Iterator[Need]:
    for key, reason in _features(spec):
        yield Need(FEATURES, key, "enabled", reason)
    if spec.get("minReplicas") == 0:
        yield Need(AUTOSCALER, "enable-scale-to-zero", "true", "minReplicas: 0")
    if annotations.get("autoscaling.knative.dev/initial-scale") == "0":
        yield Need(AUTOSCALER, "allow-zero-initial-scale", "true", "initial-scale: 0")
    if timeout := spec.get("timeout"):
        yield Need(DEFAULTS, "max-revision-timeout-seconds", str(timeout), f"timeout: {timeout}", at_least=True)


def _features(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each feature that a pod needs, and the field that needs it."""
    for field, flag in _POD.items():
        if pod.get(field):
            yield flag, field
    containers = pod.get("containers") or []
    if len(containers) > 1:
        yield "multi-container", f"{len(containers)} containers"
    for container in containers:
        name = container["name"]
        for variable in container.get("env") or []:
            for source in {"fieldRef", "resourceFieldRef"} & (variable.get("valueFrom") or {}).keys():
                yield "kubernetes.podspec-fieldref", f"{source} of {name}'s {variable['name']}"
        if len(containers) > 1 and not container.get("ports"):
            for probe in {"livenessProbe", "readinessProbe"} & container.keys():
                yield "multi-container-probing", f"{probe} of {name}"
        if ((container.get("securityContext") or {}).get("capabilities") or {}).get("add"):
            yield "kubernetes.containerspec-addcapabilities", f"capabilities of {name}"
    for volume in pod.get("volumes") or []:
        for kind in _VOLUMES.keys() & volume.keys():
            yield _VOLUMES[kind], f"volume {volume['name']}"
        if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("readOnly"):
            yield "kubernetes.podspec-persistent-volume-write", f"volume {volume['name']} is written"


def remedies(missing: Sequence[Need], configmaps: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The commands that turn on what is missing."""
    for name in dict.fromkeys(need.configmap for need in missing):
        values = {need.key: need.value for need in missing if need.configmap == name}
        owners = configmaps[name].get("metadata", {}).get("ownerReferences") or []
        operator = next((owner["name"] for owner in owners if owner["kind"] == "KnativeServing"), None)
        if operator:  # it would undo a change of the ConfigMap
            patch: Any = {"spec": {"config": {name.removeprefix("config-"): values}}}
            target = f"knativeserving {operator}"
        else:
            patch, target = {"data": values}, f"configmap {name}"
        yield f"kubectl patch {target} -n {NAMESPACE} --type merge -p '{json.dumps(patch, separators=(',', ':'))}'"


def render(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay.

    Raises:
        CheckError: kustomize cannot render it.
    """
    text = sys.stdin.read() if overlay == "-" else _kubectl("kustomize", overlay)
    try:
        return [entry for entry in yaml.safe_load_all(text) if entry]
    except yaml.YAMLError as exc:
        raise CheckError(f"{overlay}: got no YAML ({exc}), expected rendered objects") from exc


def read_configmaps(file: str | None) -> dict[str, dict[str, Any]]:
    """Knative's three ConfigMaps by name, from a file or from the cluster.

    Raises:
        CheckError: they are not there.
    """
    names = (FEATURES, AUTOSCALER, DEFAULTS)
    try:
        if file:
            with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - /dev/stdin too
                content = json.load(opened)
        else:
            content = json.loads(_kubectl("get", "configmap", "-n", NAMESPACE, "-o", "json"))
    except OSError as exc:
        raise CheckError(f"{file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise CheckError(f"{file or 'kubectl'}: got no JSON ({exc}), expected ConfigMaps") from exc
    found = {entry["metadata"]["name"]: entry for entry in content.get("items", [content])}
    if FEATURES not in found:
        raise CheckError(
            f"namespace {NAMESPACE}: got ConfigMaps {', '.join(found) or 'none'}, expected {', '.join(names)}; next: "
            "install Knative Serving, or look at the context (kubectl config current-context)"
        )
    return {name: found.get(name, {}) for name in names}


def _kubectl(*arguments: str) -> str:
    command = ["kubectl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    except FileNotFoundError as exc:
        raise CheckError("kubectl is absent; next: https://kubernetes.io/docs/tasks/tools") from exc
    except subprocess.TimeoutExpired as exc:
        raise CheckError(f"{' '.join(command)}: no answer within {_TIMEOUT_S} s") from exc
    except subprocess.CalledProcessError as exc:
        words = (exc.stderr.strip() or "failed").splitlines()[-1].removeprefix("error: ")  # before it: the same, often
        raise CheckError(f"{' '.join(command)}: {words}") from exc
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
