"""Images without a registry: built by buildah, imported into the containerd of each node."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from cluster import machine
from cluster.layout import NODES, ROOT, STATE, ClusterError, Host
from containers.base_stand_in import BuildError, make_base

_ARCHIVES = STATE / "images"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def of_program(name: str, program: Path, *, user: str = "65532:65532") -> None:
    """Load an image into the nodes with a program, its shared libraries, CA certificates and nothing else.

    Args:
        name: of the image, with its tag.
        program: the file, which becomes its entry point.
        user: and group that it runs as, as numbers.

    Raises:
        ClusterError: it cannot be built or imported.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = ["FROM scratch", f"COPY {program.name} /{program.name}"]
        shutil.copy(program, folder)
        for number, source in enumerate((_CERTIFICATES, *libraries_of(program))):
            shutil.copy(source, Path(folder, str(number)))
            lines.append(f"COPY {number} {source}")
        lines += [f"USER {user}", f'ENTRYPOINT ["/{program.name}"]']
        Path(folder, "Containerfile").write_text("\n".join(lines))
        buildah("build", "--quiet", "--timestamp=0", "--tag", name, "--file", f"{folder}/Containerfile", folder)
    put(name)


def libraries_of(program: Path) -> list[Path]:
    """The shared libraries of a program; empty where it is static."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [Path(each) for each in re.findall(r"(?:=> |^\s*)(/\S+) \(", done.stdout, re.MULTILINE)]


def build_own() -> None:
    """Build Nereid's images and load them into the nodes, under their names in the manifests.

    Raises:
        ClusterError: an image cannot be built or imported.
    """
    try:
        base = os.environ.get("PYTHON_IMAGE") or make_base("buildah")
    except BuildError as exc:
        raise ClusterError(f"{exc}; next: PYTHON_IMAGE=<an image>, see docs/container-images.md") from exc
    command = [sys.executable, "-m", "containers.build", "--engine=buildah"]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment() | {"PYTHON_IMAGE": base}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"make images: {done.stderr[max(0, done.stderr.find('error:')) :].strip()}")
    for image, aliases in own_images().items():
        put(image, *aliases)


def own_images() -> dict[str, list[str]]:
    """Our images by their names in buildah, with their names in the manifests."""
    files = [ROOT / "manifests/components" / name / "kustomization.yaml" for name in ("images", "cpu-triton")]
    images = [each for file in files for each in yaml.safe_load(file.read_text())["images"]]
    names = {each["name"]: f"{each['name']}:{each['newTag']}" for each in images}
    ours = [name for key, name in names.items() if key.startswith("nereid/")]
    aliases = {each: [each, f"registry.example.com/{each}"] for each in ours}
    # In place of NVIDIA's image, which would have to be pulled.
    aliases[names["nereid/cpu-triton"]].append(names["nvcr.io/nvidia/tritonserver"])
    return aliases


def put(name: str, *aliases: str) -> None:
    """Load an image of buildah into the nodes that lack it.

    Args:
        name: in buildah.
        aliases: in the cluster, where they differ.

    Raises:
        ClusterError: a node rejects it.
    """
    identity = buildah("images", "--format={{.ID}}", name).strip()
    first, *others = [_full(each) for each in aliases or (name,)]
    lacking = [node for node in NODES if _notes(node).get(name) != identity or not _has(node, first)]
    if not lacking:
        return
    _ARCHIVES.mkdir(parents=True, exist_ok=True)
    archive = _ARCHIVES / "image.tar"
    archive.unlink(missing_ok=True)
    buildah("push", "--quiet", name, f"docker-archive:{archive}:{first}")
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda node: _import(node, archive, first, others), lacking))
    archive.unlink()
    for node in lacking:
        (node.folder / "images.json").write_text(json.dumps(_notes(node) | {name: identity}))


def _import(node: Host, archive: Path, name: str, aliases: list[str]) -> None:
    ctr = ["ctr", "--namespace=k8s.io", "images"]
    machine.run(node, [*ctr, "import", str(archive)])
    if aliases:
        machine.run(node, [*ctr, "tag", "--force", name, *aliases])


def _has(node: Host, name: str) -> bool:
    """Whether a node still has an image: a kubelet with a nearly full disk removes unused images."""
    return name in machine.run(node, ["ctr", "--namespace=k8s.io", "images", "list", "--quiet"]).split()


def _notes(node: Host) -> dict[str, str]:
    """The images of a node, by buildah's ids."""
    try:
        return dict(json.loads((node.folder / "images.json").read_text()))
    except FileNotFoundError:
        return {}


def buildah(*arguments: str) -> str:
    """Run buildah and return what it prints.

    Raises:
        ClusterError: it failed.
    """
    done = subprocess.run(["buildah", *arguments], env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"buildah {arguments[0]}: got exit status {done.returncode}, expected 0: {done.stderr.strip()}"
        )
    return done.stdout


def _environment() -> dict[str, str]:
    """Variables of buildah for builds as root without namespaces, which a container or a small machine may lack."""
    return {**os.environ, "BUILDAH_ISOLATION": "chroot"}


def _full(name: str) -> str:
    """The name with the registry that containerd adds to one without."""
    first, _, rest = name.partition("/")
    return name if rest and ("." in first or ":" in first or first == "localhost") else f"docker.io/{name}"
