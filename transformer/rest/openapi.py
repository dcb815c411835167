"""OpenAPI of bodies that are binary, or read and written without FastAPI; a test compares real responses with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformer.observability.stage_timer import STAGES
from transformer.protocol import ultralytics
from transformer.tasks import TASKS, finds_objects
from transformer.tasks import parameters as task_parameters
from transformer.tasks.schemas import INTEGER as _INTEGER
from transformer.tasks.schemas import NUMBER as _NUMBER
from transformer.tasks.schemas import STRING as _STRING
from transformer.tasks.schemas import UUID as _UUID
from transformer.tasks.schemas import array_of as _array
from transformer.tasks.schemas import object_of as _object
from transformer.tasks.task import ImageTask, Parameter, RowsTask, Schema, Task


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A member of an object; null counts as absent."""
    return schema | {"type": [schema["type"], "null"]}


_IMAGE_TASKS = [task for task in TASKS.values() if isinstance(task, ImageTask)]
_CLASSIFYING = [task for task in _IMAGE_TASKS if task.classifies]
_ROWS_TASKS = [task for task in TASKS.values() if isinstance(task, RowsTask)]


def _result(tasks: Sequence[Task], members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that every response to a model of these tasks has, and further ones."""
    stages = dict.fromkeys((*STAGES, "total"), _NUMBER)
    common = {
        "inference_id": _UUID,
        "time": {"type": "number", "description": "seconds"},
        "model": _model(tasks),
        "timing_ms": _object(stages),
    }
    if not all(map(finds_objects, tasks)):
        return _object(common | dict(members))
    then = {
        "then": _model(_CLASSIFYING) | {"description": "of a request with the parameter `then`"},
        "timing_ms": _object(stages | {"then": _NUMBER}, optional=("then",)),
        "predictions": _with_classification(members["predictions"]),
    }
    return _object(common | dict(members) | then, optional=("then",))


def _model(tasks: Sequence[Task]) -> dict[str, Any]:
    return _object({"name": _STRING, "version": _STRING, "task": {"enum": [task.name for task in tasks]}})


def _with_classification(predictions: Schema) -> dict[str, Any]:
    """Objects that may have the prediction of a second model."""
    classifications = [_object(task.schema) for task in _CLASSIFYING]
    what = "of a request with the parameter `then`; null: the object has no pixels"
    classification = {"anyOf": [*classifications, {"type": "null"}], "description": what}
    items = predictions["items"]
    return {**predictions, "items": {**items, "properties": items["properties"] | {"classification": classification}}}


_IMAGE = {"image": _object({"width": _INTEGER, "height": _INTEGER})}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS = {
    **{task.schema_name: _result([task], _IMAGE | dict(task.schema)) for task in _IMAGE_TASKS},
    **{task.schema_name: dict(task.schema) for task in _ROWS_TASKS},
}
_ROW = {"anyOf": [_ref(task.schema_name) for task in _ROWS_TASKS]}
SCHEMAS["UltralyticsSummary"] = dict(ultralytics.SCHEMA)
SCHEMAS["Table"] = _result(_ROWS_TASKS, {"predictions": _array(_ROW)})


_IMAGE_RESULT = {"oneOf": [_ref(task.schema_name) for task in _IMAGE_TASKS]}
_BINARY = {"type": "string", "format": "binary"}
_CELL = {"type": ["number", "string", "null"], "description": "a string or null if the model's column takes it"}
_CELLS: dict[str, Any] = {"oneOf": [_array(_CELL), {"type": "object", "additionalProperties": _CELL}]}
_BASE64 = {
    "type": "string",
    "description": "base64 of a file (RFC 4648, MIME lines, URL alphabet), or a data URI of an image",
}
_IMAGE_INSTANCE = {
    "anyOf": [
        _BASE64,
        {
            "type": "object",
            "description": "one member holds the image, whatever its name; others are ignored",
            "properties": {"image": {"anyOf": [_object({"b64": _BASE64}), _BASE64]}, "b64": _BASE64},
        },
    ]
}
_INSTANCE = {"anyOf": [_IMAGE_INSTANCE, _CELLS]}


def _responses(description: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"200": {"description": description, "content": content} | more}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


_LIMITS_REACHED = {
    "description": "with an annotated image: a JSON list that holds `limits_reached`; absent if none was reached",
    "schema": _STRING,
}


def _task_query(parameter: Parameter) -> dict[str, Any]:
    """A parameter of tasks; its default in words where each of them has another one."""
    schema, description = dict(parameter.schema), parameter.description
    defaults = {
        task.name: own.schema.get("default")
        for task in TASKS.values()
        for own in task.parameters
        if own.name == parameter.name
    }
    if len(set(defaults.values())) > 1:
        schema.pop("default", None)
        description += f" (default of {', '.join(f'{task}: {default}' for task, default in defaults.items())})"
    return _query(parameter.name, schema, description)


_TASK_PARAMETERS = [_task_query(parameter) for parameter in task_parameters().values()]

_FORMAT = _query(
    "format",
    {"enum": list(ultralytics.FORMATS), "default": ultralytics.FORMATS[0]},
    "the form of JSON of images; `ultralytics`: a list for each image, as its `Results.summary()` has it",
)
PREDICT: dict[str, Any] = {
    "parameters": [*_TASK_PARAMETERS, _FORMAT],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "or files of another name, if all have the same; parameters may be fields",
                    "properties": {"image": _array(_BINARY)},
                    "required": ["image"],
                }
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "application/json": {
                "schema": {"anyOf": [_INSTANCE, _array(_INSTANCE)]},
                "examples": {
                    "an image": {"value": {"image": {"b64": "<base64>"}}},
                    "one row": {"value": [5.1, 3.5, 1.4, 0.2]},
                    "rows": {"value": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]},
                },
            },
        },
    },
    "responses": _responses(
        "One object for an image, a list for several, one object for rows; the annotated image if `Accept` prefers it.",
        {
            "application/json": {
                "schema": {
                    "anyOf": [
                        _IMAGE_RESULT,
                        _array(_IMAGE_RESULT),
                        _ref("Table"),
                        _ref("UltralyticsSummary"),
                        _array(_ref("UltralyticsSummary")),
                    ]
                }
            },
            "image/jpeg": {"schema": _BINARY},
            "image/png": {"schema": _BINARY},
        },
        headers={"X-Limits-Reached": _LIMITS_REACHED},
    ),
}

V1_PREDICT: dict[str, Any] = {
    "parameters": _TASK_PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _BINARY},
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "instances": _array(_INSTANCE),
                        "inputs": {
                            "description": "as instances, or columns by name (TensorFlow Serving)",
                            "anyOf": [_array(_INSTANCE), _BASE64, {"type": "object"}],
                        },
                        "parameters": _or_null(
                            {"type": "object", "description": "as the query parameters of /predict"}
                        ),
                        "signature_name": {"enum": ["serving_default", None]},
                    },
                    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
                    "additionalProperties": False,
                },
                "examples": {
                    "an image": {"value": {"instances": [{"image": {"b64": "<base64>"}}]}},
                    "an image of TensorFlow Serving": {
                        "value": {"instances": [{"image_bytes": {"b64": "<base64>"}, "key": "1"}]}
                    },
                    "rows": {"value": {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}},
                },
            },
        },
    },
    "responses": _responses(
        "One prediction for each instance.",
        {
            "application/json": {
                "schema": _object({"predictions": _array({"oneOf": [_IMAGE_RESULT, _ROW]})}),
            }
        },
    ),
}

_ANYTHING = {"type": "object"}
_HEADER_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": _INTEGER,
    "description": "bytes of JSON before the binary data; 0: the body is the only input itself",
}


def versioned(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation under a path that names the version."""
    version = {"name": "version", "in": "path", "required": True, "schema": _STRING}
    return operation | {"parameters": [*operation.get("parameters", []), version]}


CONFIG: dict[str, Any] = {"responses": _responses("Triton's ModelConfig.", {"application/json": {"schema": _ANYTHING}})}

_TENSOR = {
    "name": _STRING,
    "datatype": _STRING,
    "shape": _array(_INTEGER),
    "data": _array({}),
    "parameters": _ANYTHING,
}
_PARAMETERS = _or_null(_ANYTHING)
_INPUT = _TENSOR | {
    "data": {
        "type": ["array", "string", "null"],
        "description": "flat or nested; base64 strings for images",
        "items": {},
    },
    "parameters": _PARAMETERS,
}
_REQUEST = _object(
    {
        "inputs": _array(_object(_INPUT, optional=("data", "parameters"))),
        "outputs": _or_null(_array(_object({"name": _STRING, "parameters": _PARAMETERS}, optional=("parameters",)))),
        "parameters": _or_null(
            {"type": "object", "description": "as the query parameters of /predict; binary_data_output"}
        ),
        "id": _or_null(_STRING),
    },
    optional=("outputs", "parameters", "id"),
)
V2_INFER: dict[str, Any] = {
    "parameters": [*_TASK_PARAMETERS, _HEADER_LENGTH],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _REQUEST,
                "examples": {
                    "an image": {
                        "value": {
                            "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["<base64>"]}],
                            "parameters": {"confidence": 0.5},
                        }
                    },
                    "a row": {
                        "value": {
                            "inputs": [
                                {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}
                            ]
                        }
                    },
                },
            },
            "application/octet-stream": {"schema": _BINARY},
        },
    },
    "responses": _responses(
        "The requested outputs, or all.",
        {"application/json": {"schema": _ref("InferResponse")}, "application/octet-stream": {"schema": _BINARY}},
    ),
}
_RESPONSE_PARAMETERS = {
    "limits_reached": _STRING | {"description": "a JSON list, one object for each image"},
    "then_model_name": _STRING | {"description": "of a request with the parameter `then`"},
    "then_model_version": _STRING,
}
SCHEMAS["InferResponse"] = _object(
    {
        "model_name": _STRING,
        "model_version": _STRING,
        "outputs": _array(_object(_TENSOR, optional=("data", "parameters"))),
        "id": _STRING,
        "parameters": _object(_RESPONSE_PARAMETERS, optional=tuple(_RESPONSE_PARAMETERS)),
    },
    optional=("id", "parameters"),
)
