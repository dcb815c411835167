"""A batch in a bucket that is taken over, and requests to S3 that are late or lose their response."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from moto import mock_aws

from worker import holding
from worker.aws import connect
from worker.batch import locks, objects
from worker.batch.outputs import Form, Outputs, PrefixStore
from worker.errors import StartError, Stopping

BUCKET = "results"
REQUEST = {"input": "photos", "model": "yolo", "parameters": {}}
Call = Callable[[str, dict[str, Any], Callable[[], Any]], Any]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket, with a lease of 1 s that is never renewed: as that of a batch which is suspended."""
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, seconds in {"RENEW_S": 600.0, "LEASE_S": 1.0, "LOOK_S": 0.05, "SLOW_S": 0.3}.items():
        monkeypatch.setattr(locks, name, seconds)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Callable[[Call], None]:
    """Put a function around each call of the clients that are made from now on."""

    def put(call: Call) -> None:
        class Client:
            def __init__(self, service: str, **words: Any) -> None:
                self.real = connect(service, **words)

            def __getattr__(self, name: str) -> Any:
                return lambda **words: call(name, words, partial(getattr(self.real, name), **words))

        monkeypatch.setattr(objects, "connect", Client)

    return put


class Run:
    """One run of a batch, in a store of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.stopped = threading.Event()
        self.hold = partial(holding.hold, stopped=self.stopped)
        self.store = PrefixStore(BUCKET, "out")
        self.locked = self.store.locked(self.hold, stopped=self.stopped)
        self.folder = folder

    def begin(self, lines: int = 10) -> Outputs:
        return Outputs(self.store, REQUEST, folder=self.folder, form=Form(lines), hold=self.hold)


def lines_of(s3: Any, kind: str = "part") -> list[Any]:
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"out/{kind}").get("Contents", [])]
    contents = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    return [json.loads(line)["input"] for content in contents for line in content.splitlines()]


def test_suspended_batch_that_was_taken_over_writes_no_more(s3: Any, tmp_path: Path) -> None:
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    with first.locked:
        old = first.begin()
        old.add([{"input": 0}], [{"input": 1}], mark="1")
        with second.locked:
            new = second.begin(lines=2)
            reject(old)
            reject(old)  # a second try has the same end
            new.add([{"input": 0}, {"input": 1}], [], mark="1")
            new.add([{"input": 2}], [], mark="2")
            reject(old)
            new.flush(is_last=True)
            progress = s3.get_object(Bucket=BUCKET, Key="out/progress.json")["Body"].read()
        reject(old)  # also once the other one is complete, and its lock gone
    assert (lines_of(s3), lines_of(s3, "failed")) == ([0, 1, 2], [])
    assert s3.get_object(Bucket=BUCKET, Key="out/progress.json")["Body"].read() == progress


def reject(old: Outputs) -> None:
    with pytest.raises(StartError, match="another batch writes to it"):
        old.flush()


@pytest.mark.parametrize("late", ["out/part-00000.jsonl", "out/failed-00000.jsonl", "out/progress.json"])
def test_write_that_is_held_until_after_a_take_over_does_no_harm(
    s3: Any, tmp_path: Path, around: Callable[[Call], None], late: str
) -> None:
    reached, go = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def call(name: str, words: dict[str, Any], send: Callable[[], Any]) -> Any:
        if name == "put_object" and words["Key"] == late and threading.current_thread().name == "old":
            reached.set()
            go.wait(10)
        return send()

    def flush() -> None:
        try:
            old.flush()
        except StartError as exc:
            errors.append(exc)

    around(call)
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    with first.locked:
        old = first.begin()
        old.add([{"input": 0}], [{"input": 1}], mark="1")
        thread = threading.Thread(target=flush, name="old")
        thread.start()
        assert reached.wait(10)
        with second.locked:
            new = second.begin()
            new.add([{"input": 0}, {"input": 1}], [], mark="1")
            new.flush()
            go.set()
            thread.join()
            new.add([{"input": 2}], [], mark="2")
            new.flush(is_last=True)
    assert errors
    assert (lines_of(s3), lines_of(s3, "failed")) == ([0, 1, 2], [])
    progress = json.loads(s3.get_object(Bucket=BUCKET, Key="out/progress.json")["Body"].read())
    assert (progress["after"], progress["part"], progress["failed"], progress["complete"]) == ("2", 2, 0, True)


def test_lock_of_another_batch_is_not_removed(s3: Any, tmp_path: Path) -> None:
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    with first.locked, second.locked:
        pass  # the second ends first
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    first, second = Run(tmp_path / "c"), Run(tmp_path / "d")
    with first.locked:
        second.locked.__enter__()
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1
    second.locked.__exit__(None, None, None)
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_lease_that_is_not_written_while_s3_is_away_is_not_taken_over(
    s3: Any, tmp_path: Path, around: Callable[[Call], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.4)
    away = threading.Event()
    back = {True: 0.0, False: 0.0}  # for the first, which is a little later, and the second

    def call(_: str, __: dict[str, Any], send: Callable[[], Any]) -> Any:
        is_first = threading.current_thread().name == "lease"
        if away.is_set() and time.monotonic() < back[is_first]:
            raise ConnectTimeoutError(endpoint_url="s3")
        return send()

    def begin_outage() -> None:
        now = time.monotonic()
        back.update({True: now + 2.4, False: now + 1.4})
        away.set()

    around(call)
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    with first.locked:
        threading.Timer(0.2, begin_outage).start()
        with pytest.raises(StartError, match="another batch writes to it, process"), second.locked:
            pass
        assert not first.stopped.is_set()
        first.begin().flush(is_last=True)
    assert not s3.list_objects_v2(Bucket=BUCKET, Prefix="out/lock")["KeyCount"]


def test_writes_whose_response_is_lost_do_not_end_a_batch(
    s3: Any, tmp_path: Path, around: Callable[[Call], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.2)
    seen: dict[tuple[str, str], int] = {}

    def call(name: str, words: dict[str, Any], send: Callable[[], Any]) -> Any:
        found = send()
        key = (name, words.get("Key", ""))
        seen[key] = seen.get(key, 0) + 1
        if name in {"put_object", "delete_object"} and seen[key] <= 2:
            raise ReadTimeoutError(endpoint_url="s3")
        return found

    around(call)
    run = Run(tmp_path / "a")
    with run.locked:
        outputs = run.begin()
        time.sleep(1)
        outputs.add([{"input": 0}], [{"input": 1}], mark="1")
        outputs.flush(is_last=True)
        assert not run.stopped.is_set()
    assert (lines_of(s3), lines_of(s3, "failed")) == ([0], [1])
    again = Run(tmp_path / "b")
    with again.locked:
        assert again.begin().progress["complete"]
    assert not s3.list_objects_v2(Bucket=BUCKET, Prefix="out/lock").get("Contents")


@pytest.mark.parametrize("content", [b"{}", b"[]", b"mine", b"\xff"])
def test_lock_that_is_none_of_a_batch_is_said(s3: Any, tmp_path: Path, content: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="out/lock.json", Body=content)
    with pytest.raises(StartError, match=r"OUTPUT: lock\.json is not one of a batch"), Run(tmp_path / "a").locked:
        pass
    assert s3.get_object(Bucket=BUCKET, Key="out/lock.json")["Body"].read() == content


def test_batch_that_lost_its_lock_with_nothing_to_write_says_so(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.1)
    run = Run(tmp_path / "a")

    def work() -> None:
        with run.locked:
            s3.put_object(Bucket=BUCKET, Key="out/lock.json", Body=b'{"host": "another", "process": 1}')
            assert run.stopped.wait(5)
            raise Stopping

    with pytest.raises(StartError, match="another batch writes to it"):
        work()


def test_files_of_a_run_that_lost_its_store_do_not_stay_beside_the_results(s3: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked:
        outputs = run.begin()
        s3.put_object(Bucket=BUCKET, Key="out/failed-00000.jsonl", Body=b'{"input": 0}\n')  # by a late request
        outputs.add([{"input": 0}], [], mark="0")
        outputs.flush(is_last=True)
    assert (lines_of(s3), lines_of(s3, "failed")) == ([0], [])


def test_killed_batch_is_taken_over_and_its_open_part_written_again(s3: Any, tmp_path: Path) -> None:
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    first.locked.__enter__()
    outputs = first.begin()
    outputs.add([{"input": 0}], [{"input": 1}], mark="1")
    before = s3.get_object(Bucket=BUCKET, Key="out/progress.json")["Body"].read()
    outputs.flush()
    s3.put_object(Bucket=BUCKET, Key="out/progress.json", Body=before)
    with second.locked:
        again = second.begin()
        again.add([{"input": 0}, {"input": 1}], [], mark="1")
        again.flush(is_last=True)
    assert (lines_of(s3), lines_of(s3, "failed")) == ([0, 1], [])
    first.locked.__exit__(None, None, None)
