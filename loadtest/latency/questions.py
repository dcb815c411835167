"""The ways to ask: what is sent, over which connection, and where the answer says how long the server took.

gevent must have patched the standard library before this is imported: the users are greenlets.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
import tritonclient.grpc
import tritonclient.http
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from grpc.experimental.gevent import init_gevent
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from environment import api_key

init_gevent()  # gRPC waits outside Python: without it one call holds all greenlets

PICTURES = frozenset({"detect", "classify"})
TABLE = frozenset({"tabular"})
BATCH_ROWS = 32
_BOUNDARY = "nereid-boundary"
_BLOCK_BYTES = 1 << 16
_SHOWN = 300  # characters of an error
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),  # else the channels of one process share a connection
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

Timing = Mapping[str, float]


@dataclass(frozen=True)
class Target:
    """What is asked.

    Attributes:
        url: of the server's HTTP.
        grpc: host:port of its gRPC.
        model: name.
        task: `detect`, `classify` or `tabular`.
        tensor: name of the model's v2 input.
        pictures: encoded; empty for a table.
        rows: `(n, columns)` of a table.
        timeout_s: for one request.
    """

    url: str
    grpc: str
    model: str
    task: str
    tensor: str
    pictures: Sequence[bytes]
    rows: NDArray[np.float32]
    timeout_s: float

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The v2 input of each question: a picture, or a row."""
        if self.task in TABLE:
            return [row[None] for row in self.rows]
        return [np.array([picture], object) for picture in self.pictures]


class AnswerError(Exception):
    """An answer that is none: its status and words."""


FAILURES = (
    AnswerError,
    InferenceServerException,
    HTTPConnectionClosed,
    HTTPParseError,
    OSError,
    ValueError,
    LookupError,
)


class Connection(Protocol):
    """One connection; one request at a time."""

    def ask(self, question: Any) -> Any:
        """The answer to a question of the kind."""

    def close(self) -> None:
        """Let go of it."""


class HttpQuestion(NamedTuple):
    """A request whose body is ready."""

    path: str
    body: bytes
    headers: Mapping[str, str]


class HttpAnswer(NamedTuple):
    """Body of a good answer, and how long v2's JSON at its head is."""

    body: bytes
    json_bytes: int | None


class _Http:
    def __init__(self, target: Target) -> None:
        self._client = HTTPClient.from_url(
            target.url,
            connection_timeout=target.timeout_s,
            network_timeout=target.timeout_s,
            block_size=_BLOCK_BYTES,
            headers=api_key.headers(),
        )

    def ask(self, question: HttpQuestion) -> HttpAnswer:
        response = self._client.post(question.path, question.body, question.headers)
        body = bytes(response.read())
        if response.status_code != 200:
            raise AnswerError(f"{response.status_code} {body[:_SHOWN].decode(errors='replace')}")
        length = response.get("inference-header-content-length")
        return HttpAnswer(body, int(str(length)) if length else None)

    def close(self) -> None:
        self._client.close()


class _Grpc:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._headers = api_key.headers()
        self._client = tritonclient.grpc.InferenceServerClient(target.grpc, channel_args=_CHANNEL)

    def ask(self, question: list[Any]) -> Any:
        return self._client.infer(
            self._target.model, question, headers=self._headers, client_timeout=self._target.timeout_s
        )

    def close(self) -> None:
        self._client.close()


def _multipart(target: Target) -> list[HttpQuestion]:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'.encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return [HttpQuestion(f"/predict/{target.model}", head + p + tail, headers) for p in target.pictures]


def _base64(target: Target) -> list[HttpQuestion]:
    path = f"/v1/models/{target.model}:predict"
    return [
        _json(path, {"instances": [{"image": {"b64": base64.b64encode(picture).decode()}}]})
        for picture in target.pictures
    ]


def _tensors(library: Any, target: Target) -> list[Any]:
    """Inputs of Triton's client, for either protocol."""
    inputs = []
    for array in target.arrays:
        tensor = library.InferInput(target.tensor, array.shape, "FP32" if target.task in TABLE else "BYTES")
        tensor.set_data_from_numpy(array)
        inputs.append([tensor])
    return inputs


def _v2(target: Target) -> list[HttpQuestion]:
    questions = []
    for inputs in _tensors(tritonclient.http, target):
        body, json_bytes = tritonclient.http.InferenceServerClient.generate_request_body(inputs)
        headers = {"Inference-Header-Content-Length": str(json_bytes)}
        questions.append(HttpQuestion(f"/v2/models/{target.model}/infer", body, headers))
    return questions


def _grpc(target: Target) -> list[Any]:
    return _tensors(tritonclient.grpc, target)


def _row(target: Target) -> list[HttpQuestion]:
    return [_json(f"/predict/{target.model}", row.tolist()) for row in target.rows]


def _batch(target: Target) -> list[HttpQuestion]:
    batches = [np.roll(target.rows, -first, axis=0)[:BATCH_ROWS] for first in range(0, len(target.rows), BATCH_ROWS)]
    return [_json(f"/predict/{target.model}", rows.tolist()) for rows in batches]


def _json(path: str, document: Any) -> HttpQuestion:
    return HttpQuestion(path, orjson.dumps(document), {"Content-Type": "application/json"})


def _read_reply(answer: HttpAnswer) -> Timing:
    return _timing(orjson.loads(answer.body))


def _read_first(answer: HttpAnswer) -> Timing:
    return _timing(orjson.loads(answer.body)["predictions"][0])


def _read_v2(answer: HttpAnswer) -> Timing:
    return _read_result(
        tritonclient.http.InferenceServerClient.parse_response_body(answer.body, header_length=answer.json_bytes)
    )


def _read_result(result: Any) -> Timing:
    for name in ("detections", "predictions"):
        array = result.as_numpy(name)
        if array is not None:
            reply = orjson.loads(array[0])
            # A row's element is one prediction, and says no times.
            return _timing(reply) if "predictions" in reply else {}
    raise AnswerError("got neither 'detections' nor 'predictions' among the outputs")


def _timing(reply: Mapping[str, Any]) -> Timing:
    """The split of a reply that is one.

    Raises:
        LookupError: it is none.
    """
    _ = reply["predictions"]
    timing: Timing = reply["timing_ms"]
    return timing


@dataclass(frozen=True)
class Kind:
    """A way to ask.

    Attributes:
        protocol: as a report shows it.
        tasks: whose models can be asked so.
        chosen_for: those where it is part of the mix that nobody chose.
        questions: of a target, ready to be sent.
        connect: opens a connection.
        read: the server's split out of an answer.
    """

    protocol: str
    tasks: frozenset[str]
    chosen_for: frozenset[str]
    questions: Callable[[Target], Sequence[Any]]
    connect: Callable[[Target], Connection]
    read: Callable[[Any], Timing]


KINDS = {
    "predict": Kind("HTTP", PICTURES, PICTURES, _multipart, _Http, _read_reply),
    "v1": Kind("HTTP", PICTURES, PICTURES, _base64, _Http, _read_first),
    "v2": Kind("HTTP", PICTURES | TABLE, PICTURES, _v2, _Http, _read_v2),
    "grpc": Kind("gRPC", PICTURES | TABLE, PICTURES, _grpc, _Grpc, _read_result),
    "row": Kind("HTTP", TABLE, TABLE, _row, _Http, _read_reply),
    "batch": Kind("HTTP", TABLE, TABLE, _batch, _Http, _read_reply),
}
