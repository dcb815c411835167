"""S3 as users have it: what is set wrongly, keys that are renewed, servers that do less than AWS's."""

import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from export.__main__ import main
from export.writer.repository import write_version
from registry.errors import Misconfigured, StorageError
from registry.storage.reading import open_storage
from registry.storage.writing import open_to_write
from tests.support.exported import version
from tests.support.http_server import Judge, Quiet, run_server, serve
from tests.support.s3 import S3, start_s3
from tests.support.stack import ROOT

CONDITIONS = {"if-none-match", "if-match"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real server."""
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def variables(s3: S3, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the tests' server, and nothing else of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A repository as export leaves it."""
    write_version(tmp_path / "local", version())
    return tmp_path / "local"


def _publish(address: str, local: Path) -> int:
    return main(["publish", "tiny", "--from", str(local), "--force", "--repository", address])


WRONG = [
    ({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "AWS_ENDPOINT_URL: got '127.0.0.1:9000', expected such as http://"),
    ({"AWS_ENDPOINT_URL": "localhost:9000"}, "AWS_ENDPOINT_URL: got 'localhost:9000', expected such as http://"),
    ({"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"}, "AWS_ENDPOINT_URL_S3: got '127.0.0.1:9000'"),
    ({"AWS_ENDPOINT_URL": "ftp://localhost"}, "AWS_ENDPOINT_URL: got 'ftp://localhost'"),
    ({"AWS_ENDPOINT_URL": "http://user:hidden@host:99999"}, "AWS_ENDPOINT_URL: got 'http://host:99999'"),
    ({"AWS_ENDPOINT_URL": " http://localhost:9000"}, "AWS_ENDPOINT_URL: got ' http://localhost:9000'"),
    ({"AWS_PROFILE": "none-such"}, "profile (none-such) could not be found"),
    ({"AWS_REGION": "us east"}, "'us east'"),
    ({"AWS_DEFAULT_REGION": "us east"}, "'us east'"),
    ({"AWS_SECRET_ACCESS_KEY": ""}, "missing: AWS_SECRET_ACCESS_KEY"),
    ({"AWS_CONFIG_FILE": "[default\nregion = x"}, "Unable to parse config file"),
    ({"AWS_CONFIG_FILE": "[default]\ns3 = nonsense"}, "a profile is not as botocore expects it"),
    ({"AWS_CONFIG_FILE": "[default]\nendpoint_url = h:1", "AWS_ENDPOINT_URL": ""}, "Invalid endpoint: h:1"),
    ({"AWS_SHARED_CREDENTIALS_FILE": "nonsense", "AWS_ACCESS_KEY_ID": ""}, "Unable to parse config file"),
    ({"AWS_ENDPOINT_URL": "https://localhost", "AWS_CA_BUNDLE": "/none"}, "AWS_CA_BUNDLE: /none: No such file"),
    (
        {"AWS_ENDPOINT_URL": "https://localhost", "AWS_CA_BUNDLE": str(Path(__file__))},
        "expected a file of certificates",
    ),
    ({"HTTP_PROXY": "http://user:hidden@host:99999"}, "HTTP_PROXY: got 'http://host:99999', expected such as http://"),
]


@pytest.mark.parametrize(("wrong", "expected"), WRONG)
def test_wrong_settings_are_reported_before_any_request(
    wrong: Mapping[str, str],
    expected: str,
    variables: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _set(variables, wrong, tmp_path)
    with pytest.raises(Misconfigured) as rejected:
        open_storage("s3://models/x")
    assert expected in str(rejected.value)
    assert main(["versions", "--repository", "s3://models/x"]) == 1
    words = capsys.readouterr().err
    assert expected in words
    assert words.count("\n") == 1
    assert "hidden" not in words


@pytest.mark.parametrize(
    ("address", "wrong", "expected"),
    [
        ("s3://models/x", *WRONG[0]),
        ("s3://models/x", {"AWS_PROFILE": "none-such"}, "profile (none-such) could not be found"),
        ("s3://http://one:9000/models", {}, "REPOSITORY names http://one:9000, and AWS_ENDPOINT_URL another server"),
        ("gs://models", {}, "got 'gs://models', expected s3://bucket/prefix"),
    ],
)
def test_synchroniser_that_is_set_up_wrongly_ends_with_one_line_and_status_2(
    address: str, wrong: Mapping[str, str], expected: str, variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _set(variables, wrong, tmp_path)
    variables.setenv("PREDICTOR_REPOSITORY", address)
    variables.setenv("PREDICTOR_MIRROR", str(tmp_path / "mirror"))
    done = subprocess.run(
        [sys.executable, "-m", "predictor", "synchroniser"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert expected in done.stderr


def _set(variables: pytest.MonkeyPatch, wrong: Mapping[str, str], folder: Path) -> None:
    for name, value in wrong.items():
        if name.endswith("_FILE"):
            (folder / name).write_text(value)
            variables.setenv(name, str(folder / name))
        elif value:
            variables.setenv(name, value)
        else:
            variables.delenv(name)


@pytest.mark.parametrize("form", ["s3://{url}/models/{name}/", "s3://{host}//models//{name}", "s3://models/{name}"])
def test_address_with_a_server_in_it_needs_no_variable(
    form: str, s3: S3, variables: pytest.MonkeyPatch, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"my models+ü%20/{uuid4().hex}"
    address = form.format(url=s3.url, host=s3.url.removeprefix("http://"), name=name)
    if s3.url.removeprefix("http://") in address:
        variables.delenv("AWS_ENDPOINT_URL")
    assert _publish(address, local) == 0
    assert f"{name}/tiny/1/model.onnx" in s3.keys("")
    assert main(["versions", "--repository", address]) == 0
    assert "wanted" in capsys.readouterr().out
    assert {item.key for item in open_storage(address).walk()} >= {"tiny/config.pbtxt", "tiny/1/model.onnx"}


def test_server_that_ignores_conditions_is_reported(
    s3: S3, variables: pytest.MonkeyPatch, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"s3://models/{uuid4().hex}"
    assert _publish(address, local) == 0
    assert "conditional" not in capsys.readouterr().out
    with serve(lambda *_: None, upstream=s3.url, hidden=CONDITIONS) as server:
        variables.setenv("AWS_ENDPOINT_URL", server.url)
        assert _publish(address, local) == 0
        assert f"{address}: this server ignores conditional writes (If-None-Match)" in capsys.readouterr().out
    assert f"{address.removeprefix('s3://models/')}/tiny/2/manifest.json" in s3.keys("")


def test_publishers_on_such_a_server_do_not_both_get_the_number(s3: S3, variables: pytest.MonkeyPatch) -> None:
    with serve(lambda *_: None, upstream=s3.url, hidden=CONDITIONS) as server:
        variables.setenv("AWS_ENDPOINT_URL", server.url)
        first = open_to_write(f"s3://models/{uuid4().hex}")
        second = open_to_write(first.url)
        assert first.put("tiny/1/config.pbtxt", b"first", etag=None)
        assert second.put("tiny/1/config.pbtxt", b"second", etag=None)  # so it is there
        assert not first.keeps_conditions("tiny/1/config.pbtxt")
        assert not second.keeps_conditions("tiny/1/config.pbtxt")
        assert first.put("tiny/1/manifest.json", b"first", etag=None)
        assert not second.put("tiny/1/manifest.json", b"second", etag=None)
        content = first.get("tiny/1/config.pbtxt")
        assert content is not None
        assert first.put("tiny/1/config.pbtxt", b"changed", etag=content.etag)
        assert not second.put("tiny/1/config.pbtxt", b"lost", etag=content.etag)


def _write_keys(path: Path, key: str) -> None:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = x\naws_session_token = {key}\n")


def _knows(keys: Collection[str]) -> Judge:
    def judge(headers: Mapping[str, str]) -> tuple[int, str] | None:
        fields = {name.lower(): value for name, value in headers.items()}
        known = any(f"Credential={key}/" in fields.get("authorization", "") for key in keys)
        return None if known else (400, "ExpiredToken")

    return judge


def test_keys_that_are_renewed_in_their_file_are_read_again(
    s3: S3, variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = tmp_path / "credentials"
    _write_keys(keys, "first")
    known = ["first"]
    with serve(lambda *_: None, upstream=s3.url, judge=_knows(known)) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            variables.delenv(name)
        variables.setenv("AWS_ENDPOINT_URL", server.url)
        variables.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
        address = f"s3://models/{uuid4().hex}"
        reader, writer = open_storage(address), open_to_write(address)
        assert writer.put("tiny/1/config.pbtxt", b"text", etag=None)
        (item,) = reader.walk()
        known[:] = ["second"]
        with pytest.raises(StorageError, match=r"access denied \(ExpiredToken"):
            list(reader.walk())
        _write_keys(keys, "second")
        with reader.open(item) as stream:
            assert stream.read() == b"text"
        assert len(list(reader.walk())) == 1
        assert writer.put("tiny/1/manifest.json", b"text", etag=None)
        known[:] = ["third"]
        _write_keys(keys, "third")
        writer.upload("tiny/1/model.onnx", keys, lambda _: None)
    assert len(s3.keys(address.removeprefix("s3://models/"))) == 3


def test_keys_that_come_later_are_found(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        variables.delenv(name)
    variables.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    reader = open_storage(f"s3://models/{uuid4().hex}")
    with pytest.raises(StorageError, match="no credentials; expected AWS_ACCESS_KEY_ID"):
        list(reader.walk())
    _write_keys(tmp_path / "credentials", "late")
    assert list(reader.walk()) == []


def test_token_of_a_role_that_is_not_there_yet_is_a_fault_that_may_pass(
    s3: S3, variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        variables.delenv(name)
    variables.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    variables.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    variables.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    reader = open_storage(f"s3://models/{uuid4().hex}")
    with pytest.raises(StorageError, match="token: No such file"):
        list(reader.walk())
    (tmp_path / "token").write_text("a token")
    assert list(reader.walk()) == []


def test_region_is_that_of_aws_region(s3: S3, variables: pytest.MonkeyPatch) -> None:
    def judge(headers: Mapping[str, str]) -> tuple[int, str] | None:
        return None if "/eu-north-1/s3/" in str(headers) else (400, "AuthorizationHeaderMalformed")

    with serve(lambda *_: None, upstream=s3.url, judge=judge) as server:
        variables.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(StorageError, match=r"the bucket is in another region .*; next: AWS_REGION="):
            list(open_storage("s3://models/none").walk())
        variables.setenv("AWS_REGION", "eu-north-1")  # botocore knows AWS_DEFAULT_REGION alone
        assert list(open_storage("s3://models/none").walk()) == []


@contextmanager
def _lister(quirk: str) -> Iterator[str]:
    """A server with the keys a/1/0 to a/1/4, in pages of two, that does not list as AWS does; its URL."""
    keys = [f"a/1/{index}" for index in range(5)]

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            after = "" if quirk == "older" else query.get("continuation-token") or query.get("start-after", "")
            rest = [key for key in keys if key > after]
            page = rest[:2]
            entries = "".join(
                f"<Contents><Key>{'other/' if quirk == 'foreign' else ''}{key}</Key><Size>1</Size><ETag>e</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in page
            )
            more = len(rest) > len(page)
            token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more and not quirk else ""
            body = (
                f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    with run_server(Handler) as url:
        yield url


@pytest.mark.parametrize("quirk", ["", "no token"])
def test_listing_is_complete_without_optional_fields_of_a_server(quirk: str, variables: pytest.MonkeyPatch) -> None:
    variables.delenv("AWS_ENDPOINT_URL")
    with _lister(quirk) as url:
        assert [item.key for item in open_storage(f"s3://{url}/models").walk()] == [f"a/1/{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("quirk", "expected"),
    [("older", "lists the same keys again, expected ListObjectsV2"), ("foreign", "the server lists 'other/a/1/0'")],
)
def test_listing_that_cannot_be_trusted_is_a_failed_one(
    quirk: str, expected: str, variables: pytest.MonkeyPatch
) -> None:
    variables.delenv("AWS_ENDPOINT_URL")
    with _lister(quirk) as url, pytest.raises(StorageError, match=expected):
        list(open_storage(f"s3://{url}/models/a").walk())


def test_object_that_was_replaced_is_not_read_where_a_server_ignores_the_condition(
    s3: S3, variables: pytest.MonkeyPatch
) -> None:
    prefix = uuid4().hex
    s3.put(f"{prefix}/a/1/model.onnx", b"one")
    with serve(lambda *_: None, upstream=s3.url, hidden=CONDITIONS) as server:
        variables.setenv("AWS_ENDPOINT_URL", server.url)
        reader = open_storage(f"s3://models/{prefix}")
        (item,) = reader.walk()
        s3.put(f"{prefix}/a/1/model.onnx", b"two")
        with pytest.raises(StorageError, match="changed while it was read"), reader.open(item):
            pass


def test_folder_with_a_blank_is_one_for_both_readers(
    tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path}/my%20models/"
    assert _publish(address, local) == 0
    assert (tmp_path / "my models" / "tiny" / "1" / "model.onnx").is_file()
    assert main(["versions", "--repository", address]) == 0
    assert "wanted" in capsys.readouterr().out
    assert "tiny/1/model.onnx" in {item.key for item in open_storage(address).walk()}


@pytest.mark.parametrize("name", ["model.bin", "notes.txt"])
def test_version_without_a_model_is_complete_for_no_reader(
    name: str, tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _publish(str(tmp_path / "served"), local) == 0
    folder = tmp_path / "served" / "tiny" / "2"
    folder.mkdir()
    (folder / name).write_bytes(b"weights")
    capsys.readouterr()
    assert main(["versions", "--repository", str(tmp_path / "served")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ tiny")]
    assert [line.split("│")[-2].strip() for line in lines] == ["wanted", "incomplete"]
