"""Settings of the predictor, read from the environment."""

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from environment.cpus import cpu_limit, has_bf16
from environment.listening import Address, HostNames
from environment.variables import reject_empty
from registry.layout import DEFAULT_PROFILE


class Settings(BaseSettings):
    """Settings of `python -m predictor triton` and of `python -m predictor synchroniser`."""

    model_config = SettingsConfigDict(env_prefix="PREDICTOR_", frozen=True, env_ignore_empty=True)

    repository: str = Field(
        default="model_repository",
        description="folder with one folder for each model, or `s3://bucket/prefix`; `make serve` sets it from "
        "`REPOSITORY`",
    )
    mirror: Path | None = Field(
        default=None,
        description="local folder that the synchroniser fills and Triton reads (`MIRROR`). Unset: Triton reads "
        "`repository` itself, which is a folder then, and loads every model of it at its start",
    )
    mirror_bytes: int | None = Field(
        default=None,
        gt=0,
        description="maximum size of the mirror; a version that does not fit is not taken. Default: what the disk has; "
        "in a pod set it below the limit of the volume, above which the pod is evicted",
    )
    # Loopback, because the wheel's Triton 2.51 is older than the security fixes of 2025.
    address: Address = Field(
        default="127.0.0.1",
        description="address that Triton's three ports listen on, IPv4 or IPv6; see docs/configuration.md#ipv6",
    )
    http_port: int = Field(default=8000, ge=1, le=65535, description="Triton's v2 over HTTP (`TRITON_HTTP_PORT`)")
    grpc_port: int = Field(default=8001, ge=1, le=65535, description="Triton's v2 over gRPC (`TRITON_GRPC_PORT`)")
    metrics_port: int = Field(default=8002, ge=1, le=65535, description="Triton's metrics (`TRITON_METRICS_PORT`)")
    metrics_relay_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port at `PREDICTOR_SYNC_ADDRESS` where the synchroniser serves Triton's metrics, for a Triton "
        "that listens on loopback only; unset: none",
    )
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="secret that a request must show that loads models, maps memory, or changes logging and tracing. "
        "Unset: every program that reaches the ports may",
    )
    venv: Path = Field(
        default=Path(".venv-triton"),
        description="virtual environment with `predictor/requirements.txt`: the embedded Triton",
    )
    shm_size_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024 * 1024,
        description="shared memory between Triton and one instance of a Python backend, and the step in which it grows "
        "when a request or a batch does not fit",
    )
    log_verbose: int = Field(default=0, ge=0, description="Triton's verbosity; 0 logs no request")
    log_format: Literal["text", "json"] = Field(
        default="text",
        validation_alias="LOG_FORMAT",  # the transformer's too
        description="`text`, or `json`: one object for each line, of transformer and synchroniser",
    )
    sync_address: Address = Field(
        default="127.0.0.1",
        description="address that the synchroniser's `/status` and `/metrics` listen on; `::` is both families",
    )
    sync_port: int = Field(default=8003, ge=1, le=65535, description="HTTP port of these (`SYNC_PORT`)")
    sync_hosts: HostNames = Field(
        default=frozenset(),
        description="names that clients may have for the synchroniser, beside those of loopback; any other `Host` is "
        "421",
    )
    instance: str = Field(
        default_factory=socket.gethostname,
        description="name of this instance in `/status`, which shows clients behind a load balancer whose status they "
        "read. Default: the host's name, in a pod the pod's",
    )
    poll_s: float = Field(default=10.0, ge=0.1, description="seconds between two listings of the repository (`POLL_S`)")
    settle_s: float = Field(
        default=10.0,
        ge=0.0,
        description="seconds without a change after which a version without `manifest.json` is complete (`SETTLE_S`)",
    )
    load_timeout_s: float = Field(
        default=600.0, gt=0, description="maximum time that Triton may take to load a version"
    )
    profile: str = Field(
        default=DEFAULT_PROFILE,
        pattern="^[a-z][0-9a-z-]*$",
        description="how models run (`PROFILE`): the name of a config of theirs, `<model>/<version>/<profile>.pbtxt` "
        "or `<model>/configs/<profile>.pbtxt`. A model without it runs as its `config.pbtxt` says, and so "
        "does every model under `fp32`; `auto` and `fast` choose what is fastest here; see docs/models.md#profiles",
    )
    measures: bool = Field(
        default=True,
        description="whether the profiles that `auto` and `fast` leave open are measured while no client "
        "sends requests; otherwise the first of them stays, `fp32` and `fast`",
    )
    cpus: float = Field(
        default_factory=cpu_limit,
        gt=0,
        description="CPUs that Triton may use, for threads and instances that no config sets. Default: the CPU limit "
        "of this process's own container",
    )
    bf16: bool = Field(
        default_factory=has_bf16,
        description="whether these CPUs compute bf16 in hardware; otherwise `fast` and `int8` run in FP32 what they "
        "would in bf16, which is faster then. Default: what the kernel says of the CPU",
    )
    pins: dict[str, list[int]] = Field(
        default={},
        description='versions to serve whatever the version policy says, as JSON by model: `{"digits": [3]}`',
    )
    signed_by: Path | None = Field(
        default=None,
        validate_default=True,
        description="file or folder with the public keys, or certificates, that may sign versions (`SIGNED_BY`): PEM, "
        "read once at the start. A version that none of them has signed does not serve; see docs/signed-models.md. "
        "Unset: signatures are not looked at",
    )
    plans: bool = Field(
        default=False,
        description="whether TensorRT plans, and ONNX graphs that hold compiled engines, are loaded. They are code: a "
        "writer of the repository runs it in Triton",
    )

    @field_validator("signed_by", mode="before")
    @classmethod
    def _reject_empty(cls, value: object) -> object:
        reject_empty("PREDICTOR_SIGNED_BY")  # it would turn the policy off
        return value
