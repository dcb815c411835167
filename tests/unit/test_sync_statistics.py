"""A Triton that answers everything but how many requests have failed."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from predictor.settings import Settings
from predictor.sync.mirror import Mirror
from predictor.sync.shared import Shared
from predictor.sync.status import Status
from predictor.sync.synchroniser import Synchroniser
from predictor.sync.triton import Triton
from registry.storage.reading import open_storage

PATIENCE_S = 30.0


class Server:
    """Triton as the synchroniser sees it."""

    def __init__(self) -> None:
        self.has_statistics = False
        self.asked = 0
        self.away = ""  # why it answers nothing

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        statistics = details.method.endswith("/ModelStatistics")
        return grpc.unary_unary_rpc_method_handler(self._count if statistics else self._list)

    def _list(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, self.away)
        return b""

    def _count(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        if not self.has_statistics:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no statistics here")
        return b""


@contextmanager
def served(server: Server) -> Iterator[str]:
    handler = type("Handler", (grpc.GenericRpcHandler,), {"service": lambda _, details: server.service(details)})
    grpc_server = grpc.server(ThreadPoolExecutor(2), handlers=[handler()])
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        grpc_server.stop(None).wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def synchronised(folder: Path, server: Server) -> Iterator[Shared]:
    """A synchroniser of an empty repository works beside a server."""
    (folder / "repository").mkdir()
    with (
        served(server) as url,
        closing(Mirror(folder / "mirror")) as mirror,
        ThreadPoolExecutor(1) as thread,
    ):
        shared = Shared(
            Settings(repository=str(folder / "repository")),
            storage=open_storage(str(folder / "repository")),
            triton=Triton(url, secret="", load_timeout_s=5),
            mirror=mirror,
            status=Status("here"),
        )
        synchroniser = Synchroniser(shared)
        running = thread.submit(synchroniser.run)
        try:
            yield shared
        finally:
            synchroniser.stop()
        running.result()


def test_nothing_but_the_statistics_misses_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sync")
    server = Server()
    with synchronised(tmp_path, server) as shared:
        wait_for(lambda: server.asked >= 2)
        assert shared.triton_up.is_set()
        assert shared.status.as_json()["triton"]["ok"]
        assert said(caplog, "no statistics here") == 1
        server.has_statistics = True
        wait_for(lambda: said(caplog, "gives them again") == 1)


def test_each_reason_of_a_triton_that_is_away_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that starts again with another secret is first not ready, then refuses the old one."""
    caplog.set_level(logging.INFO, "sync")
    server = Server()
    with synchronised(tmp_path, server) as shared:
        wait_for(shared.triton_up.is_set)
        for reason in ("Server not ready", "This protocol is restricted"):
            server.away = reason
            wait_for(lambda reason=reason: said(caplog, reason) == 1)  # type: ignore[misc]
        since = shared.status.as_json()["triton"]
        time.sleep(2.5)  # two more looks
        assert said(caplog, "This protocol is restricted") == 1
        assert shared.status.as_json()["triton"] == since
        server.away = ""
        wait_for(shared.triton_up.is_set)
        assert said(caplog, "answers") == 2


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """How often."""
    return sum(words in message for message in caplog.messages)
