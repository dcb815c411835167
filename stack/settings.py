"""The settings of the local stack: variables of `make serve`, and options of `nereid serve` by the same names."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from environment.listening import Address, join, within_reach
from environment.project import ROOT, from_root, in_project
from environment.variables import reject_empty
from registry.errors import Misconfigured
from registry.profiles import AUTO
from registry.storage.address import read_address

# Part of a mirror's name: what a synchroniser with other rules has let in is not loaded.
_RULES = 3
Port = Annotated[int, Field(ge=1, le=65535)]
# The shell of a CI may have any other value under such a name.
Flag = Annotated[bool, BeforeValidator(lambda value: value in {True, "1"})]
# No options: settings that the parts read too, a secret, which every user could read among the arguments, and what the
# image sets.
_NO_OPTIONS = {"transformer_host", "predictor_address", "predictor_sync_address", "nereid_api_key", "stop_triton_s"}


class StackError(Exception):
    """The stack cannot start; the message says why and what to do."""


class StackSettings(BaseSettings):
    """What `make serve` and `nereid serve` read; an option counts more than the variable of its name."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    repository: str = Field(
        default_factory=lambda: str(in_project("model_repository")),
        description="model repository: a folder, or s3://bucket/prefix (default: model_repository of the project)",
    )
    mirror: Path | None = Field(None, description="where models are mirrored to (default: a folder of .cache/mirror)")
    signed_by: Path | None = Field(
        None,
        validate_default=True,
        description="public keys or certificates that versions have to be signed by (default: none has to be)",
    )
    profile: str = Field(
        AUTO,
        pattern="^[a-z][0-9a-z-]*$",
        description="auto, fp32, openvino, fast, int8, gpu, tensorrt, or one of the repository's own",
    )
    poll_s: float = Field(10, ge=0.1, description="seconds between two looks at the repository")
    settle_s: float = Field(10, ge=0, description="seconds without a change before a version without a manifest counts")
    http_port: Port = Field(8080, description="HTTP of the transformer")
    grpc_port: Port = Field(8081, description="gRPC of the transformer")
    triton_http_port: Port = Field(8000, description="HTTP of Triton")
    triton_grpc_port: Port = Field(8001, description="gRPC of Triton")
    triton_metrics_port: Port = Field(8002, description="metrics of Triton")
    sync_port: Port = Field(8003, description="status and metrics of the synchroniser")
    triton_url: str = Field("", description="host:port of the gRPC of a Triton that runs already (default: start one)")
    verbose: Flag = Field(False, description="show all logs here instead of writing them to files")
    # The parts read them too.
    transformer_host: Address = "127.0.0.1"
    predictor_address: Address = "127.0.0.1"
    predictor_sync_address: Address = "127.0.0.1"
    stop_triton_s: int = Field(
        40, ge=1, description="seconds in which Triton, the last of the parts, has to end; 5 in the image. No option"
    )
    # Shown to a transformer with TRANSFORMER_API_KEYS_FILE, to list what it serves.
    nereid_api_key: str = Field(default="", pattern="^[!-~]*$")

    @field_validator("signed_by", mode="before")
    @classmethod
    def _reject_empty(cls, value: object) -> object:
        reject_empty("SIGNED_BY")  # it would turn the policy off
        return value

    @property
    def predictor_host(self) -> str:
        """`host:port` of the gRPC port of the Triton that is used."""
        return self.triton_url.removeprefix("grpc://").rstrip("/") or join(
            within_reach(self.predictor_address), self.triton_grpc_port
        )

    @property
    def url(self) -> str:
        """Where clients on this machine reach the transformer."""
        return f"http://{join(within_reach(self.transformer_host), self.http_port)}"

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Address and port of every socket that the stack listens on, by the variable that sets the port."""
        ports = {"HTTP_PORT": (self.transformer_host, self.http_port)}
        ports["GRPC_PORT"] = (self.transformer_host, self.grpc_port)
        if not self.triton_url:
            ports |= {
                "TRITON_HTTP_PORT": (self.predictor_address, self.triton_http_port),
                "TRITON_GRPC_PORT": (self.predictor_address, self.triton_grpc_port),
                "TRITON_METRICS_PORT": (self.predictor_address, self.triton_metrics_port),
                "SYNC_PORT": (self.predictor_sync_address, self.sync_port),
            }
        return ports

    @property
    def folder(self) -> Path | None:
        """The repository, if it is a folder of this machine; None for a bucket.

        Raises:
            StackError: the address is invalid.
        """
        try:
            place = read_address(self.repository)
        except Misconfigured as exc:
            raise StackError(str(exc)) from exc
        return place if isinstance(place, Path) else None

    @property
    def predictor_repository(self) -> str:
        """The repository as the synchroniser is given it, whose folder is the project's."""
        return self.repository if self.folder is None or Path.cwd() == ROOT else str(from_root(self.folder))

    @property
    def mirror_folder(self) -> Path:
        """Where the models of this repository are mirrored to.

        One folder per repository and profile: the mirror holds configs that are already merged with the profile.
        """
        if self.mirror is not None:
            return self.mirror
        place = str(self.folder.absolute()).removeprefix(f"{ROOT}/") if self.folder else self.repository
        name = re.sub(r"[^a-z0-9]+", "-", place.lower()).strip("-")[:40]
        source = f"{self.folder.resolve() if self.folder else self.repository}#{self.profile}#{_RULES}"
        return in_project(f".cache/mirror/{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}")

    @property
    def log_folder(self) -> Path:
        """Where the logs of the parts are; two stacks of one machine differ in their ports."""
        return in_project(f"output/serve-{self.http_port}")


def iterate_options() -> Iterator[tuple[str, str, bool]]:
    """Name, description with the default, and whether it takes no value, of each setting that is an option."""
    for name, field in StackSettings.model_fields.items():
        if name not in _NO_OPTIONS:
            is_flag = isinstance(field.default, bool)
            has_default = not is_flag and isinstance(field.default, int | float | str) and field.default != ""
            default = f" (default: {field.default})" if has_default else ""
            yield name, f"{field.description}{default}", is_flag


def describe(error: ValidationError, options: "dict[str, str]") -> str:
    """What is wrong with the first setting that is invalid, by the name under which it was given.

    Args:
        error: of `StackSettings`.
        options: variables that were given as options, and their values.
    """
    first = error.errors()[0]
    name = str(first["loc"][0])
    got = "something else (not shown)" if name == "nereid_api_key" else repr(first["input"])
    given = f"--{name.replace('_', '-')}" if name.upper() in options else name.upper()
    return f"{given}: got {got}: {first['msg']}"
