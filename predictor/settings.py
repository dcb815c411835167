"""Settings of the predictor, read from the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What `python -m predictor triton` starts.

    Attributes:
        repository: Folder with one folder for each model; every model in it is loaded at start.
        address: Where all three ports listen. Loopback, because the wheel's Triton 2.51 is older than the
            security fixes of 2025.
        http_port: v2 protocol over HTTP.
        grpc_port: v2 protocol over gRPC.
        metrics_port: Prometheus metrics.
        venv: Virtual environment with `predictor/requirements.txt`.
        shm_size_bytes: Shared memory between the server and one model instance, and the step in which it grows
            when a request or a batch does not fit.
        log_verbose: Triton's verbosity; 0 is silent about requests.
    """

    model_config = SettingsConfigDict(env_prefix="PREDICTOR_", frozen=True)

    repository: Path = Path("model_repository")
    address: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=1, le=65535)
    grpc_port: int = Field(default=8001, ge=1, le=65535)
    metrics_port: int = Field(default=8002, ge=1, le=65535)
    venv: Path = Path(".venv-triton")
    shm_size_bytes: int = Field(default=16 * 1024 * 1024, ge=1024 * 1024)
    log_verbose: int = Field(default=0, ge=0)
