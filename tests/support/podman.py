"""podman in tests: images, and a pod that is started and stopped like by a kubelet."""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from containers.base_stand_in import make_base
from tests.support.pod import Pod
from tests.support.stack import ROOT

_TIMEOUT_S = 600.0

_ENVIRONMENT = os.environ | {"CONTAINERS_CONF": str(ROOT / "tests" / "support" / "containers.conf")}
# Builds as root without namespaces of their own, which a container or a small virtual machine may not have.
BUILD_ENVIRONMENT = {**_ENVIRONMENT, "BUILDAH_ISOLATION": "chroot"}


def podman(*arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002 - subprocess's word
    """Run a command of podman and return what it prints."""
    run = subprocess.run(
        ["podman", *arguments],
        env=_ENVIRONMENT,
        input=input,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0 or not check, f"podman {' '.join(arguments)}: {run.stderr}"
    return run.stdout.strip()


def build_images(*options: str) -> str:
    """Build the images like `make images`, with further options of it; returns its output."""
    base = os.environ.get("PYTHON_IMAGE") or make_base("podman")
    run = subprocess.run(
        [ROOT / ".venv/bin/python", "-m", "containers.build", "--engine", "podman", *options],
        cwd=ROOT,
        env=BUILD_ENVIRONMENT | {"PYTHON_IMAGE": base},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class Running:
    """A running pod; its containers have their names in the manifest."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod

    def inspect(self, container: str) -> dict[str, Any]:
        """The result of `podman inspect`."""
        (found,) = json.loads(podman("inspect", self._name(container)))
        return dict(found)

    def read(self, container: str, path: str) -> str:
        """Read a file of a container."""
        return podman("exec", self._name(container), "cat", path)

    def written(self, container: str) -> list[str]:
        """Paths that differ from the image, except those where podman mounts something."""
        mounts = [PurePosixPath(mount["Destination"]) for mount in self.inspect(container)["Mounts"]]
        # podman mounts /etc/hosts and similar files.
        mounts += [PurePosixPath("/etc") / name for name in ("hosts", "hostname", "resolv.conf")]
        allowed = {str(path) for mount in mounts for path in (mount, *mount.parents)}
        lines = podman("diff", self._name(container)).splitlines()
        return [line for line in lines if line.partition(" ")[2] not in allowed]

    def logs(self) -> str:
        """The end of each container's log."""
        ends = [
            subprocess.run(
                ["podman", "logs", "--tail", "25", self._name(name)],
                env=_ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            ).stdout
            for name in self.pod.containers
        ]
        return "\n".join(f"--- {name}\n{end}" for name, end in zip(self.pod.containers, ends, strict=True))

    def stop(self) -> dict[str, int]:
        """Stop like a kubelet, all containers at once: preStop, SIGTERM, SIGKILL after the grace period.

        Returns:
            The exit status of each; 137 after SIGKILL.
        """
        with ThreadPoolExecutor(len(self.pod.containers)) as threads:
            list(threads.map(self._stop, self.pod.containers))
        return {name: int(self.inspect(name)["State"]["ExitCode"]) for name in self.pod.containers}

    def _stop(self, container: str) -> None:
        before = self.pod.containers[container].get("lifecycle", {}).get("preStop")
        if before:
            podman("exec", self._name(container), *before["exec"]["command"], check=False)
        podman("stop", "--time", str(self.pod.grace_s), self._name(container))

    def _name(self, container: str) -> str:
        return f"{self.pod.name}-{container}"


@contextmanager
def play(pod: Pod) -> Iterator[Running]:
    """Start the pod, and remove it when the block ends."""
    remove(pod)
    try:
        for name, content in pod.secrets.items():
            podman("secret", "create", name, "-", input=content)
        podman("kube", "play", "-", input=pod.yaml)
        yield Running(pod)
    finally:
        remove(pod)


def remove(pod: Pod) -> None:
    """Remove the pod, its volumes and its secrets, where they exist."""
    podman("pod", "rm", "--force", "--time", "0", pod.name, check=False)
    volumes = [volume["name"] for volume in pod.documents[-1]["spec"]["volumes"]]
    for kind, names in (("volume", volumes), ("secret", list(pod.secrets))):
        for name in names:
            podman(kind, "rm", name, check=False)


def show(config: pytest.Config, what: Table | str) -> None:
    """Print past pytest's capture: the table is a purpose of the run."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        Console(width=110, highlight=False).print("", what, sep="\n")
