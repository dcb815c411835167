"""OpenAPI of bodies that are binary, or read and written without FastAPI; a test compares real responses with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformer.observability.stage_timer import STAGES
from transformer.protocol import ultralytics
from transformer.rest.request_schemas import BINARY, PREDICT_REQUEST, V1_REQUEST, V2_REQUEST
from transformer.tasks import TASKS, finds_objects
from transformer.tasks import parameters as task_parameters
from transformer.tasks.schemas import INTEGER as _INTEGER
from transformer.tasks.schemas import NUMBER as _NUMBER
from transformer.tasks.schemas import STRING as _STRING
from transformer.tasks.schemas import UUID as _UUID
from transformer.tasks.schemas import array_of as _array
from transformer.tasks.schemas import object_of as _object
from transformer.tasks.task import ImageTask, Parameter, RowsTask, Schema, Task

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
    tasks_of_it = {"type": "string", "enum": [task.name for task in tasks]}
    return _object({"name": _STRING, "version": _STRING, "task": tasks_of_it})


def _with_classification(predictions: Schema) -> dict[str, Any]:
    """Objects that may have the prediction of a second model."""
    classifications = [_object(task.schema, title=f"Object{task.schema_name}") for task in _CLASSIFYING]
    what = "of a request with the parameter `then`; null: the object has no pixels"
    classification = {"anyOf": [*classifications, {"type": "null"}], "description": what}
    items = predictions["items"]
    return {**predictions, "items": {**items, "properties": items["properties"] | {"classification": classification}}}


_IMAGE = {"image": _object({"width": _INTEGER, "height": _INTEGER}, title="ImageSize")}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS = {
    **{task.schema_name: _result([task], _IMAGE | dict(task.schema)) for task in _IMAGE_TASKS},
    **{task.schema_name: dict(task.schema) for task in _ROWS_TASKS},
}
SCHEMAS["UltralyticsSummary"] = dict(ultralytics.SCHEMA)
_ROW = (
    _ref(_ROWS_TASKS[0].schema_name)
    if len(_ROWS_TASKS) == 1
    else {"anyOf": [_ref(task.schema_name) for task in _ROWS_TASKS]}
)
SCHEMAS["Table"] = _result(_ROWS_TASKS, {"predictions": _array(_ROW)})


SCHEMAS["ImageResult"] = {
    "description": "of a model's own task: `model.task` names it",
    "oneOf": [_ref(task.schema_name) for task in _IMAGE_TASKS],
}
_IMAGE_RESULT = _ref("ImageResult")


def _responses(description: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"200": {"description": description, "content": content} | more}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return _query(name, schema, description) | {"in": "header"}


_LIMITS_REACHED = {
    "description": "with an annotated image: a JSON list that holds `limits_reached`; absent if none was reached",
    "schema": _STRING,
}


def _task_query(parameter: Parameter) -> dict[str, Any]:
    """A parameter of tasks; its default in words: generated clients would send it to models that lack the parameter."""
    schema = {name: value for name, value in parameter.schema.items() if name != "default"}
    defaults = {
        task.name: own.schema["default"]
        for task in TASKS.values()
        for own in task.parameters
        if own.name == parameter.name and "default" in own.schema
    }
    description = parameter.description
    if len(set(defaults.values())) > 1:
        description += f" (default of {', '.join(f'{task}: {default}' for task, default in defaults.items())})"
    elif defaults:
        description += f" (default: {next(iter(defaults.values()))})"
    if parameter.repeats:
        schema = {"type": "array", "items": schema | {"minLength": 1}, "minItems": 1}
    return _query(parameter.name, schema, description)


_TIMEOUT = _header(
    "X-Request-Timeout-Ms", _INTEGER | {"minimum": 1}, "deadline of the request, at most that of the server"
)
_TASK_PARAMETERS = [*(_task_query(parameter) for parameter in task_parameters().values()), _TIMEOUT]

_FORMAT = _query(
    "format",
    {"type": "string", "enum": list(ultralytics.FORMATS)},
    "the form of JSON of images; `ultralytics`: a list for each image, as its `Results.summary()` has it (default:"
    f" {ultralytics.FORMATS[0]})",
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
                    "properties": {"image": _array(BINARY) | {"minItems": 1}},
                    "required": ["image"],
                }
            },
            "image/*": {"schema": BINARY},
            "application/octet-stream": {"schema": BINARY},
            "application/json": {
                "schema": PREDICT_REQUEST,
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
            "image/jpeg": {"schema": BINARY},
            "image/png": {"schema": BINARY},
        },
        headers={"X-Limits-Reached": _LIMITS_REACHED},
    ),
}

V1_PREDICT: dict[str, Any] = {
    "parameters": _TASK_PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": BINARY},
            "application/json": {
                "schema": V1_REQUEST,
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
        {"application/json": {"schema": _ref("V1Response")}},
    ),
}

SCHEMAS["V1Response"] = _object({"predictions": _array({"oneOf": [_IMAGE_RESULT, _ROW]})})

_ANYTHING = {"type": "object"}
_HEADER_LENGTH = _header(
    "Inference-Header-Content-Length",
    _INTEGER | {"minimum": 0},
    "bytes of JSON before the binary data; 0: the body is the only input itself",
)


def versioned(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation under a path that names the version."""
    version = {"name": "version", "in": "path", "required": True, "schema": _STRING}
    return operation | {"parameters": [*operation.get("parameters", []), version]}


CONFIG: dict[str, Any] = {"responses": _responses("Triton's ModelConfig.", {"application/json": {"schema": _ANYTHING}})}

_TENSOR = {
    "name": _STRING,
    "datatype": _STRING,
    "shape": _array(_INTEGER),
    "data": _array({"type": ["boolean", "number", "string", "null"]}),
    "parameters": _ANYTHING,
}
V2_INFER: dict[str, Any] = {
    "parameters": [*_TASK_PARAMETERS, _HEADER_LENGTH],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": V2_REQUEST,
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
            "application/octet-stream": {"schema": BINARY},
        },
    },
    "responses": _responses(
        "The requested outputs, or all.",
        {"application/json": {"schema": _ref("InferResponse")}, "application/octet-stream": {"schema": BINARY}},
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
        "outputs": _array(_object(_TENSOR, optional=("data", "parameters"), title="OutputTensor")),
        "id": _STRING,
        "parameters": _object(_RESPONSE_PARAMETERS, optional=tuple(_RESPONSE_PARAMETERS), title="ResponseParameters"),
    },
    optional=("id", "parameters"),
)

METRICS: dict[str, Any] = {"responses": _responses("In Prometheus' text format.", {"text/plain": {"schema": _STRING}})}
STATUS: dict[str, Any] = {
    "responses": _responses(
        "What the synchroniser knows of each model; docs/operations.md.", {"application/json": {"schema": _ANYTHING}}
    )
}
