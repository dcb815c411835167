"""The S3 server of the tests, and the faults of the proxy before it, as boto3 sees them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.s3 import BUCKET, S3, FaultyProxy, connect, start_s3
from tests.support.versions import ODD_KEYS

KEY = "demo/digits/1/model.onnx"
CONTENT = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as server:
        server.put(KEY, CONTENT)
        yield server


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.url) as made:
        yield made


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[Any]:
    """boto3 through the proxy, without second tries, so that a fault is one request."""
    made = connect(proxy.url, retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=1)
    yield made
    made.close()


def read(client: Any, key: str = KEY) -> bytes:
    return bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_proxy_passes_and_records_downloads_and_uploads(s3: S3, proxy: FaultyProxy, client: Any) -> None:
    assert read(client) == CONTENT
    client.put_object(Bucket=BUCKET, Key="demo/up", Body=CONTENT)
    client.list_objects_v2(Bucket=BUCKET, Prefix="demo/")
    assert [(request.method, request.path) for request in proxy.requests] == [
        ("GET", f"/{BUCKET}/{KEY}"),
        ("PUT", f"/{BUCKET}/demo/up"),
        ("GET", f"/{BUCKET}"),
    ]
    assert "prefix=demo/" in proxy.requests[-1].query
    assert s3.client.get_object(Bucket=BUCKET, Key="demo/up")["Body"].read() == CONTENT
    proxy.clear()
    assert proxy.requests == []


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (403, "AccessDenied"), (503, "SlowDown")])
def test_proxy_returns_errors_in_the_format_of_s3(proxy: FaultyProxy, client: Any, status: int, code: str) -> None:
    proxy.status(status)
    with pytest.raises(ClientError, match=code):
        read(client)
    with pytest.raises(ClientError, match=code):
        client.put_object(Bucket=BUCKET, Key="demo/never", Body=CONTENT)
    proxy.pass_all()
    assert read(client) == CONTENT


def test_proxy_closes_its_port_and_opens_it_again(proxy: FaultyProxy, client: Any) -> None:
    proxy.close_port()
    with pytest.raises(BotoCoreError, match="Could not connect"):
        read(client)
    assert proxy.requests == []
    proxy.pass_all()
    assert read(client) == CONTENT


def test_proxy_hangs(proxy: FaultyProxy, client: Any) -> None:
    proxy.hang()
    with pytest.raises(BotoCoreError, match="Read timeout"):
        read(client)
    assert len(proxy.requests) == 1
    proxy.pass_all()
    assert read(client) == CONTENT


def test_response_in_progress_hangs_and_is_reset_when_the_port_closes(proxy: FaultyProxy, client: Any) -> None:
    for fault in (proxy.hang, proxy.close_port):
        proxy.slow(20_000)
        body = client.get_object(Bucket=BUCKET, Key=KEY)["Body"]
        assert body.read(1000) == CONTENT[:1000]
        fault()
        with pytest.raises((BotoCoreError, OSError)):
            body.read()
        body.close()


def test_slow_proxy_passes_everything_slowly(proxy: FaultyProxy, client: Any) -> None:
    proxy.slow(400_000)
    began = time.monotonic()
    assert read(client) == CONTENT
    assert time.monotonic() - began > 0.5, "262 kB at 400 kB/s"


def test_proxy_resets_in_the_middle(proxy: FaultyProxy, client: Any) -> None:
    proxy.reset(10_000)
    with pytest.raises((BotoCoreError, OSError), match=r"(?i)reset|broken"):
        read(client)


def test_fault_of_some_requests_leaves_the_others(proxy: FaultyProxy, client: Any) -> None:
    proxy.status(500, only="model.onnx")
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="demo/digits/")
    assert [entry["Key"] for entry in listed["Contents"]] == [KEY]
    with pytest.raises(ClientError, match="InternalError"):
        read(client)


def test_bucket_keeps_versions_and_odd_keys(s3: S3) -> None:
    odd = ["demo/" + key.format(model="digits") for key in ODD_KEYS]
    for key in odd:
        s3.put(key, b"1")
        s3.put(key, b"2")
    assert set(odd) <= set(s3.keys("demo/"))
    assert len(s3.client.list_object_versions(Bucket=BUCKET, Prefix=odd[0])["Versions"]) == 2
    s3.delete("demo/")
    assert s3.keys("demo/") == []
    s3.put(KEY, CONTENT)


def test_folder_is_uploaded_with_its_manifest_last(
    s3: S3, proxy: FaultyProxy, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("manifest.json", "model.onnx", "z.txt", "warmup/input"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(s3, "client", client)
    s3.upload(tmp_path, "up/tiny/1")
    names = [request.path.removeprefix(f"/{BUCKET}/up/tiny/1/") for request in proxy.requests]
    assert names == ["model.onnx", "warmup/input", "z.txt", "manifest.json"]


def test_server_that_was_stopped_starts_empty_on_its_port(tmp_path: Path) -> None:
    with start_s3(tmp_path / "log") as server:
        server.put(KEY, CONTENT)
        server.stop()
        with pytest.raises(BotoCoreError, match="Could not connect"):
            server.keys()
        server.start()
        assert server.keys() == []
