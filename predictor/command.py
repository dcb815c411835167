"""Settings to the command line and environment of `tritonserver`."""

import os
from collections.abc import Mapping
from pathlib import Path

from predictor.installation import Installation
from predictor.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent


def compose_command(
    settings: Settings, installation: Installation, *, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the arguments, program first, and the environment of the server.

    Args:
        settings: What to start.
        installation: The wheel that is started.
        environ: The environment to build upon.
    """
    return _compose_argv(settings, installation), _compose_env(installation, environ)


def _compose_argv(settings: Settings, installation: Installation) -> list[str]:
    return [
        str(installation.tritonserver),
        f"--model-repository={settings.repository.absolute()}",
        # All models at start, none by request: whoever may load a model may run code.
        "--model-control-mode=none",
        # A model that fails to load is reported; the rest serves.
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--backend-directory={installation.backends}",
        # A Python-based backend reads its options under the name "python".
        f"--backend-config=python,shm-default-byte-size={settings.shm_size_bytes}",
        f"--backend-config=python,shm-growth-byte-size={settings.shm_size_bytes}",
        f"--http-address={settings.address}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.address}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.address}",
        f"--metrics-port={settings.metrics_port}",
        "--allow-gpu-metrics=false",
        f"--log-verbose={settings.log_verbose}",
    ]


def _compose_env(installation: Installation, environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if name != "PYTHONHOME"}
    # The stub embeds Python: it finds the standard library through the first python3 on PATH, and would take another
    # build's libpython from the system where the one that belongs to this interpreter lies outside the default path.
    env["PATH"] = os.pathsep.join([str(installation.venv / "bin"), environ.get("PATH", os.defpath)])
    env["PYTHONPATH"] = os.pathsep.join([str(installation.site_packages), str(PROJECT)])
    libraries = [str(installation.libpython_dir)] if installation.libpython_dir else []
    if inherited := environ.get("LD_LIBRARY_PATH"):
        libraries.append(inherited)
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    # The backend runs on the CPU alone. Without this, a machine with a GPU would place a model there that names no
    # instance_group; with it Triton itself refuses KIND_GPU.
    env["CUDA_VISIBLE_DEVICES"] = ""
    return env
