"""gRPC messages that take their time, or never come; none of it needs a Triton that responds."""

import queue
import re
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from environment.error_codes import ErrorCode
from tests.support.error_codes import Rejection, rejection_of
from tests.support.metrics import scrape, value
from tests.support.stack import wait_until
from tests.support.transformer import (
    DIGITS,
    Transformer,
    gauge,
    infer_message,
    make_key,
    open_reflection,
    silent_triton,
    start_transformer,
)

SERVICE = "/inference.GRPCInferenceService/"
INFER, LIVE, CHECK = SERVICE + "ModelInfer", SERVICE + "ServerLive", "/grpc.health.v1.Health/Check"
NO_SERVER = "127.0.0.1:1"
LONG_S = 60.0
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


class Upload:
    """A call whose message is sent by `send`."""

    def __init__(self, channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stream: Any = channel.stream_unary(method)
        self.call = stream.future(self._all(), timeout=LONG_S, metadata=metadata)
        self.call.add_done_callback(lambda _: self.end())

    def _all(self) -> Iterator[bytes]:
        while (message := self._messages.get()) is not None:
            yield message

    def send(self, message: bytes) -> None:
        self._messages.put(message)

    def end(self) -> None:
        self._messages.put(None)

    def rejection(self) -> Rejection:
        assert self.call.exception(LONG_S) is not None
        return rejection_of(self.call)

    def trailing(self) -> dict[str, str]:
        return dict(self.call.trailing_metadata())


def count_rejected(transformer: Transformer, reason: str) -> float:
    return gauge(transformer, f'nereid_refused_total{{reason="{reason}"}}')


def test_message_that_does_not_arrive_times_out(tmp_path: Path) -> None:
    with start_transformer(NO_SERVER, tmp_path / "log", variables={"TRANSFORMER_BODY_TIMEOUT_S": "1"}) as transformer:
        for method in (INFER, LIVE, CHECK):
            upload = Upload(transformer.grpc, method, (("x-request-id", "slow"),))
            assert upload.rejection().code is ErrorCode.BODY_TIMEOUT
            assert method == CHECK or upload.trailing()["x-request-id"] == "slow"
        assert count_rejected(transformer, "slow body") == 3
        stream = open_reflection(transformer.grpc)
        assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert rejection_of(stream).code is ErrorCode.BODY_TIMEOUT
    log = (tmp_path / "log").read_text()
    assert len(re.findall(r"gRPC ModelInfer DEADLINE_EXCEEDED \S+ code=body_timeout$", log, re.MULTILINE)) == 1
    assert "Traceback" not in log


def test_half_a_message_times_out(tmp_path: Path) -> None:
    with (
        start_transformer(NO_SERVER, tmp_path / "log", variables={"TRANSFORMER_BODY_TIMEOUT_S": "1"}) as transformer,
        socket.create_connection(("127.0.0.1", transformer.grpc_port), timeout=LONG_S) as client,
    ):
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        client.sendall(frame(HEADERS, END_HEADERS, 1, head(INFER)))
        client.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 60_000_000) + bytes(10_000)))
        with client.makefile("rb") as response:
            while (HEADERS, 1) not in ((kind, stream) for kind, flags, stream in [read_frame(response)]):
                pass
        assert count_rejected(transformer, "slow body") == 1
    assert "gRPC ModelInfer DEADLINE_EXCEEDED" in (tmp_path / "log").read_text()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(path: str) -> bytes:
    """The headers of a call, in literals that are not indexed (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def read_frame(response: Any) -> tuple[int, int, int]:
    """Kind, flags and stream of the next one."""
    header = response.read(9)
    assert len(header) == 9, "the connection ended"
    kind, flags, stream = struct.unpack(">BBI", header[3:])
    response.read(int.from_bytes(header[:3]))
    return kind, flags, stream


def test_message_without_an_api_key_is_not_read(tmp_path: Path) -> None:
    key = make_key("alice", tmp_path / "keys")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys"), "TRANSFORMER_BODY_TIMEOUT_S": str(2 * LONG_S)}
    with start_transformer(NO_SERVER, tmp_path / "log", variables=variables) as transformer:
        assert Upload(transformer.grpc, INFER).rejection().code is ErrorCode.MISSING_API_KEY
        assert Upload(transformer.grpc, INFER, (("x-api-key", "x"),)).rejection().code is ErrorCode.UNKNOWN_API_KEY
        upload = Upload(transformer.grpc, SERVICE + "ServerMetadata", (("x-api-key", key),))
        upload.send(b"")
        assert service_pb2.ServerMetadataResponse.FromString(upload.call.result(LONG_S)).name == "nereid"


def test_message_beyond_a_full_queue_is_not_read(tmp_path: Path) -> None:
    narrow = {"TRANSFORMER_MAX_IN_FLIGHT": "1", "TRANSFORMER_MAX_WAITING": "0"}
    with (
        ThreadPoolExecutor(4) as threads,
        silent_triton(threads) as port,
        start_transformer(f"127.0.0.1:{port}", tmp_path / "log", variables=narrow) as transformer,
    ):
        first = Upload(transformer.grpc, INFER)
        first.send(infer_message("digits", DIGITS).SerializeToString())
        first.end()
        wait_until(lambda: gauge(transformer, "nereid_in_flight") == 1, log=tmp_path / "log")
        second = Upload(transformer.grpc, INFER)
        assert second.rejection().code is ErrorCode.QUEUE_FULL
        assert second.trailing()["retry-after"] == "1"
        first.call.cancel()
        wait_until(lambda: gauge(transformer, "nereid_in_flight") == 0, log=tmp_path / "log")


def test_concurrent_slow_messages_are_limited_and_quick_ones_are_not(tmp_path: Path) -> None:
    variables = {"TRANSFORMER_MAX_BODIES_BYTES": "1000000", "TRANSFORMER_BODY_TIMEOUT_S": str(2 * LONG_S)}
    with start_transformer(NO_SERVER, tmp_path / "log", variables=variables) as transformer:
        uploads = [Upload(transformer.grpc, method) for method in (LIVE, LIVE, CHECK)]
        wait_until(lambda: count_rejected(transformer, "bodies full") == 2, log=tmp_path / "log")
        quick: Any = transformer.grpc.unary_unary(LIVE)
        for _ in range(20):
            assert service_pb2.ServerLiveResponse.FromString(quick(b"", timeout=LONG_S)).live
        (slow,) = (upload for upload in uploads if not upload.call.done())
        for upload in uploads:
            if upload is not slow:
                assert upload.rejection().code is ErrorCode.MEMORY_FULL
        slow.send(b"")
        slow.end()
        assert slow.call.result(LONG_S) is not None
        # And there is room for another.
        last = Upload(transformer.grpc, CHECK)
        with pytest.raises(grpc.FutureTimeoutError):
            last.call.result(1)
        last.send(b"")
        last.end()
        assert health_pb2.HealthCheckResponse.FromString(last.call.result(LONG_S)).status


def test_call_has_one_message(tmp_path: Path) -> None:
    with start_transformer(NO_SERVER, tmp_path / "log") as transformer:
        for method in (LIVE, CHECK):
            none = Upload(transformer.grpc, method)
            none.end()
            assert none.rejection().code is ErrorCode.MISSING_MESSAGE


def test_client_that_disconnects_within_its_message_is_counted_as_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {"TRANSFORMER_BODY_TIMEOUT_S": str(2 * LONG_S)}
    with start_transformer(NO_SERVER, log, variables=variables) as transformer:
        upload = Upload(transformer.grpc, INFER)
        with pytest.raises(grpc.FutureTimeoutError):
            upload.call.result(1)
        upload.call.cancel()
        wait_until(lambda: value(scrape(transformer.http), "nereid_requests_total", status="CANCELLED") == 1, log=log)


def test_shutdown_waits_for_a_message_that_is_arriving(tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {"TRANSFORMER_BODY_TIMEOUT_S": str(2 * LONG_S), "TRANSFORMER_SHUTDOWN_TIMEOUT_S": str(int(LONG_S))}
    with start_transformer(NO_SERVER, log, variables=variables) as transformer:
        upload = Upload(transformer.grpc, LIVE)
        with pytest.raises(grpc.FutureTimeoutError):
            upload.call.result(1)
        transformer.process.send_signal(signal.SIGTERM)
        # Longer than it waits for calls to begin where there are none.
        with pytest.raises(grpc.FutureTimeoutError):
            upload.call.result(4)
        upload.send(b"")
        upload.end()
        assert service_pb2.ServerLiveResponse.FromString(upload.call.result(LONG_S)).live
        assert transformer.process.wait(LONG_S) == 0
    assert "Traceback" not in log.read_text()
