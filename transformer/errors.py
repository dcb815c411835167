"""Every error that a client can see.

    ServingError              500
      InvalidRequest          400   tensor name, shape, encoding, parameter
        InvalidImage          400   bytes are no picture we decode
      NoMessage             400   a gRPC call without its message
      UnsupportedMedia        415   format or content encoding not on the list
      PayloadTooLarge         413   bytes or pixels
      ModelNotFound           404
      Unserved                503   no version of the model serves, and none comes by itself
      NotListed               501   Triton says to nobody without its secret which models it has
      PredictorError          502   Triton failed
        PredictorUnavailable  503   no connection, model not ready, queue full; Retry-After
          NothingServes       503   no version of the model yet
          VersionsChanging    503   no version stayed for the whole of a request
        PredictorTimeout      504
      Overloaded              429   refused at admission; Retry-After
        OutOfMemory           429   there is none left
      DeadlineExceeded        504   the request's own time was over
      BodyTimeout             408   the body stopped coming
      Unauthenticated         401   no API key
      Forbidden               403   an API key that is not known
      Misdirected             421   a Host that is not this server
      ClientGone              499   nobody reads the answer

A message says what, got and expected. What a client sent stands in quotes or behind "got", for there the log cuts it.
Errors of 500 and above keep their message for the log; the client reads a fixed phrase and the request id.
"""

import logging
import re
import reprlib
from typing import Any, ClassVar

import grpc

MESSAGE_LENGTH = 600  # of what is quoted from a client, in answers and in the log
# Where what a client sent may begin, in our words and in those of Triton and of libraries.
_VALUE = re.compile(r"b?['\"]|\b(got|found)\b", re.IGNORECASE)
_LOG_LENGTH = 10_000  # of what Triton says, tracebacks of its backends among it


# repr() of what JSON brings can be long, and fails where it is deep.
_EXCERPT = reprlib.Repr()
_EXCERPT.maxlevel, _EXCERPT.maxstring, _EXCERPT.maxother = 2, 60, 60


def excerpt(value: Any) -> str:
    """A client's value in a message: short, however long or deep it is."""
    return _EXCERPT.repr(value)[:MESSAGE_LENGTH]


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
        """What the log reads: all of a failure of ours; of a client's mistake as much as quotes nothing it sent."""
        message = f"{type(self).__name__}: {self}"
        if self.phrase is not None:
            return message[:_LOG_LENGTH]
        # A part of a payload ends nobody knows where: quotes in it, or it is cut.
        value = _VALUE.search(message)
        return f"{message[: value.start()]}..." if value else message[:MESSAGE_LENGTH]

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


class NoMessage(InvalidRequest):
    """A gRPC call ended before there was a message; the code is the one that gRPC's list of codes has for it."""

    code = grpc.StatusCode.UNIMPLEMENTED


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


class NotListed(ServingError):
    """There is no synchroniser to ask which models serve, and Triton asks for a secret."""

    status = 501
    code = grpc.StatusCode.UNIMPLEMENTED
    phrase = "the predictor does not list its models"


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


class VersionsChanging(PredictorUnavailable):
    """Swaps follow each other so quickly that no version responds to the whole of a request."""

    def __init__(self, name: str, tries: int) -> None:
        super().__init__(f"{name}: several versions responded to one request, {tries} times")


class Unserved(ServingError):
    """The repository has the model, and no version of it may serve: until somebody uploads another one."""

    status = 503
    code = grpc.StatusCode.FAILED_PRECONDITION  # not UNAVAILABLE, which clients retry
    phrase = None

    def __init__(self, name: str, version: str, reason: str) -> None:
        what = f"version {version!r} does not serve" if version else "no version of it serves"
        super().__init__(f"model {name!r}: {what}: see /status" + (f"; {reason}" if reason else ""))


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

    @property
    def log_level(self) -> int:
        """The request's own line says 429, and metrics count why: under a flood a second line is load."""
        return logging.DEBUG


class OutOfMemory(Overloaded):
    """What becomes of a MemoryError."""

    def __init__(self) -> None:
        super().__init__("there is no memory for it now; send less at once, or give the server more")

    @property
    def log_level(self) -> int:
        """For the operator."""
        return logging.ERROR


class DeadlineExceeded(ServingError):
    """The time that the request has was over."""

    status = 504
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    phrase = None


class BodyTimeout(ServingError):
    """The client stopped sending in the middle of a body or a message."""

    status = 408
    code = grpc.StatusCode.DEADLINE_EXCEEDED  # not CANCELLED: that is what a client reads of a call it gave up itself
    phrase = None


class Misdirected(ServingError):
    """The request is for another host."""

    status = 421
    code = grpc.StatusCode.NOT_FOUND
    phrase = None


class ClientGone(ServingError):
    """The client closed its connection; the status is nginx's, for the log."""

    status = 499
    code = grpc.StatusCode.CANCELLED
    phrase = None


class Unauthenticated(ServingError):
    """No API key where one is asked for."""

    status = 401
    code = grpc.StatusCode.UNAUTHENTICATED
    phrase = None


class Forbidden(ServingError):
    """An API key that is not known."""

    status = 403
    code = grpc.StatusCode.PERMISSION_DENIED
    phrase = None
