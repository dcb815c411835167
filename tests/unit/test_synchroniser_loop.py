"""The loop serves a repository beside a Triton that fails in parts, and says so once."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from predictor.settings import Settings
from predictor.synchroniser.loop import Synchroniser
from predictor.synchroniser.mirror import Mirror
from predictor.synchroniser.services import Services
from predictor.synchroniser.status import Status
from predictor.synchroniser.triton_client import TritonClient
from registry.storage.reading import open_storage
from tests.support.triton_stub import TritonStub, start_triton_stub
from tests.support.versions import Build, write

PATIENCE_S = 30.0
NO_STATISTICS = (grpc.StatusCode.UNIMPLEMENTED, "no statistics here")
DEAD = (grpc.StatusCode.INTERNAL, "Stub process 'rows_0' is not healthy.")


@dataclass
class Running:
    """A synchroniser that runs.

    Attributes:
        repository: a folder.
        stub: its Triton.
        status: of the synchroniser.
    """

    repository: Path
    stub: TritonStub
    status: Status

    @property
    def is_triton_up(self) -> bool:
        """Whether Triton responds, by `/status`."""
        return bool(self.status.as_json()["triton"]["ok"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def synchronised(folder: Path) -> Iterator[Running]:
    """Run a synchroniser of a folder, empty at first, beside a Triton at the wire."""
    repository = folder / "repository"
    repository.mkdir()
    stub = TritonStub(folder / "mirror")
    with (
        start_triton_stub(stub) as url,
        closing(Mirror(folder / "mirror")) as mirror,
        ThreadPoolExecutor(1) as thread,
    ):
        status = Status("here")
        services = Services(
            Settings(repository=str(repository), poll_s=0.2),
            storage=open_storage(str(repository)),
            triton=TritonClient(url, secret="", load_timeout_s=5),
            mirror=mirror,
            status=status,
        )
        synchroniser = Synchroniser(services)
        running = thread.submit(synchroniser.run)
        try:
            yield Running(repository, stub, status)
        finally:
            synchroniser.stop()
        running.result()


def count(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """How many lines of the log have these words."""
    return sum(words in message for message in caplog.messages)


def test_models_of_the_repository_serve_and_readiness_waits_for_them(tmp_path: Path) -> None:
    with synchronised(tmp_path) as running:
        wait_for(lambda: running.status.as_json()["listing"]["ok"])
        assert (running.status.ready, running.status.as_json()["waiting_for"][:18]) == (False, "the first model in")
        write(running.repository, "rows", Build(1))
        wait_for(lambda: running.status.ready)
        assert running.stub.versions("rows") == [1]
        write(running.repository, "rows", Build(2))
        wait_for(lambda: running.status.model("rows").serving == ("2",))
        assert running.stub.versions("rows") == [2]


def test_repository_that_is_suddenly_empty_is_taken_for_a_mistake(tmp_path: Path) -> None:
    with synchronised(tmp_path) as running:
        write(running.repository, "rows", Build(1))
        wait_for(lambda: running.status.ready)
        shutil.rmtree(running.repository / "rows")
        wait_for(lambda: not running.status.as_json()["listing"]["ok"])
        assert running.stub.versions("rows") == [1]
        since = running.status.as_json()["listing"]["failing_since"]
        failed = running.status.metrics.listings.labels("failed")
        wait_for(lambda: next(iter(failed.collect())).samples[0].value >= 2)
        assert running.status.as_json()["listing"]["failing_since"] == since


def test_model_whose_requests_fail_is_examined(tmp_path: Path) -> None:
    with synchronised(tmp_path) as running:
        write(running.repository, "rows", Build(1))
        wait_for(lambda: running.status.ready)
        running.stub.failures["ModelInfer rows"] = DEAD
        running.stub.failed_requests["rows"] = 1
        wait_for(lambda: "RepositoryModelUnload rows" in running.stub.calls)
        wait_for(lambda: running.stub.versions("rows") == [1])


def test_model_that_triton_has_lost_is_loaded_again(tmp_path: Path) -> None:
    with synchronised(tmp_path) as running:
        write(running.repository, "rows", Build(1))
        wait_for(lambda: running.status.ready)
        running.stub.loaded.clear()
        wait_for(lambda: running.stub.versions("rows") == [1])


def test_only_the_examination_needs_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "synchroniser")
    with synchronised(tmp_path) as running:
        running.stub.failures["ModelStatistics"] = NO_STATISTICS
        wait_for(lambda: running.stub.calls.count("ModelStatistics") >= 3)
        assert running.is_triton_up
        assert count(caplog, "no statistics here") == 1
        del running.stub.failures["ModelStatistics"]
        wait_for(lambda: count(caplog, "gives them again") == 1)


def test_each_reason_of_a_triton_that_is_away_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Triton that starts again with another secret is first not ready, then rejects the old one."""
    caplog.set_level(logging.INFO, "synchroniser")
    with synchronised(tmp_path) as running:
        wait_for(lambda: running.is_triton_up)
        for reason in ("Server not ready", "This protocol is restricted"):
            running.stub.failures["RepositoryIndex"] = (grpc.StatusCode.UNAVAILABLE, reason)
            wait_for(lambda reason=reason: count(caplog, reason) == 1)  # type: ignore[misc]
        since = running.status.as_json()["triton"]
        time.sleep(2.5)  # two more polls
        assert count(caplog, "This protocol is restricted") == 1
        assert running.status.as_json()["triton"] == since
        del running.stub.failures["RepositoryIndex"]
        wait_for(lambda: running.is_triton_up)
        assert count(caplog, "responds") == 2
