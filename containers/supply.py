"""The programs that describe, scan and sign images, which `make` installs into .venv-tools; and where SBOMs are."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from containers.base_stand_in import BuildError, run
from containers.build import ROOT

BIN = ROOT / ".venv-tools" / "bin"
SBOMS = ROOT / "output" / "sbom"
# None of them looks for a newer one of itself.
os.environ.update(SYFT_CHECK_FOR_APP_UPDATE="false", GRYPE_CHECK_FOR_APP_UPDATE="false")


def find_program(name: str) -> str:
    """A program of .venv-tools, or of the machine.

    Raises:
        BuildError: it is missing.
    """
    own = BIN / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise BuildError(
            f"{name}: got none, expected it in PATH, or in {BIN.relative_to(ROOT)}, where make installs it"
        )
    return found


def call(program: str, *arguments: str, what: str) -> str:
    """Run a program of these, and return what it prints on standard output.

    Raises:
        BuildError: it is missing, or failed.
    """
    done = run([find_program(program), *arguments])
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
        raise BuildError(f"{what}: {program} got exit status {done.returncode}, expected 0:\n{last}")
    return done.stdout


def sbom_of(image: str, folder: Path = SBOMS) -> Path:
    """The file with the SBOM of an image."""
    return folder / f"{image}.cdx.json"


def check_sbom(image: str, pushed: str, folder: Path = SBOMS) -> Path:
    """The file with the SBOM of an image that was pushed.

    Raises:
        BuildError: it is missing, or of another digest.
    """
    path = sbom_of(image, folder)
    hint = f"expected the SBOM of {pushed}; next: make sbom DIGESTS=<file of make images>"
    if not path.is_file():
        raise BuildError(f"{path}: missing, {hint}")
    described = json.loads(path.read_text(encoding="utf-8")).get("metadata", {}).get("component", {}).get("version")
    if described != pushed:
        raise BuildError(f"{path}: got one of {described}, {hint}")
    return path


def end(step: Callable[[], None]) -> int:
    """Run a step; 1 where it fails, with the reason on standard error."""
    try:
        step()
    except (BuildError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0
