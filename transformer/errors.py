"""Every error that a client can see.

    ServingError              500
      InvalidRequest          400   tensor name, shape, encoding, parameter
        InvalidImage          400   bytes are no picture we decode
      UnsupportedMedia        415   format or content encoding not on the list
      PayloadTooLarge         413   bytes or pixels
      ModelNotFound           404
      PredictorError          502   Triton failed
        PredictorUnavailable  503   no connection, model not ready, queue full; Retry-After
          NothingServes       503   no version of the model
        PredictorTimeout      504
      Overloaded              429   refused at admission; Retry-After

A message says what, got and expected. Errors of 500 and above keep their message for the log; the client reads a fixed
phrase and the request id.
"""

import logging
from typing import ClassVar

import grpc

MESSAGE_LENGTH = 600  # of what is quoted from a client, in answers and in the log
_LOG_LENGTH = 10_000  # of what Triton says, tracebacks of its backends among it


class ServingError(Exception):
    """Root of the tree.

    Attributes:
        status: HTTP status.
        code: gRPC status code.
        phrase: what a client reads in place of the message; None where the message itself is for the client.
        retry_after_s: value of `Retry-After`, or None.
    """

    status: ClassVar[int] = 500
    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    phrase: ClassVar[str | None] = "internal error"
    retry_after_s: ClassVar[int | None] = None

    def for_client(self, request_id: str) -> str:
        """What the client reads."""
        if self.phrase is not None:
            return f"{self.phrase} (request {request_id})"
        message = str(self)
        return message if len(message) <= MESSAGE_LENGTH else f"{message[:MESSAGE_LENGTH]} ..."

    def for_log(self) -> str:
        """What the log reads: all of a failure of ours; on one line, and cut, what quotes a client."""
        if self.phrase is None:
            return repr(self.for_client(""))
        return f"{type(self).__name__}: {self}"[:_LOG_LENGTH]

    @property
    def log_level(self) -> int:
        """A client's mistake is no error of the server."""
        return logging.INFO if self.phrase is None else logging.ERROR


class InvalidRequest(ServingError):
    """A tensor's name, its shape, an encoding or a parameter is wrong."""

    status = 400
    code = grpc.StatusCode.INVALID_ARGUMENT
    phrase = None


class InvalidImage(InvalidRequest):
    """The bytes are no picture that can be decoded."""


class UnsupportedMedia(ServingError):
    """The format is not on the list."""

    status = 415
    code = grpc.StatusCode.INVALID_ARGUMENT
    phrase = None


class PayloadTooLarge(ServingError):
    """Too many bytes or pixels."""

    status = 413
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    phrase = None


class ModelNotFound(ServingError):
    """No model of that name or version."""

    status = 404
    code = grpc.StatusCode.NOT_FOUND
    phrase = None


class PredictorError(ServingError):
    """Triton failed."""

    status = 502
    code = grpc.StatusCode.INTERNAL
    phrase = "the predictor failed"


class PredictorUnavailable(PredictorError):
    """No connection to Triton, or the model is not ready."""

    status = 503
    code = grpc.StatusCode.UNAVAILABLE
    phrase = "the predictor is not available"
    retry_after_s = 1


class NothingServes(PredictorUnavailable):
    """The model is known, and no version of it serves."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} has no version that serves")


class PredictorTimeout(PredictorError):
    """Triton did not answer in time."""

    status = 504
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    phrase = "the predictor did not answer in time"


class Overloaded(ServingError):
    """Refused at admission."""

    status = 429
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    phrase = None
    retry_after_s = 1
