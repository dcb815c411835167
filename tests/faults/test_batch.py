"""Batches with the real stack and S3: each input has one line, whatever stops the batch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.support.s3 import BUCKET, S3, FaultyProxy, start_s3
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_shipped, start_stack, wait_until
from tests.support.tables import export

IMAGE = (ROOT / "loadtest" / "pictures" / "middle-two.jpg").read_bytes()
HEADER = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start_shipped(tmp_path_factory.mktemp("stack"), "digit-classes", "iris") as started:
        yield started


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


def start(url: str, log: Path, *words: str, **variables: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "worker.batch", "--url", url, *words],
            cwd=ROOT, env=os.environ | variables, stdout=output, stderr=output,
        )  # fmt: skip


def run(url: str, log: Path, *words: str, **variables: str) -> int:
    return start(url, log, *words, **variables).wait(PATIENCE_S)


def lines_of(folder: Path, kind: str = "part") -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.glob(f"{kind}-*.jsonl")) for line in path.read_text().splitlines()
    ]


def write_images(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    names = [f"{index:04}.jpg" for index in range(count)]
    for name in names:
        (folder / name).write_bytes(IMAGE)
    return names


def test_folder_has_the_results_of_single_requests(stack: Stack, tmp_path: Path) -> None:
    names, log = write_images(tmp_path / "images", 5), tmp_path / "log"
    (tmp_path / "images" / "0002.jpg").write_bytes(b"broken")
    words = (str(tmp_path / "images"), str(tmp_path / "out"), "digit-classes", "--parameters", "top_k=2")
    assert run(str(stack.http.base_url), log, *words) == 1
    expected = stack.http.post("/predict/digit-classes?top_k=2", files={"image": IMAGE}).raise_for_status().json()
    lines = lines_of(tmp_path / "out")
    assert [line["input"] for line in lines] == [name for name in names if name != "0002.jpg"]
    assert all(line["predictions"] == expected["predictions"] for line in lines)
    (failure,) = lines_of(tmp_path / "out", "failed")
    assert (failure["input"], failure["code"]) == ("0002.jpg", "invalid_image")
    assert "1 x invalid_image" in log.read_text()
    assert run(str(stack.http.base_url), log, *words) == 1  # complete: nothing is done again
    assert lines_of(tmp_path / "out") == lines


def test_table_has_a_line_for_each_row(stack: Stack, tmp_path: Path) -> None:
    table, log = tmp_path / "rows.csv", tmp_path / "log"
    rows = ["5.1,3.5,1.4,0.2\n", "6.3,3.3,6.0,2.5\n"] * 150
    rows[251] = "6.3,what,6.0,2.5\n"
    table.write_text(HEADER + "".join(rows))
    assert run(str(stack.http.base_url), log, str(table), str(tmp_path / "out"), "iris") == 1
    lines = lines_of(tmp_path / "out")
    assert [line["row"] for line in lines] == [row for row in range(1, 301) if row != 252]
    assert {(line["row"] % 2, line["prediction"]["class"]) for line in lines} == {(1, "setosa"), (0, "virginica")}
    (failure,) = lines_of(tmp_path / "out", "failed")
    assert (failure["row"], failure["code"]) == (252, "invalid_request")


def test_words_that_look_like_numbers_are_words_where_the_model_has_words(tmp_path: Path) -> None:
    log, codes = tmp_path / "log", ["007", "7", "1e3", "1000"]
    frame = pandas.DataFrame({"code": codes * 10})
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(C=1e4))
    assert export(tmp_path, "sklearn", estimator.fit(frame, frame["code"]), name="codes") == 0
    (tmp_path / "rows.csv").write_text("code\n" + "".join(f"{code}\n" for code in codes))
    with start_stack(tmp_path / "repository", tmp_path / "stack-log") as stack:
        words = (str(tmp_path / "rows.csv"), str(tmp_path / "out"), "codes")
        assert run(str(stack.http.base_url), log, *words) == 0
    assert [line["prediction"]["class"] for line in lines_of(tmp_path / "out")] == list(estimator.predict(frame[:4]))


def test_parquet_has_the_rows_of_jsonl_and_is_read_as_a_table(stack: Stack, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is missing; next: make .venv/.parquet")
    write_images(tmp_path / "images", 50)
    log, url = tmp_path / "log", str(stack.http.base_url)
    frame = pandas.DataFrame(
        [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]] * 10, columns=HEADER.strip().split(",")
    )  # fmt: skip
    frame.to_parquet(tmp_path / "rows.parquet")
    for source, model, lines in (("images", "digit-classes", 20), ("rows.parquet", "iris", 1000)):
        found = {}
        for form in ("jsonl", "parquet"):
            out = tmp_path / f"{model}-{form}"
            words = (str(tmp_path / source), str(out), model, "--format", form, "--lines", str(lines))
            assert run(url, log, *words) == 0
            assert run(url, log, *words) == 0  # complete
            parts = sorted(out.glob("part-*"))
            assert len(parts) == -(-(50 if model == "digit-classes" else 20) // lines)
            progress = json.loads((out / "progress.json").read_text())
            assert ("columns" in progress["request"]) == (form == "parquet")
            found[form] = lines_of(out) if form == "jsonl" else pq.read_table(parts).to_pylist(maps_as_pydicts="strict")
        member = "predictions" if model == "digit-classes" else "prediction"
        for line, row in zip(found["jsonl"], found["parquet"], strict=True):
            assert (line["input"], line["model"]) == (row["input"], row["model"])
            kept = (
                row[member] if isinstance(row[member], list) else {k: v for k, v in row[member].items() if k != "value"}
            )
            assert kept == line[member]
    request = progress["request"] | {"columns": "those of another server"}
    (out / "progress.json").write_text(json.dumps(progress | {"request": request}))
    assert run(url, log, *words) == 2
    assert "OUTPUT has another batch" in log.read_text()


def test_two_batches_do_not_write_to_one_output(stack: Stack, s3: S3, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    log = tmp_path / "log"
    for output in (str(tmp_path / "out"), f"s3://{BUCKET}/locked"):
        words = (str(tmp_path / "images"), output, "digit-classes")
        with FaultyProxy(str(stack.http.base_url)) as proxy:
            proxy.hang(only="/predict")
            first = start(proxy.url, log, *words, **s3.environment())
            wait_until(lambda proxy=proxy: bool(proxy.requests), log=log)  # type: ignore[misc]
            second = tmp_path / "second"
            assert run(str(stack.http.base_url), second, *words, **s3.environment()) == 2
            assert "another batch writes to it" in second.read_text()
            first.kill()
            first.wait()
        began = time.monotonic()
        assert run(str(stack.http.base_url), log, *words, **s3.environment()) == 0  # nothing is left of the first
        assert time.monotonic() - began < 60
    assert not s3.keys("locked/lock")
    assert len(s3.keys("locked/part")) == 1


@pytest.mark.parametrize("done", [0, 20])
def test_batch_whose_lock_is_taken_over_writes_no_more(stack: Stack, s3: S3, tmp_path: Path, done: int) -> None:
    write_images(tmp_path / "images", 60)
    log, output = tmp_path / "log", f"lost-{done}"
    words = (str(tmp_path / "images"), f"s3://{BUCKET}/{output}", "digit-classes", "--slots", "4")
    with FaultyProxy(str(stack.http.base_url)) as proxy:
        if not done:
            proxy.hang(only="/predict")
        process = start(proxy.url, log, *words, **s3.environment())
        wait_until(lambda: len(proxy.requests) > done, log=log)
        proxy.hang(only="/predict")
        s3.put(f"{output}/lock.json", b'{"host": "another", "process": 1}')
        assert process.wait(PATIENCE_S) == 2
    assert "another batch writes to it" in log.read_text()
    assert not s3.keys(f"{output}/part")
    assert s3.keys(f"{output}/lock")  # it is the other one's


def test_suspended_batch_is_taken_over_and_ends_when_it_goes_on(stack: Stack, s3: S3, tmp_path: Path) -> None:
    names, log = write_images(tmp_path / "images", 300), tmp_path / "log"
    words = (str(tmp_path / "images"), f"s3://{BUCKET}/suspended", "digit-classes", "--lines")
    url = str(stack.http.base_url)
    process = start(url, log, *words, "20", **s3.environment())
    wait_until(lambda: len(s3.keys("suspended/part")) >= 3, log=log)
    process.send_signal(signal.SIGSTOP)
    second = start(url, log, *words, "7", **s3.environment())
    began = len(s3.keys("suspended/part"))
    wait_until(lambda: len(s3.keys("suspended/part")) > began + 2, log=log)
    process.send_signal(signal.SIGCONT)
    assert process.wait(PATIENCE_S) == 2
    assert second.wait(PATIENCE_S) == 0, log.read_text()
    contents = [s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in s3.keys("suspended/part")]
    assert [json.loads(line)["input"] for content in contents for line in content.splitlines()] == names


def test_stopped_batch_does_not_wait_for_a_server_that_hangs(stack: Stack, tmp_path: Path) -> None:
    names, log, out = write_images(tmp_path / "images", 60), tmp_path / "log", tmp_path / "out"
    words = (str(tmp_path / "images"), str(out), "digit-classes", "--slots", "4")
    with FaultyProxy(str(stack.http.base_url)) as proxy:
        process = start(proxy.url, log, *words)
        wait_until(lambda: len(proxy.requests) > 20, log=log)
        proxy.hang(only="/predict")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert time.monotonic() - began < 20
    assert 0 < len(lines_of(out)) < 60
    assert run(str(stack.http.base_url), log, *words) == 0
    assert [line["input"] for line in lines_of(out)] == names


def test_server_that_fails_has_a_line_for_each_row(stack: Stack, tmp_path: Path) -> None:
    table, log = tmp_path / "rows.csv", tmp_path / "log"
    table.write_text(HEADER + "5.1,3.5,1.4,0.2\n" * 210)
    with FaultyProxy(str(stack.http.base_url)) as proxy:
        proxy.status(500, only="/predict")
        assert run(proxy.url, log, str(table), str(tmp_path / "out"), "iris") == 1
    failures = lines_of(tmp_path / "out", "failed")
    assert [line["row"] for line in failures] == list(range(1, 211))
    assert {line["code"] for line in failures} == {"failed"}


def test_names_with_brackets_are_shown_and_go_on(stack: Stack, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    (tmp_path / "images" / "a[").mkdir(parents=True)
    for name in ("a[/x].jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(IMAGE)
    words = (str(tmp_path / "images"), str(out), "digit-classes")
    assert run(str(stack.http.base_url), log, *words) == 0
    progress = json.loads((out / "progress.json").read_text())
    (out / "progress.json").write_text(json.dumps(progress | {"after": "a[/x].jpg"}))
    assert run(str(stack.http.base_url), log, *words) == 0
    assert "goes on behind a[/x].jpg: 2 are done" in log.read_text()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_batch_that_is_stopped_again_and_again_has_one_line_for_each_image(
    stack: Stack, tmp_path: Path, stop: signal.Signals
) -> None:
    names, log, out = write_images(tmp_path / "images", 300), tmp_path / "log", tmp_path / "out"
    words = (str(tmp_path / "images"), str(out), "digit-classes", "--lines", "20")
    statuses = []
    for parts in (2, 5, 9):
        process = start(str(stack.http.base_url), log, *words)
        wait_until(lambda parts=parts: len(list(out.glob("part-*"))) >= parts, log=log)  # type: ignore[misc]
        process.send_signal(stop)
        statuses.append(process.wait(PATIENCE_S))
    assert set(statuses) == {-signal.SIGKILL if stop == signal.SIGKILL else 130}
    assert len(lines_of(out)) < 300
    assert run(str(stack.http.base_url), log, *words) == 0
    assert [line["input"] for line in lines_of(out)] == names
    assert "goes on behind" in log.read_text()


def test_servers_that_are_away_are_waited_for(stack: Stack, s3: S3, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for index in range(240):
        s3.put(f"in/{index:04}.jpg", IMAGE)
    s3.put("in/notes.txt", b"no image")
    with FaultyProxy(s3.url) as to_s3, FaultyProxy(str(stack.http.base_url)) as to_stack:
        words = (f"s3://{BUCKET}/in", f"s3://{BUCKET}/out/today", "digit-classes", "--lines", "20", "--slots", "4")
        process = start(to_stack.url, log, *words, **s3.environment(to_s3.url))
        for proxy, parts in ((to_s3, 1), (to_stack, 3)):
            wait_until(lambda parts=parts: len(s3.keys("out/today/part")) >= parts, log=log)  # type: ignore[misc]
            proxy.close_port()
            time.sleep(2)
            assert process.poll() is None
            proxy.status(503)
            time.sleep(2)
            assert process.poll() is None
            proxy.pass_all()
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    keys = sorted(s3.keys("out/today/part"))
    contents = [s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    inputs = [json.loads(line)["input"] for content in contents for line in content.splitlines()]
    assert inputs == [f"s3://{BUCKET}/in/{index:04}.jpg" for index in range(240)]
    assert "waiting" in log.read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("absent", "out", "iris"), "INPUT: got 'absent'"),
        (("images", "out", "absent"), "absent"),
        (("empty", "out", "iris"), "has nothing for a model"),
        ((f"s3://{BUCKET}/nothing", "out", "iris"), "has nothing for a model"),
        (("images", "file/out", "iris"), "OUTPUT:"),
        (("s3://no-such-bucket/in", "out", "iris"), "NoSuchBucket"),
        (("images", "out", "iris", "--url", "localhost:9"), "expected http://host:port"),
    ],
)
def test_batch_that_cannot_begin_says_why(
    stack: Stack, s3: S3, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    write_images(tmp_path / "images", 1)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    log = tmp_path / "log"
    places = [str(tmp_path / word) if word in {"images", "empty", "out", "file/out"} else word for word in words]
    assert run(str(stack.http.base_url), log, *places, **s3.environment()) == 2
    assert expected in log.read_text()
