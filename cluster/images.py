"""Images without a registry: made by buildah, put into the containerd of each node."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster import machine
from cluster.layout import NODES, STATE, ClusterError

# Builds as root without namespaces of its own: inside another container or a small virtual machine there are none.
ENVIRONMENT = os.environ | {"BUILDAH_ISOLATION": "chroot"}
_ARCHIVES = STATE / "images"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def of_program(name: str, program: Path, *, user: str = "65532:65532", files: Sequence[tuple[Path, str]] = ()) -> None:
    """Put an image into the nodes that has a static program and nothing else but certificates.

    Args:
        name: of the image, with its tag.
        program: the file, which becomes its entry point.
        user: whom it runs as, as numbers.
        files: more files or folders, and where they go.

    Raises:
        ClusterError: it cannot be built or imported.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = ["FROM scratch", f"COPY {program.name} /{program.name}"]
        shutil.copy(program, folder)
        for number, (source, target) in enumerate(((_CERTIFICATES, str(_CERTIFICATES)), *files)):
            shutil.copy(source, Path(folder, str(number)))
            lines.append(f"COPY {number} {target}")
        lines += [f"USER {user}", f'ENTRYPOINT ["/{program.name}"]']
        Path(folder, "Containerfile").write_text("\n".join(lines))
        buildah("build", "--quiet", "--tag", name, "--file", f"{folder}/Containerfile", folder)
    put(name)


def put(name: str, alias: str = "") -> None:
    """Put an image that buildah has into the nodes.

    Args:
        name: what buildah calls it.
        alias: what the cluster calls it, where that differs.

    Raises:
        ClusterError: a node does not take it.
    """
    _ARCHIVES.mkdir(parents=True, exist_ok=True)
    archive = _ARCHIVES / "image.tar"
    archive.unlink(missing_ok=True)
    buildah("push", "--quiet", name, f"docker-archive:{archive}:{_full(alias or name)}")
    for node in NODES:
        machine.run(node, ["ctr", "--namespace=k8s.io", "images", "import", str(archive)])
    archive.unlink()


def buildah(*arguments: str) -> str:
    """Run buildah and return what it prints.

    Raises:
        ClusterError: it failed.
    """
    done = subprocess.run(["buildah", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"buildah {arguments[0]}: got exit status {done.returncode}, expected 0: {done.stderr.strip()}"
        )
    return done.stdout


def _full(name: str) -> str:
    """With the registry that containerd gives a name without one."""
    first, _, rest = name.partition("/")
    return name if rest and ("." in first or ":" in first or first == "localhost") else f"docker.io/{name}"
