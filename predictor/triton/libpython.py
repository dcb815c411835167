"""Debian's `libpython`, for a machine whose Python came without one.

The wheel's Python backend embeds Python, and Debian's `python3` is linked statically: the shared library is a separate
package that nothing depends on. It must be of the interpreter's own build (another one lacks the modules that Debian
compiles in), so it comes from Debian's archive; apt downloads without root. This repository cannot hold its hash, which
differs between machines: apt verifies it with the archive's signature, even where its configuration would not.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from predictor.errors import StartError
from predictor.triton.installation import Installation

# Overrides apt.conf: nothing is accepted from a mirror without Debian's signature.
_SIGNED = (
    "-oAPT::Get::AllowUnauthenticated=false",
    "-oAcquire::AllowInsecureRepositories=false",
    "-oAcquire::AllowWeakRepositories=false",
    "-oAcquire::AllowDowngradeToInsecureRepositories=false",
)


def fetch_libpython(installation: Installation) -> Path:
    """Download the library into the environment and return its path.

    Raises:
        StartError: this machine is not Debian, or its archive is unreachable.
    """
    package = f"libpython{installation.python_version}"
    filename = f"{package}.so.1.0"
    by_hand = f"install {package} by hand: apt-get install {package}"
    if not shutil.which("apt-get"):
        raise StartError(f"the embedded Triton needs {filename}, and this machine has no apt-get to fetch it with")
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(package, Path(folder))
        if archive is None:
            raise StartError(f"the embedded Triton needs {filename}, and apt-get cannot download it; {by_hand}")
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
        (library,) = Path(folder).glob(f"usr/lib/*/{filename}")
        target = installation.venv / "lib" / filename
        # Renamed into place, so that another process sees the complete file or none.
        staged = target.with_name(f"{filename}.{os.getpid()}")
        shutil.copyfile(library, staged)
        staged.replace(target)
    return target


def _download(package: str, folder: Path) -> Path | None:
    """Download with the machine's package lists or, where those are missing, with temporary ones."""
    state, cache = folder / "state", folder / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    own_lists = [f"-oDir::State={state}", f"-oDir::Cache={cache}", "-oDir::State::status=/var/lib/dpkg/status"]
    for commands in ([["download", package]], [[*own_lists, "update"], [*own_lists, "download", package]]):
        for arguments in commands:
            subprocess.run(["apt-get", "-qq", *_SIGNED, *arguments], cwd=folder, check=False, capture_output=True)
        if found := list(folder.glob(f"{package}_*.deb")):
            return found[0]
    return None
