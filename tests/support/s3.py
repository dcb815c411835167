"""An S3 server (moto) on loopback, and a proxy in front of it that injects faults."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config

from tests.support.ports import find_free_ports, is_open
from tests.support.stack import PATIENCE_S

BUCKET = "models"
_CHUNK_BYTES = 1 << 16
_STEPS_PER_S = 20
_MANIFEST = "manifest.json"

T = TypeVar("T")


class S3:
    """The server.

    Attributes:
        url: for `AWS_ENDPOINT_URL`.
        client: boto3's, past any proxy.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        (self._port,) = find_free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.client = connect(self.url)

    def environment(self, url: str = "") -> dict[str, str]:
        """Variables for clients of the server, or of a proxy in front; configuration files of the user are ignored."""
        return _CREDENTIALS | {"AWS_ENDPOINT_URL": url or self.url}

    def start(self) -> None:
        """Start it with an empty, versioned bucket: moto keeps everything in memory."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not is_open(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"no S3 server:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        self.client.create_bucket(Bucket=BUCKET)
        self.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def put(self, key: str, content: bytes | Path) -> None:
        """Upload one object, as `aws s3 cp` does."""
        self.client.put_object(
            Bucket=BUCKET, Key=key, Body=content if isinstance(content, bytes) else content.read_bytes()
        )

    def upload(self, folder: Path, prefix: str, *, pause_s: float = 0.0) -> None:
        """Upload the files of a folder, manifest.json last.

        Args:
            folder: a version, or a whole model.
            prefix: key of the folder, such as `demo/digits/2`.
            pause_s: before each file but the first.
        """
        files = sorted(
            (path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.name == _MANIFEST, path)
        )
        for index, path in enumerate(files):
            if index:
                time.sleep(pause_s)
            self.put(f"{prefix}/{path.relative_to(folder)}", path)

    def delete(self, prefix: str) -> None:
        """Delete every object below a prefix, as `aws s3 rm --recursive` does."""
        for key in self.keys(prefix):
            self.client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        """The present keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


# Empty or missing files in place of the user's: a profile in them would take precedence.
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_SESSION_TOKEN": "",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def start_s3(log: Path) -> Iterator[S3]:
    """An S3 server with an empty bucket `models`, versioning on, until the block ends."""
    server = S3(log)
    server.start()
    try:
        with closing(server.client):
            yield server
    finally:
        server.stop()


def connect(url: str, **options: Any) -> Any:
    """A boto3 client of an endpoint; `options` are of botocore's `Config`."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=_CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(**options),
    )


@dataclass(frozen=True)
class Request:
    """A request to the proxy.

    Attributes:
        path, query: without percent encoding.
        at: `time.monotonic()`.
    """

    method: str
    path: str
    query: str
    at: float


@dataclass(frozen=True)
class _Fault:
    """A fault of requests with `only` in path or query; all others pass.

    Attributes:
        status: sent as the response at once.
        hangs: no response, and nothing more is forwarded.
        bytes_per_s: rate of the response, for each connection.
        reset_after_bytes: length of the response after which the connection is reset.
    """

    only: str = ""
    status: int = 0
    hangs: bool = False
    bytes_per_s: int = 0
    reset_after_bytes: int | None = None


class FaultyProxy:
    """An HTTP proxy in a thread, with one request for each connection. At first it forwards everything."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname, parts.port)
        (self._port,) = find_free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.requests: list[Request] = []
        self._fault = _Fault()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def clear(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def pass_all(self) -> None:
        """Forward everything from now on, also responses in progress, except those that hang."""
        self._set(_Fault())

    def status(self, status: int, *, only: str = "") -> None:
        """Respond with this status and an S3 error."""
        self._set(_Fault(only, status=status))

    def hang(self, *, only: str = "") -> None:
        """Accept and never respond; responses in progress stop."""
        self._set(_Fault(only, hangs=True))

    def slow(self, bytes_per_s: int, *, only: str = "") -> None:
        """Limit the rate of responses, for each connection."""
        self._set(_Fault(only, bytes_per_s=bytes_per_s))

    def reset(self, after_bytes: int, *, only: str = "") -> None:
        """Reset each connection after so many bytes of its response."""
        self._set(_Fault(only, reset_after_bytes=after_bytes))

    def close_port(self) -> None:
        """Accept no connections and reset open ones, as if the server's process had ended."""
        self._call(self._close())

    def _set(self, fault: _Fault) -> None:
        self._fault = fault
        self._call(self._open())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _close(self) -> None:
        if self._server is not None:
            for each in self._server.sockets:
                self._loop.remove_reader(each.fileno())
            # What was accepted at this moment becomes a connection: of a closed server it would be left open for ever.
            await asyncio.sleep(0.01)
            self._server.close()
            self._server = None
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._respond(reader, writer)
        except asyncio.CancelledError:  # by _close()
            _reset(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one side has gone
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = target.partition("?")
        request = Request(method, unquote(path), unquote(query), time.monotonic())
        self.requests.append(request)
        fault = self._of(request)
        if fault.hangs:
            await reader.read()  # until the client gives up
        elif fault.status:
            await _send_error(reader, writer, fault.status, method)
        else:
            await self._pass(request, head, reader, writer)

    def _of(self, request: Request) -> _Fault:
        fault = self._fault
        return fault if fault.only in f"{request.path}?{request.query}" else _Fault()

    async def _pass(
        self, request: Request, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream_reader, upstream = await asyncio.open_connection(*self._upstream)
        try:
            lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")]
            upstream.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
            body = asyncio.create_task(_pump(reader, upstream))
            try:
                await self._return(request, upstream_reader, writer)
            finally:
                body.cancel()
        finally:
            upstream.close()

    async def _return(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a response under the present fault."""
        sent = 0
        while True:
            fault = self._of(request)
            most = max(fault.bytes_per_s // _STEPS_PER_S, 1) if fault.bytes_per_s else _CHUNK_BYTES
            if fault.reset_after_bytes is not None:
                most = min(most, fault.reset_after_bytes - sent)
                if most <= 0:
                    _reset(writer)
                    return
            block = await reader.read(most)
            if self._of(request).hangs:
                await asyncio.Event().wait()
            if not block:
                return
            writer.write(block)
            await writer.drain()
            sent += len(block)
            if fault.bytes_per_s:
                await asyncio.sleep(1 / _STEPS_PER_S)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(_CHUNK_BYTES):
            writer.write(block)
            await writer.drain()


async def _send_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, method: str) -> None:
    code = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}.get(status, "Unknown")
    phrase = HTTPStatus(status).phrase
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{phrase}</Message></Error>'
    writer.write(
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{'' if method == 'HEAD' else body}".encode()
    )
    await writer.drain()
    writer.write_eof()
    # Closed with an unread body, the connection would be reset before the client has read the response.
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(), 2)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, not FIN, which would look like the end of a response without a length."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
