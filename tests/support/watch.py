"""What a server says of its health while something happens to it, written down with the time."""

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


class Told(NamedTuple):
    """One answer.

    Attributes:
        probe: which question; one of `READY` or `LIVE`.
        asked_at: `time.monotonic()`.
        answered_at: likewise.
        yes: what it was; None where there was none.
    """

    probe: str
    asked_at: float
    answered_at: float
    yes: bool | None


class Watch:
    """Asks over HTTP and gRPC until the block ends, each question by itself."""

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
        self._told: list[Told] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,), daemon=True) for name in self._probes]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)
        self._channel.close()

    def told(self, probe: str, *, since: float) -> list[Told]:
        """Answers to a question that was asked after this moment, in their order."""
        return [told for told in list(self._told) if told.probe == probe and told.asked_at >= since]

    def wait_for(self, yes: bool | None, *, since: float, seconds: float) -> float:
        """Wait until every probe of readiness says so.

        Returns:
            How many seconds after `since` the last of them did.
        """
        deadline = time.monotonic() + seconds
        while True:
            first = [next((t for t in self.told(probe, since=since) if t.yes is yes), None) for probe in READY]
            if all(first):
                return max(told.answered_at for told in first if told) - since
            missing = [probe for probe, told in zip(READY, first, strict=True) if told is None]
            assert time.monotonic() < deadline, f"{missing} did not say {yes} within {seconds} s"
            time.sleep(0.02)

    def _get(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()

    def _ask(self, name: str) -> None:
        while not self._stopped.wait(_PAUSE_S):
            asked_at = time.monotonic()
            yes: bool | None
            try:
                yes = self._probes[name]()
            except (OSError, http.client.HTTPException, grpc.RpcError):
                yes = None
            self._told.append(Told(name, asked_at, time.monotonic(), yes))
