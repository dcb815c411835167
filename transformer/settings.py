"""Settings of the transformer, from environment variables `TRANSFORMER_*`."""

import os

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class TransformerSettings(BaseSettings):
    """What an operator may change; what the trained model fixes is in config.pbtxt, and argv is KServe's."""

    model_config = SettingsConfigDict(env_prefix="TRANSFORMER_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    max_image_bytes: int = Field(20 * 2**20, gt=0, description="largest encoded picture")
    max_image_pixels: int = Field(50_000_000, gt=0, description="largest width x height, read from the header")
    max_body_bytes: int = Field(
        64 * 2**20, gt=0, le=2**30, description="largest request body or gRPC message, all pictures together"
    )
    max_items: int = Field(1024, gt=0, description="most pictures or rows in one request")
    max_in_flight: int = Field(2 * (os.cpu_count() or 1), gt=0, description="most pictures in memory at once")
    request_timeout_s: float = Field(30.0, gt=0, description="how long the predictor may take for one item")
    threads: int = Field(os.cpu_count() or 1, gt=0, description="threads that decode pictures and choose boxes")
    sync_url: str = Field("", description="http://host:port of the synchroniser; ready waits for its first models")
    predictor_secret: SecretStr = Field(
        SecretStr(""), description="PREDICTOR_SECRET, where Triton was started with one"
    )
    shutdown_timeout_s: int = Field(30, ge=0, description="how long accepted requests may take after SIGTERM")
