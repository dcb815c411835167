"""JSON schemas of request bodies: what they reject, the server rejects too, and nearly always the other way round.

Only a `priority` that is not a whole number and an empty column of v1's `inputs` pass here and not there.
A test compares them with the server. What no schema says is left to the server: whether base64 is an image, names of
classes and models, columns of the same length, as many elements as a shape has, what a model's task takes.
"""

from typing import Any

from transformer.protocol.v2 import MAX_ENTRIES
from transformer.protocol.v2_messages import CLASS_COUNTS
from transformer.tasks import parameters as task_parameters
from transformer.tasks.parameter_values import MAX_CLASSES
from transformer.tasks.schemas import INTEGER, STRING, array_of, object_of
from transformer.tasks.task import Parameter
from transformer.triton.tensors import DTYPES, LARGEST_DIMENSION, LONGEST_NAME, MOST_DIMENSIONS

BINARY = {"type": "string", "format": "binary"}

_SCALAR = {"type": ["boolean", "number", "string", "null"]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A member of an object; null counts as absent."""
    return schema | {"type": [schema["type"], "null"]}


def _some(items: dict[str, Any], *, most: int | None = None) -> dict[str, Any]:
    """A list that is not empty."""
    return array_of(items) | {"minItems": 1} | ({"maxItems": most} if most else {})


def _in_json(parameter: Parameter) -> dict[str, Any]:
    """A parameter as a member of an object: null counts as absent, one that is repeated in a query may be a list."""
    schema = {name: value for name, value in parameter.schema.items() if name != "default"}
    if parameter.repeats:
        entry = {"anyOf": [schema | {"minLength": 1}, INTEGER | {"minimum": 0}]}
        return {"anyOf": [*entry["anyOf"], array_of(entry) | {"maxItems": MAX_CLASSES}, {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


_TASK_PARAMETERS = {parameter.name: _in_json(parameter) for parameter in task_parameters().values()}

_CELL = {"type": ["number", "string", "null"], "description": "a string or null if the model's column takes it"}
_CELLS: dict[str, Any] = {
    "title": "Cells",
    "oneOf": [_some(_CELL), {"type": "object", "additionalProperties": _CELL, "minProperties": 1}],
}
_BASE64 = STRING | {
    "minLength": 1,
    "description": "base64 of a file (RFC 4648, MIME lines, URL alphabet), or a data URI of an image",
}
_IMAGE_OBJECT = {
    "title": "JsonImage",
    "type": "object",
    "description": "one member holds the image, whatever its name; others are ignored",
    "properties": {"image": {"anyOf": [object_of({"b64": _BASE64}, title="Base64Image"), _BASE64]}, "b64": _BASE64},
    "minProperties": 1,
}
_INSTANCE = {"anyOf": [_BASE64, _IMAGE_OBJECT, _CELLS]}

PREDICT_REQUEST = {"anyOf": [_INSTANCE, _some(_INSTANCE)]}

V1_REQUEST: dict[str, Any] = {
    "title": "V1Request",
    "type": "object",
    "properties": {
        "instances": _some(_INSTANCE),
        "inputs": {
            "description": "as instances, or columns by name (TensorFlow Serving)",
            "anyOf": [_some(_INSTANCE), _BASE64, {"type": "object", "minProperties": 1}],
        },
        "parameters": _or_null(
            {
                "type": "object",
                "description": "as the query parameters of /predict",
                "properties": _TASK_PARAMETERS,
                "additionalProperties": False,
            }
        ),
        "signature_name": {"enum": ["serving_default", None]},
    },
    # One of them; said without `oneOf`, of which generators of clients make a choice of classes.
    "if": {"required": ["instances"]},
    "then": {"not": {"required": ["inputs"]}},
    "else": {"required": ["inputs"]},
    "additionalProperties": False,
}

_NO_SHARED_MEMORY = {"propertyNames": {"not": {"pattern": "^shared_memory_"}}}
_TENSOR_PARAMETERS = {
    "type": ["object", "null"],
    "properties": {"binary_data_size": {"type": ["integer", "null"], "minimum": 0}},
    **_NO_SHARED_MEMORY,
}
_INPUT = object_of(
    {
        "name": STRING | {"maxLength": LONGEST_NAME},
        "datatype": {"type": "string", "enum": [*DTYPES, "BF16", "BYTES"]},
        "shape": array_of(INTEGER | {"minimum": 0, "maximum": LARGEST_DIMENSION}) | {"maxItems": MOST_DIMENSIONS},
        "data": {
            "type": ["array", "string", "null"],
            "description": "flat or nested; base64 strings for images; absent where `binary_data_size` says its bytes",
            "items": {"anyOf": [_SCALAR, array_of({})]},
        },
        "parameters": _TENSOR_PARAMETERS,
    },
    optional=("data", "parameters"),
    title="InputTensor",
) | {
    # Without data, or with null, its bytes follow the JSON.
    "if": {"properties": {"data": {"type": "null"}}},
    "then": {
        "required": ["parameters"],
        "properties": {"parameters": {"type": "object", "required": ["binary_data_size"]}},
    },
    "additionalProperties": True,
}
_OUTPUT = object_of(
    {
        "name": STRING,
        "parameters": {
            "type": ["object", "null"],
            "properties": {
                "binary_data": {"type": ["boolean", "null"]},
                "classification": {"type": ["integer", "null"], "minimum": 0, "maximum": CLASS_COUNTS[-1]},
            },
            **_NO_SHARED_MEMORY,
        },
    },
    optional=("parameters",),
    title="RequestedOutput",
) | {"additionalProperties": True}
V2_REQUEST: dict[str, Any] = object_of(
    {
        "inputs": _some(_INPUT, most=MAX_ENTRIES),
        "outputs": _or_null(array_of(_OUTPUT) | {"maxItems": MAX_ENTRIES}),
        "parameters": {
            "type": ["object", "null"],
            "description": "as the query parameters of /predict; binary_data_output",
            "properties": {**_TASK_PARAMETERS, "binary_data_output": {"type": ["boolean", "null"]}},
            "additionalProperties": _SCALAR,
            "maxProperties": MAX_ENTRIES,
        },
        "id": _or_null(STRING),
    },
    optional=("outputs", "parameters", "id"),
    title="InferRequest",
) | {"additionalProperties": True}
