"""The installed wheel with `tritonserver`: its paths, and the links that add our backends."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from predictor.errors import StartError

BACKENDS = Path(__file__).resolve().parents[1] / "backends"
_STUB = "triton_python_backend_stub"
# Run by the interpreter of the other environment, which may be another build than this one.
_PROBE = """
import json, sys, sysconfig
print(json.dumps({"version": "%d.%d" % sys.version_info[:2], "site_packages": sysconfig.get_path("purelib"),
                  "libdir": sysconfig.get_config_var("LIBDIR") or ""}))
"""


@dataclass(frozen=True)
class Installation:
    """A virtual environment with `nvidia-pytriton`; every path is absolute.

    Attributes:
        venv: The environment.
        site_packages: Its packages.
        python_version: Such as `3.11`; the wheel has a stub for each.
        libpython_dir: Folder of that interpreter's shared library: its own, or the environment's; None where only the
            system's loader knows it.
    """

    venv: Path
    site_packages: Path
    python_version: str
    libpython_dir: Path | None

    @property
    def _triton(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def tritonserver(self) -> Path:
        """The server itself."""
        return self._triton / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder for `--backend-directory`."""
        return self._triton / "backends"

    @property
    def stub(self) -> Path:
        """The program that runs a Python backend: one process for each model instance."""
        return self._triton / "python_backend_stubs" / self.python_version / _STUB


def find_installation(venv: Path) -> Installation:
    """Find the wheel.

    Raises:
        StartError: there is no wheel for this platform, or it is missing in the environment.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise StartError(
            f"there is no embedded Triton for {sys.platform} {platform.machine()}, only for linux x86_64; "
            "point TRITON_URL at a Triton that runs elsewhere"
        )
    python = venv.absolute() / "bin" / "python"
    if not python.exists():
        raise StartError(f"{venv} is missing: it holds the embedded Triton; make it with: make .venv-triton/.installed")
    probe = json.loads(subprocess.run([python, "-I", "-c", _PROBE], check=True, capture_output=True, text=True).stdout)
    filename = f"libpython{probe['version']}.so.1.0"
    folders = [Path(probe["libdir"]), venv.absolute() / "lib"]
    installation = Installation(
        venv=venv.absolute(),
        site_packages=Path(probe["site_packages"]),
        python_version=probe["version"],
        libpython_dir=next((folder for folder in folders if (folder / filename).exists()), None),
    )
    if not installation.tritonserver.exists():
        raise StartError(f"{venv} has no nvidia-pytriton; make it again: rm -r {venv} && make .venv-triton/.installed")
    if not installation.stub.exists():
        raise StartError(
            f"nvidia-pytriton has no Python backend for Python {installation.python_version} of {venv}; "
            "make it with Python 3.11 or 3.12"
        )
    return installation


def link_backends(installation: Installation) -> None:
    """Link the stub of the running Python into the Python backend, and our backends beside it.

    Links, not copies: the stub finds the wheel's libraries relative to its real path, and an edited backend takes
    effect. Safe to call repeatedly and concurrently.
    """
    _link(installation.backends / "python" / _STUB, installation.stub)
    for backend in BACKENDS.iterdir():
        if (backend / "model.py").exists():
            _link(installation.backends / backend.name, backend)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    # A link cannot be replaced, but another one can be renamed over it; each process has a name of its own for that.
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
