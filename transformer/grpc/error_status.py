"""An error as gRPC has it: a status, its text, and its code in the trailing metadata."""

from typing import Any

import grpc

from environment.error_codes import GRPC_KEY
from transformer.errors import ServingError
from transformer.observability.request_record import ID_HEADER, current_request


async def abort(context: Any, error: ServingError) -> None:
    """End a call with an error, and note it in the record of the request.

    Raises:
        grpc.aio.AbortError: always.
    """
    record = current_request()
    record.status, record.code = error.code.grpc_status, error.code
    # Not the initial metadata: once that is sent, no client repeats a call that was rejected as UNAVAILABLE.
    metadata = [(ID_HEADER, record.request_id)] if record.request_id else []
    metadata.append((GRPC_KEY, str(error.code)))
    if error.retry_after_s is not None:
        metadata.append(("retry-after", str(error.retry_after_s)))
    status = grpc.StatusCode[error.code.grpc_status]
    await context.abort(status, error.for_client(record.request_id), tuple(metadata))
