"""gRPC statuses of Triton and of the channel, translated to the errors of this server."""

import re
from collections.abc import Mapping

import grpc

from transformer.errors import (
    ModelNotFound,
    ModelsNotListed,
    NoReadyVersion,
    Overloaded,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
    ServingError,
)


class TensorRejected(PredictorError):
    """Triton takes no such tensor. Where this server made it, the model has changed or its config is wrong.

    Attributes:
        reason: in Triton's words, for a client that sent the tensor itself.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Without the request id that Triton puts in front, and the place in a Python backend behind.
        self.reason = re.sub(r"^\[request id: .*?\] |\n*At:.*", "", message.partition(": ")[2], flags=re.DOTALL)


_ERRORS: Mapping[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.CANCELLED: PredictorUnavailable,
    grpc.StatusCode.UNKNOWN: PredictorError,
    grpc.StatusCode.INVALID_ARGUMENT: TensorRejected,
    grpc.StatusCode.DEADLINE_EXCEEDED: PredictorTimeout,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.ALREADY_EXISTS: PredictorError,
    grpc.StatusCode.PERMISSION_DENIED: PredictorError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: PredictorError,
    grpc.StatusCode.ABORTED: PredictorError,
    grpc.StatusCode.OUT_OF_RANGE: PredictorError,
    grpc.StatusCode.UNIMPLEMENTED: PredictorError,
    grpc.StatusCode.INTERNAL: PredictorError,
    grpc.StatusCode.UNAVAILABLE: PredictorUnavailable,
    grpc.StatusCode.DATA_LOSS: PredictorError,
    grpc.StatusCode.UNAUTHENTICATED: PredictorError,
}
# Words of Triton.
_RESTRICTED = "protocol is restricted"
_NO_VERSION = "no available versions"
_QUEUED_TOO_LONG = "timeout expired"
_NOT_READY = "is not at ready state"
_TOO_LARGE = "Received message larger than max"  # words of gRPC


def translate(exc: grpc.RpcError, name: str) -> ServingError:
    """The error for a status.

    Args:
        exc: of a call, with a status and its details.
        name: of the model, or "" for the repository.
    """
    code, details = exc.code(), exc.details() or ""
    subject = f"model {name!r}" if name else "repository"
    if code is grpc.StatusCode.NOT_FOUND:
        # Also of a model that Triton knows, while no version of it serves.
        return NoReadyVersion(name) if _NO_VERSION in details else ModelNotFound(f"model {name!r} is unknown")
    if _RESTRICTED in details:  # the code is UNAVAILABLE
        return ModelsNotListed(f"{subject}: {details}")
    if _TOO_LARGE in details:  # the code is RESOURCE_EXHAUSTED
        return PredictorError(f"{subject}: {details}")
    if _QUEUED_TOO_LONG in details:  # the code is UNAVAILABLE
        return PredictorTimeout(f"{subject}: {details}")
    return _ERRORS[code](f"{subject}: {details}")


def is_not_ready(error: PredictorUnavailable) -> bool:
    """Whether a version loads, or is retired."""
    return _NOT_READY in str(error)
