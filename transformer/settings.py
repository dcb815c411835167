"""Settings of the transformer, from environment variables `TRANSFORMER_*`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from environment.cpus import whole_cpus
from environment.listening import Address, HostNames


class TransformerSettings(BaseSettings):
    """Settings of an operator; values that the trained model fixes are in config.pbtxt, and argv is KServe's."""

    model_config = SettingsConfigDict(env_prefix="TRANSFORMER_", frozen=True, env_ignore_empty=True)

    host: Address = Field(
        "127.0.0.1",
        description="address to listen on: `::1`, `0.0.0.0`, or `::` for every address of both families; see "
        "docs/configuration.md#ipv6",
    )
    hosts: HostNames = Field(
        frozenset(),
        description="names that HTTP clients may have for this server (`host.docker.internal`), with commas between, "
        "beside `localhost`, `*.localhost` and addresses of loopback: for a proxy on this machine that "
        "passes its own name on. On loopback any other `Host` is 421; on another address only if names are "
        "given, and addresses stay valid",
    )
    max_image_bytes: int = Field(20 * 2**20, gt=0, description="maximum size of an encoded image")
    max_image_pixels: int = Field(
        50_000_000, gt=0, description="maximum width x height of an image, read from its header"
    )
    max_body_bytes: int = Field(
        96 * 2**20,
        gt=0,
        le=2**30,
        description="maximum size of a request body, unpacked, or of a gRPC message: 16 images of 672 x 672 as FP32 "
        "fit",
    )
    max_bodies_bytes: int = Field(
        256 * 2**20,
        gt=0,
        description="maximum sum of the bodies in memory, including what gzip is unpacked to, of maps that requests "
        "hold, and of responses that clients have not read; beyond it 429",
    )
    max_items: int = Field(1024, gt=0, description="maximum number of images or rows in one request")
    max_in_flight: int = Field(
        default_factory=lambda: 3 * whole_cpus(),
        gt=0,
        description="maximum number of requests, and of images, that are processed concurrently; default: three for "
        "each CPU of the container",
    )
    max_waiting: int = Field(
        32, ge=0, description="maximum number of requests in the queue behind these; beyond it 429"
    )
    body_timeout_s: float = Field(
        10.0,
        gt=0,
        description="maximum time without progress of a body, and for the head of a request; then 408. Also the "
        "maximum time that a response lies unread, and that a whole gRPC message takes",
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="how long an HTTP connection may be without a request before the server closes it: longer than the "
        "load balancer in front keeps it, see docs/operations.md#behind-a-load-balancer. KServe's argument "
        "`--timeout-keep-alive` overrides it",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="deadline of a request that names none of its own; then 504"
    )
    threads: int = Field(
        default_factory=whole_cpus,
        gt=0,
        description="threads that decode images and post-process results; default: one for each CPU of the container",
    )
    sync_url: str = Field(
        "",
        description="`http://host:port` of the synchroniser: readiness waits for its first models, it knows which "
        "serve, and `/status` is passed on from it",
    )
    api_keys_file: Path | None = Field(
        None,
        description="file of API keys (`make key`), read again when it changes; a key that no valid line of it has is "
        "rejected, and a file without keys admits no client. Unset: no key is required",
    )
    keyless: Annotated[frozenset[Literal["health", "metrics", "status", "docs", "playground"]], NoDecode] = Field(
        frozenset({"health", "metrics", "playground"}),
        description="what is open without a key: `health` (over gRPC `ServerLive`, `ServerReady` and `grpc.health.v1`; "
        "whether a model is ready requires one), `metrics`, `status`, `docs` (over gRPC reflection), `playground` (the "
        "pages at `/` and `/stack`, where a key is typed in; what they show requires it)",
    )
    sagemaker: bool = Field(False, description="whether `/ping` and `/invocations` are served: docs/sagemaker.md")
    default_model: str = Field(
        "",
        description="model of a request to `/invocations` or `/v1/vision/detection` that names none; unset: the only "
        "one of the repository, for `/v1/vision/detection` the only one that finds objects",
    )
    docs: bool = Field(
        True, description="whether `/docs`, `/openapi.json` and the playground (`/`, `/stack`) are served"
    )
    seccomp: bool = Field(
        True,
        description="whether the kernel denies this process what no request needs: processes, files to write, ports, "
        "executable memory. On Linux, x86-64 and aarch64; elsewhere, and in a sandbox that takes no "
        "filter, it is logged and the transformer serves without",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias="LOG_FORMAT",  # the synchroniser's too
        description="`text`, or `json`: one object for each line, of transformer and synchroniser",
    )
    shutdown_timeout_s: int = Field(30, ge=0, description="how long accepted requests may take after SIGTERM")

    @field_validator("keyless", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return frozenset(value.replace(",", " ").split()) if isinstance(value, str) else value


class OpenTelemetrySettings(BaseSettings):
    """Whether spans are exported; OpenTelemetry's SDK reads its other variables itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", frozen=True, env_ignore_empty=True)

    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    exporter_otlp_protocol: str = "http/protobuf"
    exporter_otlp_traces_protocol: str = ""
    traces_exporter: str = "otlp"
    sdk_disabled: str = ""

    @property
    def is_on(self) -> bool:
        """Whether an endpoint for spans is set, and no variable disables them."""
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and "otlp" in self.traces_exporter.split(",") and self.sdk_disabled.lower() != "true"

    @property
    def protocol(self) -> str:
        """The protocol of the endpoint."""
        return self.exporter_otlp_traces_protocol or self.exporter_otlp_protocol
