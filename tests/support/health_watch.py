"""Records a server's health over HTTP and gRPC, with times, while a test disturbs it."""

import http.client
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

READY = ("ready", "ServerReady", "health")
LIVE = ("live", "ServerLive")
_PAUSE_S = 0.1
_TIMEOUT_S = 10.0


class Response(NamedTuple):
    """A response to a probe.

    Attributes:
        probe: one of `READY` or `LIVE`.
        sent_at: `time.monotonic()`.
        received_at: likewise.
        healthy: the result; None without a response.
    """

    probe: str
    sent_at: float
    received_at: float
    healthy: bool | None


class Watch:
    """Sends each probe over HTTP and gRPC until the block ends, in a thread of its own."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        self._http_port = http_port
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{grpc_port}", options=[("grpc.max_reconnect_backoff_ms", 200)]
        )
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        timeout = {"timeout": _TIMEOUT_S}
        self._probes: dict[str, Callable[[], bool]] = {
            "ready": lambda: self._get("/v2/health/ready"),
            "live": lambda: self._get("/v2/health/live"),
            "ServerReady": lambda: stub.ServerReady(service_pb2.ServerReadyRequest(), **timeout).ready,
            "ServerLive": lambda: stub.ServerLive(service_pb2.ServerLiveRequest(), **timeout).live,
            "health": lambda: health.Check(health_pb2.HealthCheckRequest(), **timeout).status == serving,
        }
        self._responses: list[Response] = []
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._probe_until_stopped, args=(name,), daemon=True) for name in self._probes
        ]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)
        self._channel.close()

    def responses(self, probe: str, *, since: float) -> list[Response]:
        """Responses to a probe that was sent after this moment, in order."""
        return [each for each in list(self._responses) if each.probe == probe and each.sent_at >= since]

    def wait_for(self, healthy: bool | None, *, since: float, seconds: float) -> float:
        """Wait until every readiness probe has this result.

        Returns:
            How many seconds after `since` the last of them did.
        """
        deadline = time.monotonic() + seconds
        while True:
            first = [
                next((each for each in self.responses(probe, since=since) if each.healthy is healthy), None)
                for probe in READY
            ]
            if all(first):
                return max(each.received_at for each in first if each) - since
            missing = [probe for probe, each in zip(READY, first, strict=True) if each is None]
            assert time.monotonic() < deadline, f"{missing} did not report {healthy} within {seconds} s"
            time.sleep(0.02)

    def _get(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()

    def _probe_until_stopped(self, name: str) -> None:
        while not self._stopped.wait(_PAUSE_S):
            sent_at = time.monotonic()
            healthy: bool | None
            try:
                healthy = self._probes[name]()
            except (OSError, http.client.HTTPException, grpc.RpcError):
                healthy = None
            self._responses.append(Response(name, sent_at, time.monotonic(), healthy))
