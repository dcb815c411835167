"""Settings of the predictor, read from the environment."""

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from environment.cpus import cpu_limit
from hosts import Address, HostNames
from registry.layout import DEFAULT_PROFILE


class Settings(BaseSettings):
    """Settings of `python -m predictor triton` and `python -m predictor synchroniser`.

    Attributes:
        repository: Folder with one folder for each model, or `s3://bucket/prefix`.
        mirror: Local folder that the synchroniser fills and Triton reads. Without one Triton reads `repository` itself,
            which must be a folder, and loads all of its models at its start.
        mirror_bytes: Limit of the mirror; a version that does not fit is postponed. By default the disk's size; in a
            pod set it below the volume's limit, above which the pod is evicted.
        address: Address of Triton's three ports, IPv4 or IPv6. Loopback, because the wheel's Triton 2.51 is older
            than the security fixes of 2025.
        http_port: v2 protocol over HTTP.
        grpc_port: v2 protocol over gRPC.
        metrics_port: Prometheus metrics.
        secret: Required in requests that load models, map memory, or change logging and tracing; empty: every client
            that reaches the ports may.
        venv: Virtual environment with `predictor/requirements.txt`.
        shm_size_bytes: Shared memory between the server and one model instance, and the step in which it grows
            when a request or a batch does not fit.
        log_verbose: Triton's verbosity; 0 is silent about requests.
        log_format: Of the synchroniser's log: `json` is one object a line. LOG_FORMAT, the transformer's too.
        sync_address: Address of the synchroniser's status and metrics; `::` is both families.
        sync_port: HTTP port of these.
        sync_hosts: Host names that clients may use for it, beside those of loopback; any other gets 421.
        instance: Name of this instance in `/status`, so that clients behind a load balancer can tell several apart;
            by default the host's, which is the pod's name.
        poll_s: Seconds between two listings of the repository.
        settle_s: Seconds without a change after which a version without manifest.json is complete.
        load_timeout_s: Timeout of loading a version.
        profile: How models run: the name of one of their configs, `<model>/<version>/<profile>.pbtxt` or
            `<model>/configs/<profile>.pbtxt`. A model without it, and `fp32`, run as their config.pbtxt says.
        cpus: CPUs that Triton may use, for threads and instances that no config sets; by default the CPU limit of this
            process's container.
        plans: Whether TensorRT plans, and ONNX graphs that hold compiled engines, may be loaded. They are code, which
            anyone with write access to the repository can have Triton run.
        pins: Versions to serve in place of the version policy, as JSON by model: `{"digits": [3]}`.
    """

    model_config = SettingsConfigDict(env_prefix="PREDICTOR_", frozen=True, env_ignore_empty=True)

    repository: str = "model_repository"
    mirror: Path | None = None
    mirror_bytes: int | None = Field(default=None, gt=0)
    address: Address = "127.0.0.1"
    http_port: int = Field(default=8000, ge=1, le=65535)
    grpc_port: int = Field(default=8001, ge=1, le=65535)
    metrics_port: int = Field(default=8002, ge=1, le=65535)
    secret: SecretStr = SecretStr("")
    venv: Path = Path(".venv-triton")
    shm_size_bytes: int = Field(default=16 * 1024 * 1024, ge=1024 * 1024)
    log_verbose: int = Field(default=0, ge=0)
    log_format: Literal["text", "json"] = Field(default="text", validation_alias="LOG_FORMAT")
    sync_address: Address = "127.0.0.1"
    sync_port: int = Field(default=8003, ge=1, le=65535)
    sync_hosts: HostNames = frozenset()
    instance: str = Field(default_factory=socket.gethostname)
    poll_s: float = Field(default=10.0, ge=0.1)
    settle_s: float = Field(default=10.0, ge=0.0)
    load_timeout_s: float = Field(default=600.0, gt=0)
    profile: str = Field(default=DEFAULT_PROFILE, pattern="^[a-z][0-9a-z-]*$")
    cpus: float = Field(default_factory=cpu_limit, gt=0)
    pins: dict[str, list[int]] = {}
    plans: bool = False
