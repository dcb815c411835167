"""What OpenAPI says of bodies and replies; a test holds real replies against it."""

from typing import Any

from environment.error_codes import ErrorCode

_NUMBER = {"type": "number"}
_INTEGER = {"type": "integer"}
_STRING = {"type": "string"}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A member of an object; null counts as absent."""
    return schema | {"type": [schema["type"], "null"]}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_CLASS = {"class": _STRING, "class_id": _INTEGER, "confidence": _FRACTION}
_COMMON = {
    "inference_id": {"type": "string", "format": "uuid"},
    "time": {"type": "number", "description": "seconds"},
    "model": _object({"name": _STRING, "version": _STRING, "task": {"enum": ["detect", "classify", "tabular"]}}),
    "timing_ms": _object(dict.fromkeys(("queue", "decode", "preprocess", "infer", "postprocess", "total"), _NUMBER)),
}
_IMAGE = {"image": _object({"width": _INTEGER, "height": _INTEGER})}
_ROW = {
    "oneOf": [
        _object(_CLASS | {"probabilities": {"type": "object", "additionalProperties": _FRACTION}}),
        _object({"value": _NUMBER}),
    ]
}

ERROR = _object(
    {
        "error": _STRING | {"description": "what was wrong: what, got and expected; the words may change"},
        "code": {"type": "string", "enum": list(ErrorCode), "description": "what clients decide by: docs/api.md"},
    }
)
SCHEMAS = {
    "Error": ERROR,
    "Detections": _object(
        _COMMON
        | _IMAGE
        | {
            "limits_reached": {
                "type": "object",
                "description": "where something may be missing: which limit left it out, and how many it lets pass",
                "properties": dict.fromkeys(("max_detections", "nms_candidates", "model_candidates"), _INTEGER),
                "additionalProperties": False,
            },
            "predictions": _array(
                _object(
                    {"x": _NUMBER, "y": _NUMBER, "width": _NUMBER, "height": _NUMBER}
                    | _CLASS
                    | {"detection_id": {"type": "string", "format": "uuid"}}
                    | {"box": _object({"x1": _NUMBER, "y1": _NUMBER, "x2": _NUMBER, "y2": _NUMBER})}
                )
            ),
        }
    ),
    "Classification": _object(
        _COMMON | _IMAGE | {"predictions": _array(_object(_CLASS)), "top": _STRING, "confidence": _FRACTION}
    ),
    "Table": _object(_COMMON | {"predictions": _array(_ROW)}),
    "Row": _ROW,
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_IMAGE_REPLY = {"oneOf": [_ref("Detections"), _ref("Classification")]}
_BINARY = {"type": "string", "format": "binary"}
_CELL = {"type": ["number", "string", "null"], "description": "a string or null where the model's column takes it"}
_CELLS: dict[str, Any] = {"oneOf": [_array(_CELL), {"type": "object", "additionalProperties": _CELL}]}
_BASE64 = {
    "type": "string",
    "description": "base64 of a file (RFC 4648, MIME lines, URL alphabet), or a data URI of an image",
}
_PICTURE = {
    "anyOf": [
        _BASE64,
        {
            "type": "object",
            "description": "one member holds the picture, whatever its name; others are not looked at",
            "properties": {"image": {"anyOf": [_object({"b64": _BASE64}), _BASE64]}, "b64": _BASE64},
        },
    ]
}
_INSTANCE = {"anyOf": [_PICTURE, _CELLS]}
_ERRORS = {
    "4XX": "what was wrong: what, got, expected",
    "5XX": "the predictor does not list its models (501), failed (502), is away (503, Retry-After) or late (504)",
}


def _responses(description: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    errors = {
        status: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
        for status, text in _ERRORS.items()
    }
    return {"200": {"description": description, "content": content} | more} | errors


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


_LIMITS_REACHED = {
    "description": "with an annotated picture: a JSON list that holds `limits_reached`; absent where none was reached",
    "schema": _STRING,
}
_SELECTION = [
    _query("confidence", _FRACTION | {"default": 0.25}, "scores must be above this"),
    _query("iou", _FRACTION | {"default": 0.7}, "overlap above which the weaker box of a class goes"),
    _query("max_detections", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 300}, "at most so many"),
    _query("classes", _STRING, "a name, or names and indices separated by commas; what is a name is no index"),
]

PREDICT: dict[str, Any] = {
    "parameters": _SELECTION,
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "or files of another name, where all have one; parameters may be fields",
                    "properties": {"image": _array(_BINARY)},
                    "required": ["image"],
                }
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "application/json": {
                "schema": {"anyOf": [_INSTANCE, _array(_INSTANCE)]},
                "examples": {
                    "a picture": {"value": {"image": {"b64": "<base64>"}}},
                    "one row": {"value": [5.1, 3.5, 1.4, 0.2]},
                    "rows": {"value": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]},
                },
            },
        },
    },
    "responses": _responses(
        "One object for one picture, a list for many, one object for rows; the annotated picture where `Accept` asks.",
        {
            "application/json": {"schema": {"oneOf": [_IMAGE_REPLY, _array(_IMAGE_REPLY), _ref("Table")]}},
            "image/jpeg": {"schema": _BINARY},
            "image/png": {"schema": _BINARY},
        },
        headers={"X-Limits-Reached": _LIMITS_REACHED},
    ),
}

V1_PREDICT: dict[str, Any] = {
    "parameters": _SELECTION,
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
                    "a picture": {"value": {"instances": [{"image": {"b64": "<base64>"}}]}},
                    "a picture of TensorFlow Serving": {
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
                "schema": _object({"predictions": _array({"oneOf": [_IMAGE_REPLY, _ref("Row")]})}),
            }
        },
    ),
}

_METADATA = _array(_object({"name": _STRING, "datatype": _STRING, "shape": _array(_INTEGER)}))
_ANYTHING = {"type": "object"}
_HEADER_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": _INTEGER,
    "description": "bytes of JSON before the binary data; 0: the body is the only input itself",
}


def _json_reply(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"responses": _responses(description, {"application/json": {"schema": schema}})}


def versioned(operation: dict[str, Any]) -> dict[str, Any]:
    """The same operation under a path that names the version."""
    version = {"name": "version", "in": "path", "required": True, "schema": _STRING}
    return operation | {"parameters": [*operation.get("parameters", []), version]}


HEALTH = _json_reply("Yes.", _ANYTHING)
SERVER = _json_reply(
    "Metadata of the server.", _object({"name": _STRING, "version": _STRING, "extensions": _array(_STRING)})
)
MODELS = _json_reply("Names of the models.", _object({"models": _array(_STRING)}))
READY = _json_reply("It serves.", _object({"name": _STRING, "ready": {"const": True}}))
CONFIG = _json_reply("Triton's ModelConfig.", _ANYTHING)
MODEL = _json_reply(
    "Metadata of the model.",
    _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _METADATA,
            "outputs": _METADATA,
            "parameters": _object(
                {
                    "task": {"enum": ["detect", "classify", "tabular", None]},
                    "names": _array(_STRING),
                    "class_ids": _array(_INTEGER),
                    "model_inputs": _METADATA,
                    "model_outputs": _METADATA,
                    "features": _array(_STRING),
                    "missing": _array(_STRING),
                    "categories": {"type": "object", "additionalProperties": _array({"type": ["string", "number"]})},
                },
                optional=("features", "missing", "categories"),
            ),
        }
    ),
)

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
        "description": "flat or nested; base64 strings for pictures",
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
    "parameters": [*_SELECTION, _HEADER_LENGTH],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _REQUEST,
                "examples": {
                    "a picture": {
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
        "The outputs that were asked for, or all.",
        {"application/json": {"schema": _ref("InferResponse")}, "application/octet-stream": {"schema": _BINARY}},
    ),
}
SCHEMAS["InferResponse"] = _object(
    {
        "model_name": _STRING,
        "model_version": _STRING,
        "outputs": _array(_object(_TENSOR, optional=("data", "parameters"))),
        "id": _STRING,
        "parameters": _object(
            {"limits_reached": _STRING | {"description": "a JSON list, one object for each picture"}}
        ),
    },
    optional=("id", "parameters"),
)
