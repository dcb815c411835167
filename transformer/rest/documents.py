"""JSON documents of the routes that read no body: FastAPI checks them and describes them in OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from environment.error_codes import ErrorCode
from transformer.tasks import TASKS
from transformer.triton.model import TensorMetadata

_TASK_METADATA = {name: schema for task in TASKS.values() for name, schema in task.metadata_schema.items()}


class Document(BaseModel):
    """An object with its members and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), json_schema_serialization_defaults_required=True)


class Error(Document):
    """The body of every error."""

    error: str = Field(description="what is wrong: what, got and expected; the words may change")
    code: Annotated[ErrorCode, WithJsonSchema({"type": "string", "enum": list(ErrorCode)})] = Field(
        description="what clients decide by: docs/api.md"
    )


class Alive(Document):
    """Liveness in v1."""

    status: Literal["alive"] = "alive"


class Live(Document):
    """Liveness in v2."""

    live: Literal[True] = True


class Ready(Document):
    """Readiness of the server."""

    ready: Literal[True] = True


class ModelReady(Document):
    """Readiness of a model."""

    name: str
    ready: Literal[True] = True


class Models(Document):
    """Names of models."""

    models: list[str]


class Server(Document):
    """Metadata of the server."""

    name: str
    version: str
    extensions: list[str]


class Tensor(Document):
    """Metadata of a tensor."""

    name: str
    datatype: str
    shape: list[int]

    @classmethod
    def of(cls, tensor: TensorMetadata) -> "Tensor":
        """The metadata of a tensor of a model."""
        return cls(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def _describe_task_metadata(schema: dict[str, Any]) -> None:
    schema["properties"] |= _TASK_METADATA
    schema["additionalProperties"] = False


class ModelParameters(Document):
    """What a model is trained for, and its own tensors; each task has further members."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_describe_task_metadata)

    task: str | None = Field(json_schema_extra={"enum": [*TASKS, None]})
    names: list[str]
    class_ids: list[int]
    model_inputs: list[Tensor]
    model_outputs: list[Tensor]
    then_outputs: list[Tensor] = Field(description="further outputs of a request with the parameter `then`")


class ModelMetadata(Document):
    """Metadata of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    parameters: ModelParameters


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Error, "description": "what was wrong: what, got, expected"},
    "5XX": {
        "model": Error,
        "description": "the predictor lists no models (501), failed (502), is away (503, Retry-After) or late (504)",
    },
}
