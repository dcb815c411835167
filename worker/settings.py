"""Settings of the worker, read from the environment."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from environment.listening import Address


class Settings(BaseSettings):
    """Settings of `python -m worker`; AWS_REGION, AWS_ENDPOINT_URL and credentials are boto3's."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", frozen=True, env_ignore_empty=True)

    queue_url: str = Field(pattern="^https?://", description="URL of the SQS queue; not FIFO")
    dead_letter_url: str = Field(
        default="",
        pattern="^(https?://.*)?$",
        description="URL of the queue for messages that cannot succeed. Default: the one of the queue's redrive policy",
    )
    url: str = Field(
        default="http://localhost:8080", pattern="^https?://", description="URL of the transformer (`URL`)"
    )
    model: str = Field(default="", description="model of messages that name none, such as S3's event notifications")
    parameters: dict[str, int | float | str | list[int | float | str]] = Field(
        default={}, description='parameters of such messages, as JSON: `{"confidence": 0.5}`'
    )
    results: str = Field(
        default="",
        pattern="^(s3://[^/]+(/.*)?)?$",
        description="`s3://bucket/prefix` for the results. Default: beside the image; images in messages have none",
    )
    slots: int = Field(default=8, ge=1, le=256, description="messages in progress at the same time")
    visibility_s: int = Field(
        default=60,
        ge=2,
        le=43_200,
        description="seconds until another worker gets the messages of one that died; renewed while one is in progress",
    )
    wait_s: int = Field(default=20, ge=0, le=20, description="seconds that a request for messages waits for one")
    grace_s: float = Field(
        default=30.0,
        ge=0,
        description="seconds after SIGTERM in which messages in progress are finished; then they are given back",
    )
    request_timeout_s: float = Field(
        default=60.0, gt=0, description="seconds that the transformer may take for an image"
    )
    max_image_bytes: int = Field(
        default=20 * 2**20, ge=1, description="largest image that is read, encoded; the transformer has a limit too"
    )
    address: Address = Field(default="127.0.0.1", description="address of `/metrics` and `/healthz`")
    port: int = Field(default=8004, ge=1, le=65535, description="port of these")
    log_format: Literal["text", "json"] = Field(
        default="text", validation_alias="LOG_FORMAT", description="`text` or `json`, as of the other parts"
    )
