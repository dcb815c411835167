"""Every `code` that stands beside the text of an error, over HTTP and in gRPC's trailing metadata.

`transformer` and the synchroniser return them, `export`, `loadtest` and `stack` decide by them; this module imports
none of these. The text of an error may change with any release, a code keeps its meaning.
"""

import json
from enum import StrEnum

# Key of the trailing metadata. gRPC allows [0-9a-z_.-] in a key, and reserves those that begin with "grpc-".
GRPC_KEY = "nereid-error-code"


class ErrorCode(StrEnum):
    """The closed list of codes; `docs/api.md` has what each means, and what a client does.

    Attributes:
        http_status: HTTP status of the response; 499 stands in logs only.
        grpc_status: name of gRPC's status code; "" of errors that only HTTP has.
        is_retryable: whether the same request may soon succeed: the response has `Retry-After`.
    """

    http_status: int
    grpc_status: str
    is_retryable: bool

    def __new__(cls, word: str, http_status: int = 500, grpc_status: str = "", *marks: str) -> "ErrorCode":
        """A member whose value is the word alone."""
        code = str.__new__(cls, word)
        code._value_ = word
        code.http_status, code.grpc_status, code.is_retryable = http_status, grpc_status, "retry" in marks
        return code

    # The connection, before there is a request.
    MALFORMED_REQUEST = "malformed_request", 400
    UNSUPPORTED_TRANSFER_ENCODING = "unsupported_transfer_encoding", 501
    UNSUPPORTED_HTTP_VERSION = "unsupported_http_version", 505
    HEAD_TOO_LARGE = "head_too_large", 431
    HEAD_TIMEOUT = "head_timeout", 408
    # The request, before anything is computed.
    MISDIRECTED_REQUEST = "misdirected_request", 421
    MISSING_API_KEY = "missing_api_key", 401, "UNAUTHENTICATED"
    UNKNOWN_API_KEY = "unknown_api_key", 403, "PERMISSION_DENIED"
    ROUTE_NOT_FOUND = "route_not_found", 404, "UNIMPLEMENTED"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    QUEUE_FULL = "queue_full", 429, "RESOURCE_EXHAUSTED", "retry"
    MEMORY_FULL = "memory_full", 429, "RESOURCE_EXHAUSTED", "retry"
    OUT_OF_MEMORY = "out_of_memory", 429, "RESOURCE_EXHAUSTED", "retry"
    OVERLOADED = "overloaded", 429, "RESOURCE_EXHAUSTED", "retry"
    BODY_TIMEOUT = "body_timeout", 408, "DEADLINE_EXCEEDED"  # not CANCELLED: a client reads that of a call it gave up
    CLIENT_DISCONNECTED = "client_disconnected", 499, "CANCELLED"
    MISSING_MESSAGE = "missing_message", 400, "UNIMPLEMENTED"  # as gRPC's list of status codes has it
    # The contents of the request.
    INVALID_REQUEST = "invalid_request", 400, "INVALID_ARGUMENT"
    INVALID_IMAGE = "invalid_image", 400, "INVALID_ARGUMENT"
    PAYLOAD_TOO_LARGE = "payload_too_large", 413, "RESOURCE_EXHAUSTED"
    UNSUPPORTED_MEDIA = "unsupported_media", 415, "INVALID_ARGUMENT"
    MODEL_NOT_FOUND = "model_not_found", 404, "NOT_FOUND"
    VERSION_NOT_FOUND = "version_not_found", 404, "NOT_FOUND"
    SERVICE_NOT_FOUND = "service_not_found", 404, "NOT_FOUND"
    SYNCHRONISER_NOT_FOUND = "synchroniser_not_found", 404
    # Models and the predictor.
    NO_READY_VERSION = "no_ready_version", 503, "UNAVAILABLE", "retry"
    NO_SERVABLE_VERSION = "no_servable_version", 503, "FAILED_PRECONDITION"  # not UNAVAILABLE, which clients retry
    VERSIONS_CHANGING = "versions_changing", 503, "UNAVAILABLE", "retry"
    NOT_READY = "not_ready", 503, "UNAVAILABLE", "retry"
    PREDICTOR_UNAVAILABLE = "predictor_unavailable", 503, "UNAVAILABLE", "retry"
    PREDICTOR_TIMEOUT = "predictor_timeout", 504, "DEADLINE_EXCEEDED"
    PREDICTOR_FAILED = "predictor_failed", 502, "INTERNAL"
    INVALID_MODEL_CONFIG = "invalid_model_config", 502, "INTERNAL"
    MODELS_NOT_LISTED = "models_not_listed", 501, "UNIMPLEMENTED"
    DEADLINE_EXCEEDED = "deadline_exceeded", 504, "DEADLINE_EXCEEDED"
    SHUTTING_DOWN = "shutting_down", 503, "", "retry"
    INTERNAL_ERROR = "internal_error", 500, "INTERNAL"


def read_code(body: str | bytes) -> ErrorCode | None:
    """The code in the body of an error; None where it has none, or one that only later releases know."""
    try:
        return ErrorCode(json.loads(body)["code"])
    except (ValueError, LookupError, TypeError):
        return None
