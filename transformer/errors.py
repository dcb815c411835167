"""Every error that a client can see.

    ServingError                500  internal_error
      InvalidRequest            400  invalid_request         tensor name, shape, encoding, parameter
        InvalidImage            400  invalid_image           bytes that are not an image we decode
        MissingMessage          400  missing_message         a gRPC call without its message
      UnsupportedMedia          415  unsupported_media       format or content encoding not on the list
      PayloadTooLarge           413  payload_too_large       bytes, pixels, items
      ModelNotFound             404  model_not_found
        VersionNotFound         404  version_not_found
      ServiceNotFound           404  service_not_found       of grpc.health.v1
      SynchroniserNotFound      404  synchroniser_not_found  /status without a synchroniser
      RouteNotFound             404  route_not_found         and methods of gRPC
      NoServableVersion         503  no_servable_version     every version is rejected, until another is uploaded
      ModelsNotListed           501  models_not_listed       Triton lists its models only for its secret
      PredictorError            502  predictor_failed        Triton failed
        PredictorUnavailable    503  predictor_unavailable   no connection, or the model is not ready; Retry-After
          NotReady              503  not_ready               the first models are being loaded
          NoReadyVersion        503  no_ready_version        no version of the model is loaded yet
          VersionsChanging      503  versions_changing       no version stayed for the whole of a request
        PredictorTimeout        504  predictor_timeout
        ModelConfigError        502  invalid_model_config    transformer/triton/model.py
        TensorRejected          502  predictor_failed        transformer/triton/status.py
      Overloaded                429  overloaded              rejected at admission; Retry-After
        QueueFull               429  queue_full
        MemoryFull              429  memory_full             bodies and unread responses are over their limit
        OutOfMemory             429  out_of_memory           MemoryError
      DeadlineExceeded          504  deadline_exceeded
      BodyTimeout               408  body_timeout            the body stopped arriving
      Unauthenticated           401  missing_api_key
      Forbidden                 403  unknown_api_key
      MisdirectedRequest        421  misdirected_request     a Host that is not this server
      ClientDisconnected        499  client_disconnected     the client does not read the response

A message says what, got and expected. What a client sent stands in quotes or behind "got", where the log is cut.
Errors of 500 and above keep their message for the log; the client reads a fixed phrase and the request id. Exceptions
are NoServableVersion and DeadlineExceeded: the client can act on their message, and reads it. Codes of a connection or
a route (`malformed_request`, `method_not_allowed`, `shutting_down` and such) have no class: `rest` writes them.
"""

import logging
import re
import reprlib
from http import HTTPStatus
from typing import Any, ClassVar, Self

from environment.error_codes import ErrorCode

MESSAGE_LENGTH = 600  # of what is quoted from a client, in responses and in the log
# How a quoted value of a client begins, in messages of this server, of Triton and of libraries.
_VALUE = re.compile(r"b?['\"]|\b(got|found)\b", re.IGNORECASE)
_LOG_LENGTH = 10_000  # of messages of Triton, which may hold tracebacks of its backends
_RETRY_AFTER_S = 1


# repr() of what JSON brings can be long, and fails where it is deep.
_EXCERPT = reprlib.Repr()
_EXCERPT.maxlevel, _EXCERPT.maxstring, _EXCERPT.maxother = 2, 60, 60


def excerpt(value: Any) -> str:
    """A client's value in a message: short, however long or deep it is."""
    return _EXCERPT.repr(value)[:MESSAGE_LENGTH]


class ServingError(Exception):
    """Root of the tree.

    Attributes:
        code: what clients and tests decide by; HTTP's and gRPC's statuses belong to it.
        phrase: what a client reads in place of the message of 500 and above; None where it can act on the message.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    phrase: ClassVar[str | None] = "internal error"

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.code.http_status

    @property
    def retry_after_s(self) -> int | None:
        """Value of `Retry-After`, or None."""
        return _RETRY_AFTER_S if self.code.is_retryable else None

    @property
    def is_for_client(self) -> bool:
        """Whether the client reads the message itself."""
        return self.status < HTTPStatus.INTERNAL_SERVER_ERROR or self.phrase is None

    def at(self, where: str) -> Self:
        """The same error, whose message begins with the part of the request that it is about."""
        # Without __init__, whose arguments make the message of some classes.
        return type(self).__new__(type(self), f"{where}: {self}")

    def for_client(self, request_id: str) -> str:
        """What the client reads."""
        if not self.is_for_client:
            return f"{self.phrase} (request {request_id})"
        message = str(self)
        return message if len(message) <= MESSAGE_LENGTH else f"{message[:MESSAGE_LENGTH]} ..."

    def for_log(self) -> str:
        """The text for the log: of a client error only the part that quotes nothing of the request."""
        message = f"{type(self).__name__}: {self}"
        if not self.is_for_client:
            return message[:_LOG_LENGTH]
        # Where the quoted part of a payload ends is unknown: it may contain quotes, or be cut.
        value = _VALUE.search(message)
        return f"{message[: value.start()]}..." if value else message[:MESSAGE_LENGTH]

    @property
    def log_level(self) -> int:
        """A client's mistake is no error of the server."""
        return logging.INFO if self.is_for_client else logging.ERROR


class InvalidRequest(ServingError):
    """A tensor's name, its shape, an encoding or a parameter is invalid."""

    code = ErrorCode.INVALID_REQUEST


class InvalidImage(InvalidRequest):
    """The bytes are not an image that can be decoded."""

    code = ErrorCode.INVALID_IMAGE


class MissingMessage(InvalidRequest):
    """A gRPC call ended before its message."""

    code = ErrorCode.MISSING_MESSAGE


class UnsupportedMedia(ServingError):
    """The format is not on the list."""

    code = ErrorCode.UNSUPPORTED_MEDIA


class PayloadTooLarge(ServingError):
    """More bytes, pixels, items or values than a limit allows."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class ModelNotFound(ServingError):
    """No model has that name."""

    code = ErrorCode.MODEL_NOT_FOUND


class VersionNotFound(ModelNotFound):
    """The model has no such version, or does not serve it."""

    code = ErrorCode.VERSION_NOT_FOUND


class ServiceNotFound(ServingError):
    """`grpc.health.v1` knows no such service."""

    code = ErrorCode.SERVICE_NOT_FOUND


class SynchroniserNotFound(ServingError):
    """`/status` is the synchroniser's, and none is configured."""

    code = ErrorCode.SYNCHRONISER_NOT_FOUND


class RouteNotFound(ServingError):
    """No such route, or method of gRPC."""

    code = ErrorCode.ROUTE_NOT_FOUND


class ModelsNotListed(ServingError):
    """Triton lists its models only for its secret, and there is no synchroniser that would know them."""

    code = ErrorCode.MODELS_NOT_LISTED
    phrase = "the predictor does not list its models"


class PredictorError(ServingError):
    """Triton failed."""

    code = ErrorCode.PREDICTOR_FAILED
    phrase = "the predictor failed"


class PredictorUnavailable(PredictorError):
    """No connection to Triton, or the model is not ready."""

    code = ErrorCode.PREDICTOR_UNAVAILABLE
    phrase = "the predictor is not available"


class NotReady(PredictorUnavailable):
    """Triton or the first models are not ready."""

    code = ErrorCode.NOT_READY


class NoReadyVersion(PredictorUnavailable):
    """The model is known, and no version of it is ready."""

    code = ErrorCode.NO_READY_VERSION

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} has no version that is ready")


class VersionsChanging(PredictorUnavailable):
    """Swaps follow each other so quickly that no version responds to the whole of a request."""

    code = ErrorCode.VERSIONS_CHANGING

    def __init__(self, name: str, tries: int) -> None:
        super().__init__(f"{name}: several versions responded to one request, {tries} times")


class NoServableVersion(ServingError):
    """Every version of the model, or the requested one, is rejected, until another one is uploaded."""

    code = ErrorCode.NO_SERVABLE_VERSION
    phrase = None

    def __init__(self, name: str, version: str, reason: str) -> None:
        what = f"version {version!r} does not serve" if version else "no version of it serves"
        super().__init__(f"model {name!r}: {what}: see /status" + (f"; {reason}" if reason else ""))


class PredictorTimeout(PredictorError):
    """Triton did not respond in time."""

    code = ErrorCode.PREDICTOR_TIMEOUT
    phrase = "the predictor did not respond in time"


class Overloaded(ServingError):
    """Rejected at admission."""

    code = ErrorCode.OVERLOADED

    @property
    def log_level(self) -> int:
        """The request's own line has the code, and metrics count it: under overload a second line is load."""
        return logging.DEBUG


class QueueFull(Overloaded):
    """The queue of waiting requests is full."""

    code = ErrorCode.QUEUE_FULL


class MemoryFull(Overloaded):
    """Request bodies, unread responses or messages in memory are together over their limit."""

    code = ErrorCode.MEMORY_FULL


class OutOfMemory(Overloaded):
    """A MemoryError in this process."""

    code = ErrorCode.OUT_OF_MEMORY

    def __init__(self) -> None:
        super().__init__("no memory is left for this request; send less at once, or give the server more")

    @property
    def log_level(self) -> int:
        """For the operator."""
        return logging.ERROR


class DeadlineExceeded(ServingError):
    """The request's deadline was exceeded."""

    code = ErrorCode.DEADLINE_EXCEEDED
    phrase = None


class BodyTimeout(ServingError):
    """The client stopped sending in the middle of a body or a message."""

    code = ErrorCode.BODY_TIMEOUT


class MisdirectedRequest(ServingError):
    """The request is for another host."""

    code = ErrorCode.MISDIRECTED_REQUEST


class ClientDisconnected(ServingError):
    """The client closed its connection; the status is nginx's, for the log."""

    code = ErrorCode.CLIENT_DISCONNECTED


class Unauthenticated(ServingError):
    """No API key where one is required."""

    code = ErrorCode.MISSING_API_KEY


class Forbidden(ServingError):
    """An unknown API key."""

    code = ErrorCode.UNKNOWN_API_KEY
