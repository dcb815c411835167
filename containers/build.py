"""`make images`: build the container images with docker, podman or buildah, push them, and print their digests.

The environment sets where packages come from: PIP_INDEX_URL and UV_DEFAULT_INDEX reach the build, and no image. What
comes from there is compared with hashes; the base image with the digest in the Dockerfile, or in PYTHON_IMAGE.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from containers.base_stand_in import BuildError, check, check_base
from containers.digests import write_digests

ROOT = Path(__file__).parents[1]
DOCKERFILE = "containers/Dockerfile"  # relative to the root of the project
# In this order the first that works is taken.
ENGINES = ("docker", "podman", "buildah")
_LABEL = "org.opencontainers.image."
# Build arguments that are taken from the environment where it has them.
_PASSED = ("PYTHON_IMAGE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
# The line that docker prints after a push; podman and buildah write a file.
_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
AMD64, ARM64 = PLATFORMS = ("linux/amd64", "linux/arm64")
_MACHINES = {"x86_64": AMD64, "aarch64": ARM64, "arm64": ARM64}
_HINT = (
    "\nPLATFORM: got {}, expected one whose programs run here ({}); next: build on a machine of it, or have qemu run "
    "them (Debian: apt-get install qemu-user-static binfmt-support)"
)


class Image(NamedTuple):
    """One image.

    Attributes:
        name: without registry and tag.
        target: stage of the Dockerfile.
        what: the program in it.
        platforms: for which it can be built.
    """

    name: str
    target: str
    what: str
    platforms: tuple[str, ...] = PLATFORMS


IMAGES = (
    Image("transformer", "transformer", "the transformer"),
    Image("predictor", "synchroniser", "the synchroniser"),
    Image("worker", "worker", "the queue worker, and batches"),
    Image("cpu-triton", "cpu-triton", "the embedded Triton", (AMD64,)),
    Image("standalone", "standalone", "all that serves, in one container", (AMD64,)),
    Image("export", "export", "the jobs that publish", (AMD64,)),
)


def main() -> int:
    """Build all images and print a table; after a push, what an overlay takes over."""
    options = _parse()
    table = Table("image", "runs", "size", "built in s", title="Images")
    digests: dict[str, str] = {}
    try:
        check_base(os.environ.get("PYTHON_IMAGE", ""), push=options.push)
        engine = options.engine or find_engine()
        for image in IMAGES:
            if options.only not in {"", image.name}:
                continue
            name = f"{options.registry.rstrip('/')}/{image.name}:{options.tag}"
            if (options.platform or native_platform()) not in image.platforms:
                print(f"left out: {name}, which exists for {', '.join(image.platforms)} only", flush=True)
                continue
            print(f"{engine} builds {name}", flush=True)
            began = time.monotonic()
            build(engine, image, name, options.platform, pushed=options.push)
            if options.push:
                digests[image.name] = f"{name.rpartition(':')[0]}@{push(engine, name)}"
            table.add_row(name, image.what, size(engine, name), f"{time.monotonic() - began:.0f}")
    except (BuildError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
    if digests:
        print(describe_digests(digests))
        if options.digests:
            write_digests(options.digests, digests)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make images", description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, help="(default: the first of these that works)")
    parser.add_argument("--registry", default="nereid", help="in front of the images' names (default: %(default)s)")
    parser.add_argument("--push", action="store_true", help="to that registry")
    parser.add_argument("--tag", default=version(), help="(default: the version in pyproject.toml, %(default)s)")
    parser.add_argument("--platform", choices=PLATFORMS, default="", help="(default: this machine's)")
    parser.add_argument("--only", choices=[image.name for image in IMAGES], default="", help="(default: all)")
    parser.add_argument("--digests", type=Path, help="with --push: the file that their digests are written to")
    options = parser.parse_args()
    if options.digests and not options.push:
        parser.error("DIGESTS: got it without PUSH=1, expected both: what stays here has no digest of a registry")
    if not TAG.fullmatch(options.tag):
        parser.error(f"TAG: got {options.tag!r}, expected letters, digits, _ . -, at most 128, none of . - in front")
    return options


def native_platform() -> str:
    """The platform of this machine, by its name in images."""
    return _MACHINES.get(platform.machine(), f"linux/{platform.machine()}")


def describe_digests(digests: Mapping[str, str]) -> str:
    """The lines that pin an overlay to what was pushed.

    Args:
        digests: `<registry>/<name>@sha256:<digest>`, by the name of an image in the manifests without `nereid/`.
    """
    commands = [f"  kustomize edit set image nereid/{name}={pushed}" for name, pushed in digests.items()]
    block = ["images:"]
    for name, pushed in digests.items():
        registry, _, digest = pushed.partition("@")
        block += [f"  - name: nereid/{name}", f"    newName: {registry}", f"    digest: {digest}"]
    return "\n".join(["in the folder of your overlay:", *commands, "or into its kustomization.yaml:", *block])


def version() -> str:
    """The version of the project."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def find_engine() -> str:
    """Find the first engine that works here: docker may be installed without its daemon.

    Raises:
        BuildError: no engine works.
    """
    for engine in ENGINES:
        try:
            if subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0:
                return engine
        except FileNotFoundError:
            continue
    raise BuildError(
        f"engine: got none that works, expected one of {', '.join(ENGINES)}; next: apt-get install podman, or start "
        "docker"
    )


def build(engine: str, image: Image, name: str, of_platform: str = "", *, pushed: bool = False) -> None:
    """Build one image; an unchanged step is not run again.

    Args:
        engine: one of `ENGINES`.
        image: which.
        name: with registry and tag.
        of_platform: one of `PLATFORMS`; empty for what the engine builds by itself.
        pushed: whether it is pushed to a registry.

    Raises:
        BuildError: it failed.
    """
    arguments = [key for key in _PASSED if key in os.environ]
    command = [engine, "build", "--file", str(ROOT / DOCKERFILE), "--target", image.target, "--tag", name]
    command += ["--platform", of_platform] if of_platform else []
    command += ["--layers"] if engine == "buildah" else []
    for key in arguments:
        command += ["--build-arg", key]  # its value from the environment: addresses may hold passwords
    for label, value in labels(pushed=pushed).items():
        command += ["--label", f"{label}={value}"]
    # Not every engine reports that a program could not be started.
    hint = "" if of_platform in {"", native_platform()} else _HINT.format(of_platform, native_platform())
    check([*command, str(ROOT)], f"{DOCKERFILE}, target {image.target}: {engine} build", lines=30, hint=hint)


def push(engine: str, name: str) -> str:
    """Push an image to its registry.

    Returns:
        The digest by which the registry has it, `sha256:<64 hex digits>`.

    Raises:
        BuildError: the registry rejected it, or the digest is unknown.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "digest")
        option = [] if engine == "docker" else ["--digestfile", str(written)]
        output = check([engine, "push", *option, name], f"{name}: {engine} push", lines=5)
        output = f"digest: {written.read_text()}" if option else output
    if found := _PUSHED.search(output):
        return found[1]
    raise BuildError(f"{name}: {engine} push printed no digest, expected one; it printed:\n{output[-1000:]}")


def labels(*, pushed: bool) -> dict[str, str]:
    """Labels beside those of the Dockerfile, by name; one is empty if unknown: an archive of the sources has no commit.

    Args:
        pushed: whether the image is pushed. One that stays here has no commit and no date: with them it would be
            another image after each commit, and clusters that have it would be given it again.
    """
    found = {"version": version(), "source": source()}
    if pushed:
        changed = "-dirty" if _git("status", "--porcelain") else ""
        commit = _git("rev-parse", "HEAD")
        # The commit's date: of the same sources the same labels.
        found |= {"revision": f"{commit}{changed}" if commit else "", "created": _git("show", "-s", "--format=%cI")}
    return {f"{_LABEL}{name}": value for name, value in found.items()}


def source() -> str:
    """Where the sources are, for the images' labels; empty if unknown."""
    url = _git("remote", "get-url", "origin")
    return url if url.startswith("https://") and "@" not in url else ""


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return "" if run.returncode else run.stdout.strip()


def size(engine: str, name: str) -> str:
    """The size of an image as the engine prints it, base image included."""
    command = [engine, "images", "--format", "{{.Size}}", name]
    # A line for each name that the image has had.
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
