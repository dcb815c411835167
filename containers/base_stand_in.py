"""The base of the images: one with a digest, or a small Debian that is made here where no registry is reachable."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

DEBIAN_BASE = "localhost/nereid/base:bookworm"
# Packages that the Dockerfile expects in a base image, and libfribidi0, which it would fetch.
_BASE_PACKAGES = "python3,python3-venv,ca-certificates,libfribidi0"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_UNNEEDED = (
    *("dev", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"),
    *("var/cache", "var/lib/apt/lists"),
)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")


class BuildError(Exception):
    """An image cannot be built; the message says why and what to do."""


def check_base(base: str, *, push: bool) -> None:
    """Warn where a base image has no digest, since its tag may name another one tomorrow.

    Args:
        base: PYTHON_IMAGE; empty for that of the Dockerfile, which has one.
        push: whether the images are pushed.

    Raises:
        BuildError: images that are pushed need a base with a digest.
    """
    if not base or _DIGEST.search(base):
        return
    words = f"PYTHON_IMAGE: got {base}, expected a digest, <name>@sha256:<64 hex digits>"
    pin = "next: pull it, and take what `<engine> image inspect --format '{{index .RepoDigests 0}}' <name>` prints"
    if push:
        raise BuildError(f"{words}, for images that are pushed; {pin}")
    print(f"warning: {words}; {pin}", file=sys.stderr)


def make_base(engine: str) -> str:
    """A small Debian from this machine's package archive with its certificates, where no registry is reachable.

    Made once; needs root and debootstrap.

    Args:
        engine: podman or buildah.

    Returns:
        Its name, for PYTHON_IMAGE.

    Raises:
        BuildError: it cannot be made.
    """
    if run([engine, "images", "--quiet", DEBIAN_BASE]).stdout.strip():
        return DEBIAN_BASE
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        bootstrap = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}"]
        check([*bootstrap, "bookworm", str(tree)])
        (tree / _CERTIFICATES).write_bytes(("/" / _CERTIFICATES).read_bytes())
        # Not compiled, as the official image.
        excluded = ["--exclude=*.pyc", *(f"--exclude=./{path}/*" for path in _UNNEEDED)]
        check(["tar", "-C", str(tree), *excluded, "-cf", f"{folder}/base.tar", "."])
        Path(folder, "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        check([engine, "build", "--quiet", "--tag", DEBIAN_BASE, "--file", f"{folder}/Containerfile", folder])
    return DEBIAN_BASE


def run(command: list[str], folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command, in this folder or another, and keep what it prints."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def check(command: list[str], what: str = "", *, lines: int = 10, hint: str = "", folder: Path | None = None) -> str:
    """Run a command, and return all that it prints.

    Args:
        command: program and arguments.
        what: the command does, for the error message; empty: its program.
        lines: of what it printed, at the end of the error message.
        hint: added to the error message.
        folder: that it runs in; None for this one.

    Raises:
        BuildError: it failed.
    """
    done = run(command, folder)
    output = done.stdout + done.stderr
    if done.returncode:
        last = "\n".join(output.splitlines()[-lines:])
        raise BuildError(f"{what or command[0]} got exit status {done.returncode}, expected 0:\n{last}{hint}")
    return output
