"""manifests/logging by the real Fluent Bit: lines of the real stack, broken ones, and a destination that is away."""

import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import boto3
import pytest
import trustme

from stack.logs import log_of
from tests.support.fluent_bit import FOLDER, POD, LogFile, missing, run_fluent_bit
from tests.support.http_server import Exchange
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack, start_shipped, wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
IMAGE = ROOT / "loadtest" / "pictures" / "digits.jpg"
STDOUT = (FOLDER / "stdout.yaml").read_text()
CONTAINERS = {"triton": "kserve-container", "synchroniser": "synchroniser", "transformer": "transformer-container"}
REQUEST_ID = "6f-of-a-client"
Record = dict[str, Any]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Lines that the parts of a real stack logged in a few requests, by container."""
    folder = tmp_path_factory.mktemp("stack")
    variables = {"LOG_FORMAT": "json", "VERBOSE": "", "PREDICTOR_LOG_VERBOSE": "1"}
    with start_shipped(folder, "digits", "digit-finder", variables=variables) as stack:
        send_requests(stack)
    logs = ROOT / "output" / f"serve-{stack.http_port}"
    try:
        return {
            container: log_of(part, logs).read_text(errors="replace").splitlines()
            for part, container in CONTAINERS.items()
        }
    finally:
        shutil.rmtree(logs)


def send_requests(stack: Stack) -> None:
    """An image, an unknown model, a file that is no image."""
    for path, file in (("digit-finder", IMAGE), ("nope", IMAGE), ("digits", ROOT / "Makefile")):
        stack.http.post(
            f"/predict/{path}", files={"image": file.read_bytes()}, headers={"X-Request-Id": f"{REQUEST_ID}-{path}"}
        )


def collect(tmp_path: Path, logs: Path, count: int) -> list[Record]:
    """The records that the pipeline makes of the files, once there are `count`."""
    with run_fluent_bit(tmp_path / "fluent-bit", logs, STDOUT):
        records = tmp_path / "fluent-bit" / "records"
        wait_until(lambda: len(read(records)) >= count, log=tmp_path / "fluent-bit" / "log", seconds=30)
    return read(records)


def read(records: Path) -> list[Record]:
    return [json.loads(line) for line in records.read_bytes().splitlines()] if records.exists() else []


def test_every_line_of_the_stack_is_a_record_with_its_fields(tmp_path: Path, lines: dict[str, list[str]]) -> None:
    for container, of_container in lines.items():
        LogFile(tmp_path, container).write(of_container)
    ours = [json.loads(line) for name in ("synchroniser", "transformer-container") for line in lines[name]]
    triton = [line for line in lines["kserve-container"] if line[:1] in "IWEF" and line[1:5].isdigit()]
    records = collect(tmp_path, tmp_path, len(ours) + len(triton))
    assert len(records) == len(ours) + len(triton)
    assert {(record["namespace"], record["pod"]) for record in records} == {("nereid", POD)}
    named = [record for record in records if record["container"] != "kserve-container"]
    for line in ours:
        members = line.items() - {"time": line["time"]}.items()  # the runtime's time, which every container has
        assert any(members <= record.items() for record in named), line
    of_triton = [record for record in records if record["container"] == "kserve-container"]
    assert {record["level"] for record in of_triton} <= {"INFO", "WARNING", "ERROR"}
    assert {"server.cc:604", "model_lifecycle.cc:472"} & {record["logger"] for record in of_triton}
    # A table is one record, and what is quoted has no quotes.
    assert any("| Backend | Path | Config |\n" in record["message"] for record in of_triton)
    assert not any(record["message"].startswith('"') for record in of_triton)


def test_request_id_is_a_field_of_every_part(tmp_path: Path, lines: dict[str, list[str]]) -> None:
    for container, of_container in lines.items():
        LogFile(tmp_path, container).write(of_container)
    LogFile(tmp_path, "end").write(["end"])
    identifier = f"{REQUEST_ID}-digit-finder"
    collect(tmp_path, tmp_path, 50)
    records = [each for each in read(tmp_path / "fluent-bit" / "records") if each.get("request_id") == identifier]
    assert {record["container"] for record in records} == {"kserve-container", "transformer-container"}
    (access,) = [record for record in records if "route" in record]
    assert (access["model"], access["status"], access["route"]) == ("digit-finder", 200, "/predict/{model}")
    rejected = [each for each in read(tmp_path / "fluent-bit" / "records") if each.get("code") == "invalid_image"]
    assert [record["request_id"] for record in rejected] == [f"{REQUEST_ID}-digits"]


def test_broken_lines_are_records_too(tmp_path: Path) -> None:
    long = json.dumps({"message": "x" * 150_000, "request_id": "long"})
    LogFile(tmp_path, "transformer-container").write(
        [
            "2026-11-28 00:12:11,724 ERROR transformer failed",
            "Traceback (most recent call last):",
            '  File "x.py", line 3, in <module>',
            "ValueError: no",
            json.dumps({"message": "first", "request_id": "1"}),
            "a library's own words",
            "[1, 2]",
            '{"half": ',
            b"not UTF-8: \xff\xfe",
            long,
            json.dumps({"message": "faked", "pod": "other", "namespace": "kube-system", "container": "x", "_p": 1}),
            json.dumps({"message": 5, "level": ["INFO"], "request_id": None}),
            "",
            "Traceback (most recent call last):",
            '  File "y.py", line 4, in <module>',
            "KeyError: 'z'",
            json.dumps({"message": "last"}),
        ]
    )
    records = collect(tmp_path, tmp_path, 12)
    assert {(record["namespace"], record["pod"], record["container"]) for record in records} == {
        ("nereid", POD, "transformer-container")
    }
    messages = [record["message"] for record in records]
    assert messages[0] == "failed"
    assert messages[1] == 'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\nValueError: no'
    by_message = {str(record["message"]): record for record in records}
    assert by_message["first"]["request_id"] == "1"
    for line in ("a library's own words", "[1, 2]", '{"half": '):
        assert any(line in message for message in by_message), line
    assert by_message["x" * 150_000]["request_id"] == "long"
    assert any(str(message).startswith("not UTF-8: ") for message in messages)
    assert by_message["5"]["level"] == ["INFO"]
    assert any("KeyError: 'z'" in str(message) and "y.py" in str(message) for message in messages)
    assert messages[-1] == "last"


def test_traceback_with_its_cause_is_one_record_and_what_follows_another(tmp_path: Path) -> None:
    traceback = [
        "Traceback (most recent call last):",
        '  File "x.py", line 3, in <module>',
        "KeyError: 1",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "y.py", line 4, in <module>',
        "tritonclient.utils.InferenceServerException: no",
    ]
    many = [f"a library's line {number}" for number in range(20_000)]
    LogFile(tmp_path, "transformer-container").write(
        ["2026-11-28 00:12:11,724 ERROR transformer failed", *traceback, *many, json.dumps({"message": "last"})]
    )
    messages = [record["message"] for record in collect_until_last(tmp_path)]
    assert messages[:2] == ["failed", "\n".join(traceback)]
    assert max(map(len, messages)) < 220_000
    assert "\n".join(messages[2:-1]).splitlines() == many


def collect_until_last(tmp_path: Path) -> list[Record]:
    """All records, once the one whose message is `last` is there."""
    with run_fluent_bit(tmp_path / "fluent-bit", tmp_path, STDOUT):
        records = tmp_path / "fluent-bit" / "records"
        wait_until(lambda: b'"last"' in (records.read_bytes() if records.exists() else b""), log=records, seconds=60)
        time.sleep(2)
    return read(records)


def test_line_of_many_spaces_holds_nothing_up(tmp_path: Path) -> None:
    head = "I1128 00:11:13.794512 1 server.cc:604] "
    spaces, quotes = head + '"x' + " " * 150_000 + "y", head + '" ' * 70_000 + "y"
    LogFile(tmp_path, "kserve-container").write([spaces, quotes, head + '"last"'])
    started = time.monotonic()
    records = collect_until_last(tmp_path)
    assert [record.get("logger") for record in records] == ["server.cc:604"] * 3
    assert time.monotonic() - started < 30  # one that is quadratic takes minutes


@pytest.mark.parametrize("output", ["loki", "cloudwatch", "stdout"])
def test_other_namespaces_are_left_alone(tmp_path: Path, output: str) -> None:
    (files,) = re.findall("^LOG_FILES=/var/log/containers/(.*)$", (FOLDER / f"{output}.env").read_text(), re.MULTILINE)
    LogFile(tmp_path, "transformer-container", namespace="team-b").write(['{"message": "theirs"}'])
    LogFile(tmp_path, "transformer-container").write(['{"message": "ours"}'])
    with run_fluent_bit(tmp_path / "state", tmp_path, STDOUT, {"LOG_FILES": str(tmp_path / files)}):
        records = tmp_path / "state" / "records"
        wait_until(lambda: bool(read(records)), log=tmp_path / "state" / "log", seconds=30)
        time.sleep(2)
    assert [record["message"] for record in read(records)] == ["ours"]


class Loki:
    """Loki's push API, in its documented form; `status` is what it responds with."""

    def __init__(self) -> None:
        self.status = 204
        self.streams: list[tuple[dict[str, str], str, dict[str, str]]] = []
        self.requests: list[Mapping[str, str]] = []
        self._lock = Lock()

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """One push: labels, line and structured metadata of each value are kept where it is accepted."""
        pushed = json.loads(gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body)
        with self._lock:
            self.requests.append(dict(headers))
            if self.status != 204:
                return self.status
            for stream in pushed["streams"]:
                for timestamp, line, *metadata in stream["values"]:
                    assert timestamp.isdigit()
                    assert len(line) < 256_000  # Loki's default
                    self.streams.append((stream["stream"], line, *(metadata or [{}])))
            return 204

    def messages(self) -> list[str]:
        """Of the lines, in order."""
        with self._lock:
            return [json.loads(line)["message"] for _, line, _ in self.streams]


@contextmanager
def serve_loki(loki: Loki, port: int) -> Iterator[None]:
    class Handler(Exchange):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            assert self.path == "/loki/api/v1/push"
            self.send(loki.receive(dict(self.headers), self.read()), {}, b"")

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def loki_variables(port: int, **variables: str) -> dict[str, str]:
    """Those of loki.env, with its address."""
    file = (FOLDER / "loki.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in file if not line.startswith("#"))
    del settings["LOG_FILES"]
    return settings | {"LOKI_HOST": "127.0.0.1", "LOKI_PORT": str(port)} | variables


def test_loki_gets_labels_of_few_values_and_the_request_id_as_metadata(
    tmp_path: Path, lines: dict[str, list[str]]
) -> None:
    for container, of_container in lines.items():
        LogFile(tmp_path, container).write(of_container)
    (port,) = find_free_ports(1)
    loki, output = Loki(), (FOLDER / "loki.yaml").read_text()
    identifier = f"{REQUEST_ID}-digit-finder"

    def found() -> set[tuple[str, str]]:
        return {(labels["container"], metadata["pod"]) for labels, _, metadata in list(loki.streams)
                if metadata.get("request_id") == identifier}  # fmt: skip

    with serve_loki(loki, port), run_fluent_bit(tmp_path / "state", tmp_path, output, loki_variables(port)):
        wait_until(lambda: len(found()) == 2, log=tmp_path / "state" / "log", seconds=30)
    assert found() == {("kserve-container", POD), ("transformer-container", POD)}
    labels = {tuple(sorted(each.items())) for each, _, _ in loki.streams}
    assert {name for each in labels for name, _ in each} == {"job", "namespace", "container", "level"}
    assert len(labels) <= 12
    assert not any("X-Scope-OrgID" in headers or "Authorization" in headers for headers in loki.requests)


def test_tenant_and_password_are_sent(tmp_path: Path) -> None:
    LogFile(tmp_path, "synchroniser").write(['{"message": "one"}'])
    (port,) = find_free_ports(1)
    loki, output = Loki(), (FOLDER / "loki.yaml").read_text()
    variables = loki_variables(port, LOKI_TENANT="team-a", LOKI_USER="nereid", LOKI_PASSWORD="secret")  # noqa: S106
    with serve_loki(loki, port), run_fluent_bit(tmp_path / "state", tmp_path, output, variables):
        wait_until(lambda: bool(loki.streams), log=tmp_path / "state" / "log", seconds=30)
    (headers,) = loki.requests
    assert (headers["X-Scope-OrgID"], headers["Authorization"]) == ("team-a", "Basic bmVyZWlkOnNlY3JldA==")


def test_nothing_is_lost_while_the_destination_is_away(tmp_path: Path) -> None:
    """No connection, errors, a kill on the way, a rotation: each line arrives, some of a killed one twice."""
    (port,) = find_free_ports(1)
    loki, output, log = Loki(), (FOLDER / "loki.yaml").read_text(), LogFile(tmp_path, "transformer-container")
    count = 0

    def write(lines: int) -> None:
        nonlocal count
        log.write([json.dumps({"message": str(count + number)}) for number in range(lines)])
        count += lines

    def arrived() -> bool:
        return {str(number) for number in range(count)} == set(loki.messages())

    def wait(condition: Callable[[], bool]) -> None:
        wait_until(condition, log=tmp_path / "state" / "log", seconds=60)

    with run_fluent_bit(tmp_path / "state", tmp_path, output, loki_variables(port)) as process:
        write(500)  # no server listens
        time.sleep(3)
        process.kill()
        process.wait()
    loki.status = 503
    with (
        serve_loki(loki, port),
        run_fluent_bit(tmp_path / "state", tmp_path, output, loki_variables(port)) as process,
    ):
        write(500)
        wait(lambda: len(loki.requests) > 1)
        loki.status = 204
        wait(arrived)
        write(500)
        log.rotate()
        write(500)
        wait(arrived)
    with serve_loki(loki, port), run_fluent_bit(tmp_path / "state", tmp_path, output, loki_variables(port)):
        write(10)
        wait(arrived)
    assert len(loki.messages()) <= count + 1000  # at least once: what the killed one had read may come again


@pytest.fixture
def cloudwatch(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A moto with TLS, which Fluent Bit always speaks to AWS: its port, and the certificate of its authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    (port,) = find_free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), "-s"]
    files = ["-c", str(tmp_path / "certificate.pem"), "-k", str(tmp_path / "key.pem")]
    with (tmp_path / "moto").open("wb") as log, subprocess.Popen([*command, *files], stdout=log, stderr=log) as moto:
        try:
            wait_until(lambda: listens(port), log=tmp_path / "moto")
            yield port, tmp_path / "ca.pem"
        finally:
            moto.terminate()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_cloudwatch_gets_a_stream_for_each_container(
    tmp_path: Path, cloudwatch: tuple[int, Path], lines: dict[str, list[str]]
) -> None:
    """In moto, whose address alone differs from AWS's."""
    port, authority = cloudwatch
    for container, of_container in lines.items():
        LogFile(tmp_path, container).write(of_container)
    account = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    logs = boto3.client(
        "logs", endpoint_url=f"https://localhost:{port}", region_name="eu-central-1", verify=str(authority),
        aws_access_key_id="test", aws_secret_access_key="test",  # noqa: S106
    )  # fmt: skip
    logs.create_log_group(logGroupName="/nereid/containers")
    file = (FOLDER / "cloudwatch.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in file if not line.startswith("#")) | account
    variables |= {"LOG_FILES": str(tmp_path / "*.log")}
    address = f"      endpoint: localhost\n      port: {port}\n      tls.ca_file: {authority}\n"
    output = (FOLDER / "cloudwatch.yaml").read_text() + address

    def streams() -> set[str]:
        found = logs.describe_log_streams(logGroupName="/nereid/containers")["logStreams"]
        return {each["logStreamName"] for each in found}

    with run_fluent_bit(tmp_path / "state", tmp_path, output, variables):
        expected = {f"nereid.{POD}.{container}" for container in CONTAINERS.values()}
        wait_until(lambda: streams() == expected, log=tmp_path / "state" / "log", seconds=30)
        time.sleep(2)
    events = logs.filter_log_events(logGroupName="/nereid/containers", limit=10_000)["events"]
    records = [json.loads(event["message"]) for event in events]
    assert {each["container"] for each in records if each.get("request_id") == f"{REQUEST_ID}-digit-finder"} == {
        "kserve-container",
        "transformer-container",
    }
