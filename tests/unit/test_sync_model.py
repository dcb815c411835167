"""A version that cannot be judged, or not now, does not keep out the one before."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.parsers
import pytest
import urllib3

from predictor.settings import Settings
from predictor.sync.mirror import Mirror
from predictor.sync.model import Model
from predictor.sync.shared import Listed, Shared
from predictor.sync.staging import Request, fingerprint
from predictor.sync.status import Status
from predictor.sync.triton import Triton
from registry.errors import StorageError
from registry.layout import Object, read_layout
from registry.storage.address import BucketAddress
from registry.storage.bucket import Bucket
from registry.storage.reading import FolderStorage, _read
from tests.support.ports import find_free_ports
from tests.support.versions import Build, write


class Faulty(FolderStorage):
    """A folder of which one version cannot be read."""

    def __init__(self, root: Path, fault: Exception) -> None:
        super().__init__(root)
        self._fault = fault

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """Anything but version 2."""
        if "/2/" in source.key:
            raise self._fault
        with super().open(source) as stream:
            yield stream


class Fatal(Faulty):
    """A folder of which one version ends who reads it, as the kernel does where memory is short."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, RuntimeError())

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """Version 1 alone."""
        if "/2/" in source.key or "/3/" in source.key:
            os.kill(os.getpid(), signal.SIGKILL)
        with super().open(source) as stream:
            yield stream


@contextmanager
def listed_model(folder: Path, fault: Exception | type[Fatal], *, versions: int = 2) -> Iterator[tuple[Model, Status]]:
    """A model with two versions; where it would be loaded, nothing listens."""
    repository = folder / "repository"
    for number in range(1, versions + 1):
        if not (repository / "rows" / str(number)).exists():
            write(repository, "rows", Build(number))
    (port,) = find_free_ports(1)
    settings = Settings(repository=str(repository), mirror=folder / "mirror", grpc_port=port, poll_s=0.1)
    storage = Faulty(repository, fault) if isinstance(fault, Exception) else fault(repository)
    status = Status(str(repository))
    triton = Triton(f"127.0.0.1:{port}", secret="", load_timeout_s=5)
    mirror = Mirror(folder / "mirror")
    shared = Shared(settings, storage=storage, triton=triton, mirror=mirror, status=status)
    shared.triton_up.set()
    model = Model("rows", shared)
    objects = list(storage.walk())
    folders, _ = read_layout(objects)
    model.listed = Listed(folders["rows"], 0.0, datetime.now(UTC))
    yield model, status
    mirror.close()


def work(model: Model) -> None:
    """As the loop has it: step by step, until nothing is left to do or something has to be waited for."""
    model.work()
    while (due := model.next_time()) is not None and due <= time.monotonic():
        model.work()


def states(status: Status) -> dict[str, tuple[str, str | None]]:
    versions = status.model("rows").versions
    return {number: (version.state, version.reason) for number, version in versions.items()}


def staged(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "mirror" / "staged" / "rows").iterdir()}


def test_what_nobody_thought_of_is_refused(tmp_path: Path) -> None:
    with listed_model(tmp_path, RuntimeError("boom")) as (model, status):
        work(model)
        assert states(status)["2"] == ("refused", "it cannot be judged: RuntimeError: boom")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


@pytest.mark.parametrize(
    "fault", [FileNotFoundError(2, "No such file or directory"), OSError(36, "File name too long"), KeyError("x")]
)
def test_fault_of_ours_is_not_taken_for_one_that_passes(tmp_path: Path, fault: Exception) -> None:
    with listed_model(tmp_path, fault) as (model, status):
        work(model)
        state, reason = states(status)["2"]
        assert (state, (reason or "").partition(":")[0]) == ("refused", "it cannot be judged")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


@pytest.mark.parametrize("fault", [FileNotFoundError(2, "No such file or directory"), ZeroDivisionError()])
def test_fault_of_ours_outside_a_trial_holds_up_no_readiness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fault

    with listed_model(tmp_path, RuntimeError()) as (model, status):
        monkeypatch.setattr("predictor.sync.model.choose", fail)
        work(model)
        assert (model.is_settled, model.fails) == (True, True)
        known = status.model("rows")
        assert known.state == "refused"
        assert f"a fault of the synchroniser, see its log: {type(fault).__name__}" in (known.error or "")
        monkeypatch.undo()
        later = time.monotonic() + 61
        monkeypatch.setattr("predictor.sync.model.time", SimpleNamespace(monotonic=lambda: later))
        assert model.needs_work(), "it is looked at again all the same"


def test_fault_of_ours_when_versions_are_put_together_is_the_newest_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listed_model(tmp_path, RuntimeError(), versions=1) as (model, status):
        monkeypatch.setattr("predictor.sync.model.prove", lambda *_, **__: None)
        monkeypatch.setattr(Triton, "load", lambda *_: None)
        monkeypatch.setattr(Triton, "unload", lambda *_, **__: None)

        def fail(*_: Any) -> None:
            raise FileNotFoundError(2, "No such file or directory")

        monkeypatch.setattr(Mirror, "assemble", fail)
        work(model)
        reason = "it cannot be judged: FileNotFoundError: [Errno 2] No such file or directory"
        assert states(status) == {"1": ("refused", reason)}
        assert (model.is_settled, status.model("rows").state) == (True, "refused")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), MemoryError()])
def test_what_may_pass_is_postponed_after_three_times(tmp_path: Path, fault: Exception) -> None:
    words = "no space left on device" if isinstance(fault, OSError) else "MemoryError"
    with listed_model(tmp_path, fault) as (model, status):
        for _ in range(2):
            work(model)
            assert (states(status)["2"], model.is_settled, model.fails) == (("available", None), False, False)
            assert f"{words}; tried again in" in (status.model("rows").error or "")
        work(model)
        assert states(status)["2"] == ("available", f"{words}; tried again later")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"
        # Which has tries of its own: nothing listens where it would be loaded.
        assert (model.is_settled, model.fails) == (False, False)
        for _ in range(3):
            work(model)
        assert (model.is_settled, model.fails) == (False, True)


def test_what_could_not_be_judged_is_tried_by_the_next_process(tmp_path: Path) -> None:
    with listed_model(tmp_path, RuntimeError("boom")) as (model, _):
        work(model)
    mirror = Mirror(tmp_path / "mirror")
    assert mirror.read_refused("rows") == {}
    mirror.close()


def work_on(folder: Path) -> None:
    with listed_model(folder, Fatal, versions=3) as (model, status):
        work(model)
        for version in ("2", "3"):
            reason = "this process ended 3 times while it was tried; tried again later"
            assert states(status)[version] == ("available", reason)
        assert staged(folder) == {"1"}, "it went on to the one before"


def test_versions_that_end_the_process_again_and_again_keep_out_no_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    # What takes seconds to import, once for all eight.
    context.set_forkserver_preload(["predictor.sync.model", "tests.support.versions"])
    statuses = []
    for _ in range(8):
        process = context.Process(target=work_on, args=(tmp_path,))
        process.start()
        process.join()
        statuses.append(process.exitcode)
    assert statuses == [-signal.SIGKILL] * 6 + [0, 0]


def test_stop_that_was_asked_for_is_no_version_s_fault(tmp_path: Path) -> None:
    with closing(Mirror(tmp_path)) as mirror:
        mirror.write_fatal("rows", {"a": 2}, running="b")
        assert mirror.read_fatal("rows") == {"a": 2, "b": 1}
        mirror.stop()
        assert mirror.read_fatal("rows") == {"a": 2}


def test_version_that_others_go_on_writing_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    with listed_model(tmp_path, RuntimeError()) as (model, _):
        shutil.rmtree(repository / "rows")
        (repository / "rows" / "1").mkdir(parents=True)
        (repository / "rows" / "1" / "model.onnx").write_bytes(b"more and more")
        folders = read_layout(list(FolderStorage(repository).walk()))[0]
        model.listed = Listed(folders["rows"], time.monotonic(), datetime.now(UTC))
        work(model)
        assert (model.is_settled, model.fails) == (False, False)
        now_s = time.monotonic() + 3 * 10 + 31
        monkeypatch.setattr("predictor.sync.model.time", SimpleNamespace(monotonic=lambda: now_s))
        assert (model.is_settled, model.fails) == (False, True)


def test_version_that_changes_again_and_again_has_to_settle(tmp_path: Path) -> None:
    with listed_model(tmp_path, OSError(5, "Input/output error")) as (model, status):
        for number in range(5):
            path = tmp_path / "repository" / "rows" / "2" / "parity.json"
            path.write_bytes(path.read_bytes() + b" ")
            folders = read_layout(list(FolderStorage(tmp_path / "repository").walk()))[0]
            model.listed = Listed(folders["rows"], time.monotonic(), datetime.now(UTC))
            work(model)
            said = states(status)["2"]
            assert said[0] == ("available" if number < 3 else "incomplete")
        assert said[1] == "changed 3 times or more: waits 10 s for more files"
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


def test_postponed_version_is_no_work_while_the_config_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listed_model(tmp_path, OSError(28, "No space left on device")) as (model, _):
        for _ in range(6):  # and the one before fails, for nothing listens where it would be loaded
            work(model)
        (tmp_path / "repository" / "rows" / "config.pbtxt").write_text("version_policy {")
        folders, _ = read_layout(list(FolderStorage(tmp_path / "repository").walk()))
        model.listed = Listed(folders["rows"], 1.0, datetime.now(UTC))
        assert model.needs_work()
        now_s = time.monotonic() + 600
        monkeypatch.setattr("predictor.sync.model.time", SimpleNamespace(monotonic=lambda: now_s))
        work(model)
        assert (model.needs_work(), model.next_time()) == (False, None)


class Broken:
    """A body whose TLS breaks."""

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def read(self, _: int) -> bytes:
        raise self._fault


@pytest.mark.parametrize(
    "fault",
    [
        urllib3.exceptions.SSLError("EOF occurred in violation of protocol"),
        urllib3.exceptions.ProtocolError("Connection broken"),
        botocore.parsers.ResponseParserError("Unable to parse response"),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ],
)
def test_fault_of_the_network_or_credentials_may_pass(fault: Exception) -> None:
    listed = Object("rows/2/model.onnx", 5, "etag", datetime.now(UTC))
    with pytest.raises(StorageError, match=r"rows/2/model\.onnx"):
        _read(Broken(fault), listed)
    bucket = Bucket(BucketAddress("models"), connect_s=1, read_s=1, attempts=1, together=1)
    with pytest.raises(StorageError, match="s3://models"), bucket.clearly("s3://models"):
        raise fault


def test_equal_content_under_two_numbers_is_two_versions(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for number in (1, 2):
        version = repository / "rows" / str(number)
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(b"the same")
    objects = [
        replace(item, etag="the same") for item in list(FolderStorage(repository).walk())
    ]  # as S3 has it: an MD5
    folders, _ = read_layout(objects)
    requests = [Request("rows", number, folders["rows"], None, profile="fp32", cpus=2) for number in (1, 2)]
    assert len({fingerprint(request) for request in requests}) == 2
