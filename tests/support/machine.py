"""Requirements of the pod on this machine: root, podman and its programs, and free ports of the host's network."""

import os
import shutil
import socket
import sys
from collections.abc import Sequence

# Program: its Debian package.
_PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "catatonit": "catatonit",
    "curl": "curl",
    "ss": "iproute2",
}
# Builds the base image; not needed with PYTHON_IMAGE.
_BASE = {"debootstrap": "debootstrap"}
_SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/libexec/podman"
PORTS = {
    8000: "Triton's HTTP",
    8001: "Triton's gRPC",
    8002: "Triton's metrics, at the synchroniser",
    8003: "the synchroniser",
    8004: "Triton's metrics",
    8080: "the transformer's HTTP",
    8081: "the transformer's gRPC",
}


def find_missing() -> list[str]:
    """A sentence for each missing requirement; empty where the pod can run."""
    missing = find_missing_programs()
    if not shutil.which("kubectl"):
        missing.append("kubectl, which renders the manifests; next: https://kubernetes.io/docs/tasks/tools/")
    return missing + find_taken_ports(list(PORTS))


def find_missing_programs() -> list[str]:
    """A sentence for each missing requirement of a container; empty where one can run."""
    missing = [] if os.geteuid() == 0 else ["root: rootless podman is not supported here; next: sudo make e2e-pod"]
    programs = _PROGRAMS if os.environ.get("PYTHON_IMAGE") else _PROGRAMS | _BASE
    packages = [package for program, package in programs.items() if not shutil.which(program, path=_SYSTEM_PATH)]
    if packages:
        missing.append(f"{', '.join(packages)}; next: apt-get install --no-install-recommends {' '.join(packages)}")
    return missing


def find_taken_ports(ports: Sequence[int]) -> list[str]:
    """A sentence for each port in use."""
    taken = []
    for port in ports:
        try:
            socket.create_server(("0.0.0.0", port)).close()  # noqa: S104 - any address of it counts
        except OSError as exc:
            remedy = f"stop what listens there (ss -ltnp 'sport = :{port}')"
            taken.append(f"port {port} ({PORTS[port]}): {os.strerror(exc.errno or 0)}; next: {remedy}")
    return taken


if __name__ == "__main__":
    if found := find_missing():
        sys.exit("\n".join(f"error: the pod needs {sentence}" for sentence in found))
