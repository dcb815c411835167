"""The kinds of requests: their payloads, their connections, and the time that the server reports in a response.

gevent must have patched the standard library before this is imported: Locust's users are greenlets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from grpc.experimental.gevent import init_gevent
from numpy.typing import NDArray

from environment import api_key
from loadtest.generator.requests import (
    GRPC_CHANNEL,
    MODEL_INFER,
    Request,
    Tensor,
    grpc_raw,
    image_tensor,
    multipart,
    predict_rows,
    row_tensor,
    v1_image,
    v2_binary,
)
from loadtest.tasks import IMAGE_TASKS, TABLE_TASKS

init_gevent()  # gRPC waits outside Python: without it one call blocks all greenlets

BATCH_ROWS = 32
_BLOCK_BYTES = 1 << 16
_SHOWN_BYTES = 300  # of an error

Timing = Mapping[str, float]


@dataclass(frozen=True)
class Target:
    """Where requests go, and the data that they carry.

    Attributes:
        url: of the server's HTTP.
        grpc: host:port of its gRPC.
        model: name.
        task: of the model.
        tensor: name of the model's v2 input.
        images: encoded; empty for a table.
        rows: `(n, columns)` of a table.
        timeout_s: for one request.
    """

    url: str
    grpc: str
    model: str
    task: str
    tensor: str
    images: Sequence[bytes]
    rows: NDArray[np.float32]
    timeout_s: float

    @property
    def tensors(self) -> list[Tensor]:
        """The v2 input of each request: an image, or a row."""
        if self.task in TABLE_TASKS:
            return [row_tensor(row, self.tensor) for row in self.rows]
        return [image_tensor(image, self.tensor) for image in self.images]


class RequestError(Exception):
    """A response that is an error: its status and text."""


FAILURES = (RequestError, HTTPConnectionClosed, HTTPParseError, OSError, ValueError, LookupError)


class HttpConnection:
    """One HTTP connection; one request at a time."""

    def __init__(self, target: Target) -> None:
        self._client = HTTPClient.from_url(
            target.url,
            connection_timeout=target.timeout_s,
            network_timeout=target.timeout_s,
            block_size=_BLOCK_BYTES,
            headers=api_key.headers(),
        )

    def send(self, request: Request) -> bytes:
        """The body of a successful response."""
        response = self._client.post(request.path, request.body, request.headers)
        body = bytes(response.read())
        if response.status_code != 200:
            raise RequestError(f"{response.status_code} {body[:_SHOWN_BYTES].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close it."""
        self._client.close()


class GrpcConnection:
    """One gRPC channel; one request at a time."""

    def __init__(self, target: Target) -> None:
        self._timeout_s = target.timeout_s
        self._channel = grpc.insecure_channel(target.grpc, GRPC_CHANNEL)
        self._infer: Any = self._channel.unary_unary(MODEL_INFER)  # bytes in, bytes out
        self._key = api_key.metadata()

    def send(self, request: Request) -> bytes:
        """The message of a successful response."""
        try:
            return bytes(self._infer(request.body, timeout=self._timeout_s, metadata=self._key))
        except grpc.RpcError as exc:
            raise RequestError(f"{exc.code().name} {exc.details()}") from exc

    def close(self) -> None:
        """Close it."""
        self._channel.close()


Connection = HttpConnection | GrpcConnection


def read_timing(request: Request, body: bytes) -> Timing:
    """The server's split in a successful response; empty where it has none: a row over v2 or gRPC.

    Raises:
        LookupError: it is no response to such a request.
        ValueError: the same.
    """
    assert request.read is not None  # noqa: S101  # every request of a kind has one
    timing: Timing = request.read(body).document.get("timing_ms", {})
    return timing


@dataclass(frozen=True)
class Kind:
    """A protocol and an encoding.

    Attributes:
        protocol: as Locust's report shows it.
        tasks: of the models that take such requests.
        default_for: tasks with this kind in the default mix.
        encode: the requests to a target, ready to be sent.
    """

    protocol: str
    tasks: frozenset[str]
    default_for: frozenset[str]
    encode: Callable[[Target], Sequence[Request]]

    def connect(self, target: Target) -> Connection:
        """A connection that is opened by its first request."""
        return (GrpcConnection if self.protocol == "gRPC" else HttpConnection)(target)


def _multipart(target: Target) -> list[Request]:
    return [multipart(f"/predict/{target.model}", image) for image in target.images]


def _v1(target: Target) -> list[Request]:
    return [v1_image(target.model, image) for image in target.images]


def _v2(target: Target) -> list[Request]:
    return [v2_binary(target.model, tensor, binary_output=True) for tensor in target.tensors]


def _grpc(target: Target) -> list[Request]:
    return [grpc_raw(target.model, tensor) for tensor in target.tensors]


def _row(target: Target) -> list[Request]:
    return [predict_rows(target.model, row.tolist()) for row in target.rows]


def _batch(target: Target) -> list[Request]:
    batches = [np.roll(target.rows, -first, axis=0)[:BATCH_ROWS] for first in range(0, len(target.rows), BATCH_ROWS)]
    return [predict_rows(target.model, rows.tolist()) for rows in batches]


KINDS = {
    "predict": Kind("HTTP", IMAGE_TASKS, IMAGE_TASKS, _multipart),
    "v1": Kind("HTTP", IMAGE_TASKS, IMAGE_TASKS, _v1),
    "v2": Kind("HTTP", IMAGE_TASKS | TABLE_TASKS, IMAGE_TASKS, _v2),
    "grpc": Kind("gRPC", IMAGE_TASKS | TABLE_TASKS, IMAGE_TASKS, _grpc),
    "row": Kind("HTTP", TABLE_TASKS, TABLE_TASKS, _row),
    "batch": Kind("HTTP", TABLE_TASKS, TABLE_TASKS, _batch),
}
