"""Converts a task definition of ECS to a Pod for `podman kube play`.

Differences from Fargate:
- The pod is in the host's network: its loopback is the task's.
- Volumes belong to root, as on Fargate, except those over a folder of the image, which podman copies.
- `dependsOn` START and healthy is not followed: containers start together after those that end by themselves. Health
  checks are run by the test. No awslogs, no restart policy, no ephemeral storage.
- Secrets are values of the environment; in place of the task's role, keys of S3.
"""

from collections.abc import Mapping
from typing import Any

from tests.support.pod import Object, Pod

_OWN = "nereid-task-"


def convert(definition: Mapping[str, Any], *, secrets: Mapping[str, str], settings: Mapping[str, str]) -> Pod:
    """Convert a task definition.

    Args:
        definition: as ECS describes it.
        secrets: values by the names of their variables.
        settings: further variables of the synchroniser.
    """
    described = {each["name"]: each for each in definition["containerDefinitions"]}
    ending = {
        each["containerName"]
        for container in described.values()
        for each in container.get("dependsOn", [])
        if each["condition"] == "SUCCESS"
    }
    converted = {
        name: _convert(container, secrets, settings if name == "synchroniser" else {})
        for name, container in described.items()
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "nereid-task"},
        "spec": {
            "hostNetwork": True,
            "terminationGracePeriodSeconds": max(each.get("stopTimeout", 30) for each in described.values()),
            "restartPolicy": "Never",
            "initContainers": [converted[name] for name in ending],
            "containers": [each for name, each in converted.items() if name not in ending],
            "volumes": [{"name": _OWN + each["name"], "emptyDir": {}} for each in definition["volumes"]],
        },
    }
    serving = {name: each for name, each in described.items() if name not in ending}
    return Pod("nereid-task", [pod], {}, serving, pod["spec"]["terminationGracePeriodSeconds"])  # type: ignore[index]


def _convert(container: Mapping[str, Any], secrets: Mapping[str, str], settings: Mapping[str, str]) -> Object:
    user, _, group = container["user"].partition(":")
    given = {each["name"]: each["value"] for each in container.get("environment", [])}
    given |= {each["name"]: secrets[each["name"]] for each in container.get("secrets", [])} | dict(settings)
    linux = container.get("linuxParameters", {})
    converted: Object = {
        "name": container["name"],
        "image": container["image"],
        "imagePullPolicy": "Never",
        "env": [{"name": name, "value": value} for name, value in given.items()],
        "args": container.get("command", []),
        "securityContext": {
            "runAsUser": int(user),
            "runAsGroup": int(group),
            "readOnlyRootFilesystem": container["readonlyRootFilesystem"],
            "capabilities": linux.get("capabilities", {}),
            "allowPrivilegeEscalation": False,
        },
        "volumeMounts": [
            {
                "name": _OWN + each["sourceVolume"],
                "mountPath": each["containerPath"],
                "readOnly": each.get("readOnly", False),
            }
            for each in container["mountPoints"]
        ],
    }
    if "entryPoint" in container:
        converted["command"] = container["entryPoint"]
    if "memory" in container:
        converted["resources"] = {"limits": {"memory": f"{container['memory']}Mi"}}
    return converted
