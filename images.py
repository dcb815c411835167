"""`make images`: build the container images with docker, podman or buildah, and say how large they are.

Where packages come from is the environment's: PIP_INDEX_URL and UV_DEFAULT_INDEX reach the build, and no image. What
comes from there is held against hashes; the base against the digest in the Dockerfiles, or in PYTHON_IMAGE.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent
# In the order in which they are tried.
ENGINES = ("docker", "podman", "buildah")
# Build arguments that are taken from the environment where it has them.
_PASSED = ("PYTHON_IMAGE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
DEBIAN_BASE = "localhost/nereid/base:bookworm"
# What the Dockerfiles expect of a base image; libfribidi0 by what transformer/Dockerfile says.
_BASE_PACKAGES = "python3,python3-venv,ca-certificates,libfribidi0"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_UNNEEDED = (
    "dev",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt/lists",
)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")


class Image(NamedTuple):
    """One image.

    Attributes:
        name: without registry and tag.
        dockerfile: relative to the root of the project.
        target: stage of it; the last where empty.
        suffix: of the tag.
        what: runs in it.
    """

    name: str
    dockerfile: str
    target: str
    suffix: str
    what: str


IMAGES = (
    Image("transformer", "transformer/Dockerfile", "", "", "the transformer"),
    Image("predictor", "predictor/Dockerfile", "synchroniser", "", "the synchroniser"),
    Image("predictor", "predictor/Dockerfile", "embedded", "-embedded", "the embedded Triton, for tests"),
    Image("export", "export/Dockerfile", "", "", "the jobs that publish"),
)


class BuildError(Exception):
    """An image cannot be built; the message says why and what to do."""


def main() -> int:
    """Build all images and print a table."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, help="(default: the first of these that works)")
    parser.add_argument("--registry", default="nereid", help="in front of the images' names (default: %(default)s)")
    parser.add_argument("--push", action="store_true", help="to that registry, all but the embedded Triton")
    parser.add_argument("--tag", default=version(), help="(default: the version in pyproject.toml, %(default)s)")
    options = parser.parse_args()
    table = Table("image", "runs", "size", "built in s", title="Images")
    try:
        check_base(os.environ.get("PYTHON_IMAGE", ""), push=options.push)
        engine = options.engine or find_engine()
        for image in IMAGES:
            name = f"{options.registry.rstrip('/')}/{image.name}:{options.tag}{image.suffix}"
            print(f"{engine} builds {name}", flush=True)
            began = time.monotonic()
            build(engine, image, name)
            if options.push and not image.suffix:
                push(engine, name)
            table.add_row(name, image.what, size(engine, name), f"{time.monotonic() - began:.0f}")
    except (BuildError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
    return 0


def version() -> str:
    """The project's."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def make_base(engine: str) -> str:
    """A small Debian of this machine's package archive with this machine's certificates, where no registry is in reach.

    Made once; needs root and debootstrap.

    Args:
        engine: podman or buildah.

    Returns:
        Its name, for PYTHON_IMAGE.

    Raises:
        BuildError: it cannot be made.
    """
    if _run([engine, "images", "--quiet", DEBIAN_BASE]).stdout.strip():
        return DEBIAN_BASE
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _check(
            [
                "unshare",
                "--mount",
                "debootstrap",
                "--variant=minbase",
                f"--include={_BASE_PACKAGES}",
                "bookworm",
                str(tree),
            ]
        )
        (tree / _CERTIFICATES).write_bytes(("/" / _CERTIFICATES).read_bytes())
        excluded = [f"--exclude=./{path}/*" for path in _UNNEEDED]
        _check(["tar", "-C", str(tree), *excluded, "-cf", f"{folder}/base.tar", "."])
        Path(folder, "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        _check([engine, "build", "--quiet", "--tag", DEBIAN_BASE, "--file", f"{folder}/Containerfile", folder])
    return DEBIAN_BASE


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _check(command: list[str]) -> None:
    done = _run(command)
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise BuildError(f"{command[0]}: got exit status {done.returncode}, expected 0:\n{lines}")


def find_engine() -> str:
    """The first engine that works here: docker may be installed without its daemon.

    Raises:
        BuildError: none does.
    """
    for engine in ENGINES:
        try:
            if subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0:
                return engine
        except FileNotFoundError:
            continue
    raise BuildError(f"got none that works of {', '.join(ENGINES)}; next: apt-get install podman, or start docker")


def check_base(base: str, *, push: bool) -> None:
    """Warn where a base image has no digest, since its tag may name another one tomorrow.

    Args:
        base: PYTHON_IMAGE; empty for that of the Dockerfiles, which has one.
        push: whether others get the images.

    Raises:
        BuildError: others would get images on a base that nobody can name.
    """
    if not base or _DIGEST.search(base):
        return
    words = f"PYTHON_IMAGE: got {base}, expected a digest, <name>@sha256:<64 hex digits>"
    pin = "next: pull it, and take what `<engine> image inspect --format '{{index .RepoDigests 0}}' <name>` prints"
    if push:
        raise BuildError(f"{words}, for images that are pushed; {pin}")
    print(f"warning: {words}; {pin}", file=sys.stderr)


def build(engine: str, image: Image, name: str) -> None:
    """Build one image; an unchanged step is not run again.

    Raises:
        BuildError: it failed.
    """
    arguments = {"VERSION": version(), "SOURCE": source()} | {
        key: os.environ[key] for key in _PASSED if key in os.environ
    }
    command = [engine, "build", "--file", image.dockerfile, "--tag", name]
    command += ["--target", image.target] if image.target else []
    command += ["--layers"] if engine == "buildah" else []
    for key in arguments:
        command += ["--build-arg", key]  # its value from the environment: addresses may hold passwords
    run = subprocess.run(
        [*command, "."], cwd=ROOT, env=os.environ | arguments, capture_output=True, text=True, check=False
    )
    if run.returncode:
        lines = "\n".join((run.stdout + run.stderr).splitlines()[-30:])
        raise BuildError(f"{image.dockerfile}: {engine} build got exit status {run.returncode}, expected 0:\n{lines}")


def push(engine: str, name: str) -> None:
    """Push an image to its registry.

    Raises:
        BuildError: it did not take it.
    """
    run = subprocess.run([engine, "push", name], capture_output=True, text=True, check=False)
    if run.returncode:
        words = "\n".join(run.stderr.splitlines()[-5:])
        raise BuildError(f"{name}: {engine} push got exit status {run.returncode}, expected 0:\n{words}")


def source() -> str:
    """Where the sources are, for the images' labels; empty where nobody knows."""
    run = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True, check=False)
    url = run.stdout.strip()
    return url if url.startswith("https://") and "@" not in url else ""


def size(engine: str, name: str) -> str:
    """As the engine says it, its base included."""
    command = [engine, "images", "--format", "{{.Size}}", name]
    # A line for each name that the image has had.
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
