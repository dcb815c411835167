"""compose.yaml as compose reads it, and run by podman-compose with stand-ins for the images of others."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from containers.base_stand_in import make_base
from tests.support.podman import BUILD_ENVIRONMENT, podman
from tests.support.stack import ROOT

FILE = ROOT / "compose.yaml"
FOLDER = ROOT / "tests" / "e2e" / "compose"
LOCK = "tests/e2e/compose/requirements.txt"
BIN = ROOT / ".venv-compose" / "bin"
PROJECT = "nereid-compose-e2e"
_TIMEOUT_S = 1800.0  # of a build, with nothing built before
_SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/lib/podman"
# Program: its Debian package.
_PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "prometheus": "prometheus",
}
_STAND_INS = ("seaweedfs", "prometheus", "grafana")


def read_services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml without a variable set; `environment` has what `env_file` gives, as strings."""
    text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", FILE.read_text()).replace("$$", "$")
    services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    for service in services.values():
        values = {}
        if "env_file" in service:
            lines = (ROOT / service["env_file"]).read_text().splitlines()
            values = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
        service["environment"] = values | {name: str(value) for name, value in service.get("environment", {}).items()}
    return services


def split_command(command: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """What of a command is no option, and its options; of one that is given twice the last, as Triton takes it."""
    options: dict[str, list[str]] = {}
    for name, _, value in (argument.partition("=") for argument in command if argument.startswith("--")):
        options[name] = [*options.get(name, []), value] if name == "--model-repository" else [value]
    return [argument for argument in command if not argument.startswith("--")], options


def rules_in_prometheus(service: dict[str, Any]) -> Any:
    """What Prometheus gets for its rules: the `sed` of its service, run on the file of the manifests."""
    (source,) = (volume.split(":")[0] for volume in service["volumes"] if ":/etc/nereid/rules.yaml" in volume)
    (script,) = re.findall("sed '([^']+)'", service["entrypoint"][2])
    run = subprocess.run(["sed", script, ROOT / source], capture_output=True, check=True)
    return yaml.safe_load(run.stdout)


def find_missing() -> list[str]:
    """A sentence for each missing requirement; empty where compose.yaml can run."""
    missing = [] if os.geteuid() == 0 else ["root: rootless podman is not supported here; next: sudo make e2e-compose"]
    packages = [package for program, package in _PROGRAMS.items() if not shutil.which(program, path=_SYSTEM_PATH)]
    if not os.environ.get("PYTHON_IMAGE") and not shutil.which("debootstrap", path=_SYSTEM_PATH):
        packages.append("debootstrap")
    if packages:
        missing.append(f"{', '.join(packages)}; next: apt-get install --no-install-recommends {' '.join(packages)}")
    if not (BIN / "podman-compose").exists():
        missing.append("podman-compose in .venv-compose; next: make .venv-compose/.installed")
    return missing


class Composed:
    """The services of compose.yaml in a project of their own.

    Args:
        ports: variables of compose.yaml, and their values.
    """

    def __init__(self, ports: dict[str, int]) -> None:
        self._environment = BUILD_ENVIRONMENT | {"PATH": f"{BIN}:{_SYSTEM_PATH}", "PYTHON_IMAGE": base()}
        self._environment |= {name: str(port) for name, port in ports.items()}

    def compose(self, *arguments: str) -> str:
        """Run a command of compose, and return what it prints."""
        files = ["--file", str(FILE), "--file", str(FOLDER / "stand-ins.yaml")]
        run = subprocess.run(
            [BIN / "podman-compose", "--project-name", PROJECT, *files, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert run.returncode == 0, f"{arguments}: {run.stdout[-3000:]}{run.stderr[-3000:]}"
        return run.stdout + run.stderr

    def name(self, service: str) -> str:
        """The container of a service."""
        return f"{PROJECT}_{service}_1"

    def logs(self) -> str:
        """The end of each container's log."""
        return self.compose("logs", "--tail", "25")


@cache
def base() -> str:
    """The base of all images."""
    return os.environ.get("PYTHON_IMAGE") or make_base("podman")


def build_stand_ins() -> None:
    """Build the images that stand in for others', from programs of package indices."""
    with tempfile.TemporaryDirectory() as context:
        for program, path in (("busybox", None), ("prometheus", None), ("weed", str(BIN))):
            found = shutil.which(program, path=path)
            assert found, program
            shutil.copy(found, Path(context, program))
        for target in _STAND_INS:
            subprocess.run(
                [
                    *("podman", "build", "--quiet", "--build-arg", f"BASE={base()}", "--target", target),
                    *("--tag", f"localhost/nereid/stand-in-{target}", "--file", str(FOLDER / "Containerfile"), context),
                ],
                env=BUILD_ENVIRONMENT,
                capture_output=True,
                check=True,
            )


def left_behind() -> str:
    """Containers, volumes and networks of the project that are there."""
    of_project = f"name={PROJECT}"
    return "\n".join(
        podman(*listing, "--filter", of_project, "--format", "{{.Name}}" if listing[0] != "ps" else "{{.Names}}")
        for listing in (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    ).strip()


if __name__ == "__main__":
    if found := find_missing():
        sys.exit("\n".join(f"error: compose needs {sentence}" for sentence in found))
