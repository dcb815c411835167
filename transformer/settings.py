"""Settings of the transformer, from environment variables `TRANSFORMER_*`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from environment.cpus import whole_cpus
from hosts import Address, HostNames


class TransformerSettings(BaseSettings):
    """What an operator may change; what the trained model fixes is in config.pbtxt, and argv is KServe's."""

    model_config = SettingsConfigDict(env_prefix="TRANSFORMER_", frozen=True, env_ignore_empty=True)

    host: Address = Field("127.0.0.1", description="address to listen on; in a container 0.0.0.0, or :: for IPv6 too")
    hosts: HostNames = Field(
        frozenset(), description="names that HTTP clients may have for it, beside those of loopback; 421 for any other"
    )
    max_image_bytes: int = Field(20 * 2**20, gt=0, description="largest encoded picture")
    max_image_pixels: int = Field(50_000_000, gt=0, description="largest width x height, read from the header")
    max_body_bytes: int = Field(
        96 * 2**20, gt=0, le=2**30, description="largest request body or gRPC message, all pictures together"
    )
    max_bodies_bytes: int = Field(
        256 * 2**20, gt=0, description="largest sum of the bodies that are in memory; one more is answered 429"
    )
    max_items: int = Field(1024, gt=0, description="most pictures or rows in one request")
    max_in_flight: int = Field(
        default_factory=lambda: 3 * whole_cpus(),
        gt=0,
        description="most requests, and most pictures, that are worked at at once",
    )
    max_waiting: int = Field(32, ge=0, description="most requests in line behind these; one more is answered 429")
    body_timeout_s: float = Field(
        10.0, gt=0, description="how long a body may stop coming, a head or a gRPC message take, an answer lie unread"
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="how long a connection may be without a request; longer than the balancer in front keeps it",
    )
    request_timeout_s: float = Field(30.0, gt=0, description="how long a request may take that names no shorter time")
    threads: int = Field(default_factory=whole_cpus, gt=0, description="threads that decode pictures and choose boxes")
    sync_url: str = Field("", description="http://host:port of the synchroniser: says what serves, ready waits for it")
    api_keys_file: Path | None = Field(None, description="file of API keys, see make key; without one nobody is asked")
    keyless: Annotated[frozenset[Literal["health", "metrics", "status", "docs"]], NoDecode] = Field(
        frozenset({"health", "metrics"}), description="what is open without a key: health, metrics, status, docs"
    )
    docs: bool = Field(True, description="whether /docs and /openapi.json are served")
    seccomp: bool = Field(True, description="whether the kernel refuses what no request needs: processes, writing, ...")
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias="LOG_FORMAT",  # the synchroniser's too
        description="text, or json: one object a line",
    )
    shutdown_timeout_s: int = Field(30, ge=0, description="how long accepted requests may take after SIGTERM")

    @field_validator("keyless", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return frozenset(value.replace(",", " ").split()) if isinstance(value, str) else value


class OpenTelemetrySettings(BaseSettings):
    """Whether spans are exported; the rest of OpenTelemetry's variables its SDK reads itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", frozen=True, env_ignore_empty=True)

    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    exporter_otlp_protocol: str = "http/protobuf"
    exporter_otlp_traces_protocol: str = ""
    traces_exporter: str = "otlp"
    sdk_disabled: str = ""

    @property
    def is_on(self) -> bool:
        """Whether there is somewhere to send spans to, and nothing says that none should be."""
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and "otlp" in self.traces_exporter.split(",") and self.sdk_disabled.lower() != "true"

    @property
    def protocol(self) -> str:
        """What the endpoint speaks."""
        return self.exporter_otlp_traces_protocol or self.exporter_otlp_protocol
