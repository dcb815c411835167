"""Checks before Triton starts, because Triton's own messages name neither cause nor next step."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from environment.listening import listen
from predictor.errors import StartError, WrongSetting
from predictor.settings import Settings
from predictor.triton.installation import Installation
from predictor.triton_conventions import models_folder, trial_folder

# Where shm_open(3) of glibc makes its objects.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - no file is made there
# The dynamic loader's exit status when a program cannot be started.
_LOADER_FAILED = 127


def check_repository(settings: Settings) -> None:
    """Create the mirror's folders, or raise `StartError` where the model repository is not a folder."""
    if settings.mirror is not None:
        for folder in (models_folder(settings.mirror), trial_folder(settings.mirror)):
            folder.mkdir(parents=True, exist_ok=True)
    elif not Path(settings.repository).is_dir():
        raise StartError(
            f"the model repository {settings.repository} is not a folder (PREDICTOR_REPOSITORY; make: REPOSITORY=)"
        )


def check_ports(settings: Settings) -> None:
    """Raise `StartError` with the first port that is in use, and its variable."""
    seen: dict[int, str] = {}
    for name in ("http_port", "grpc_port", "metrics_port"):
        port, variable = int(getattr(settings, name)), f"PREDICTOR_{name.upper()}"
        remedy = f"choose another with {variable} (make: TRITON_{name.upper()}=)"
        if port in seen:
            raise StartError(f"port {port} is set twice, by {seen[port]} and {variable}; {remedy}")
        seen[port] = variable
        try:
            listen(settings.address, port).close()
        except OSError as exc:
            raise StartError(f"port {port} on {settings.address}: {exc.strerror}; {remedy}") from exc


def check_shared_memory(folder: Path = _SHARED_MEMORY) -> None:
    """Raise `WrongSetting` where no shared memory can be made: Triton would start, and fail to load each model."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongSetting(
            f"shared memory: got no folder {folder} that this user can write, expected one: Triton's Python backends "
            "exchange tensors by it; next: mount a tmpfs there (docker has one), or serve with TRITON_URL: AWS Lambda "
            "cannot have one (docs/lambda.md)"
        )


def find_missing_library(installation: Installation, env: Mapping[str, str]) -> str | None:
    """Return the name of a shared library that the Python backend needs and the loader cannot find.

    Triton would start without it, and report an unhealthy stub process for each model.
    """
    # Without arguments the stub prints an error and exits with 1.
    run = subprocess.run([installation.stub], env=dict(env), capture_output=True, text=True, check=False)
    if run.returncode != _LOADER_FAILED:
        return None
    found = re.search(r"libraries: (\S+):", run.stderr)
    return found[1] if found else run.stderr.strip()


def check_libraries(installation: Installation, env: Mapping[str, str]) -> None:
    """Raise `StartError` with the name of a missing library."""
    if library := find_missing_library(installation, env):
        remedy = ".venv/bin/python -m predictor install fetches it" if "libpython" in library else "install it"
        raise StartError(f"the embedded Triton needs the shared library {library}, which is missing; {remedy}")
