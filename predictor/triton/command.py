"""Composes the command line and environment of `tritonserver` from the settings."""

import os
from collections.abc import Mapping
from pathlib import Path

from predictor.settings import Settings
from predictor.triton.installation import Installation
from predictor.triton_conventions import ACCESS_HEADER, models_folder, trial_folder

PROJECT = Path(__file__).resolve().parents[2]
# Clients of these protocols could run code in the server or read its memory. inference, health, metadata and
# model-config stay unrestricted.
_RESTRICTED = "model-repository,shared-memory,logging,trace,statistics"


def compose_command(
    settings: Settings, installation: Installation, *, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the arguments, program first, and the environment of the server.

    Args:
        settings: Of the predictor.
        installation: Of Triton.
        environ: The environment to extend.
    """
    return _compose_argv(settings, installation), _compose_env(installation, environ)


def _compose_argv(settings: Settings, installation: Installation) -> list[str]:
    return [
        str(installation.tritonserver),
        *_compose_repository(settings),
        # A model that fails to load is reported; the others serve.
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--backend-directory={installation.backends}",
        # A Python-based backend reads its options under the name "python".
        f"--backend-config=python,shm-default-byte-size={settings.shm_size_bytes}",
        f"--backend-config=python,shm-growth-byte-size={settings.shm_size_bytes}",
        f"--http-address={_listen_http(settings.address)}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={f'[{settings.address}]' if ':' in settings.address else settings.address}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={_listen_http(settings.address)}",
        f"--metrics-port={settings.metrics_port}",
        "--allow-gpu-metrics=false",
        f"--log-verbose={settings.log_verbose}",
        *_compose_secret(settings.secret.get_secret_value()),
    ]


def _listen_http(address: str) -> str:
    """Return an address in libevhtp's form: IPv6 without the prefix silently becomes 255.255.255.255."""
    return f"ipv6:{address}" if ":" in address else address


def _compose_repository(settings: Settings) -> list[str]:
    if settings.mirror is None:
        # Load all models at start, and none on request.
        return [f"--model-repository={Path(settings.repository).absolute()}", "--model-control-mode=none"]
    mirror = settings.mirror.absolute()
    # With a policy the synchroniser alone has models loaded: it has verified them by the keys of this start.
    links = [] if settings.signed_by is not None else models_folder(mirror).glob("[!.]*")
    serving = sorted(link.name for link in links if link.exists())
    return [
        f"--model-repository={models_folder(mirror)}",
        f"--model-repository={trial_folder(mirror)}",
        "--model-control-mode=explicit",
        # Triton starts a process for each load that only completes a config, and takes 1.7 s for its end. The
        # synchroniser completes what our backends report as incomplete.
        "--disable-auto-complete-config",
        # After a crash it serves the same models, even if the synchroniser or S3 is down.
        *(f"--load-model={name}" for name in serving),
    ]


def _compose_secret(secret: str) -> list[str]:
    if not secret:
        return []
    # Triton accepts it as an argument only: users who can list the processes of this machine can read it.
    rule = f"{_RESTRICTED}:{ACCESS_HEADER}={secret}"
    return [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]


def _compose_env(installation: Installation, environ: Mapping[str, str]) -> dict[str, str]:
    # The secret is an argument: the processes of models do not need it.
    env = {name: value for name, value in environ.items() if name not in {"PYTHONHOME", "PREDICTOR_SECRET"}}
    # The stub embeds Python: it finds the standard library through the first python3 on PATH, and would load the
    # system's libpython, of another build, where that of this interpreter is outside the default path.
    env["PATH"] = os.pathsep.join([str(installation.venv / "bin"), environ.get("PATH", os.defpath)])
    env["PYTHONPATH"] = os.pathsep.join([str(installation.site_packages), str(PROJECT)])
    libraries = [str(installation.libpython_dir)] if installation.libpython_dir else []
    if inherited := environ.get("LD_LIBRARY_PATH"):
        libraries.append(inherited)
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    # The backends run on the CPU only. Without this Triton would place a model without instance_group on a GPU; with it
    # Triton rejects KIND_GPU.
    env["CUDA_VISIBLE_DEVICES"] = ""
    return env
