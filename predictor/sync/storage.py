"""Where a model repository comes from: S3, or a folder.

boto3 is AWS's own client: it knows every source of credentials (variables, profiles, IRSA, instance roles) and lists
whatever keys there are. obstore was tried: one key such as `a//b` fails its whole listing, and in a folder it follows
links out of it.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import boto3
import botocore.config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, NoCredentialsError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from predictor.sync.errors import StorageError
from registry.errors import Refused
from registry.layout import Object

_CHUNK_BYTES = 1 << 20
_DEEPEST = 4  # folders in one another that are looked into
_CLIENT = botocore.config.Config(
    connect_timeout=5,
    # Of each read, not of the whole: a large model may take long.
    read_timeout=15,
    # The synchroniser has pauses of its own.
    retries={"mode": "standard", "total_max_attempts": 2},
    max_pool_connections=16,
)
# All that boto3 raises where a network, a server or credentials are at fault: urllib3's own where TLS breaks in the
# middle of a body, RuntimeError where refreshed credentials have expired already.
_CLIENT_FAULTS = (BotoCoreError, HTTPClientError, IncompleteReadError, HTTPError, ResponseParserError, RuntimeError)


class Storage(Protocol):
    """What the synchroniser needs of a repository."""

    url: str

    def walk(self) -> Iterator[Object]:
        """Every file; all of them or an error.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """

    def open(self, source: Object) -> Any:
        """Context manager of a stream of exactly this content.

        Raises:
            StorageError: as above; also where the content has changed since it was listed.
        """


def open_storage(url: str) -> Storage:
    """The storage that a URL means: `s3://bucket/prefix`, or a folder.

    Raises:
        StorageError: no such kind of URL.
    """
    if url.startswith("s3://"):
        return S3Storage(url)
    if "://" in url and not url.startswith("file://"):
        raise StorageError(f"repository: got {url}, expected s3://bucket/prefix or a folder")
    return FolderStorage(Path(url.removeprefix("file://")))


def download(storage: Storage, source: Object, target: Path, *, count: Callable[[int], None]) -> str:
    """Write a file to disk.

    Args:
        storage: where it is.
        source: as it was listed.
        target: does not exist yet.
        count: told of every block's bytes.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        StorageError: see `Storage.open`.
        OSError: the disk is full.
    """
    digest = hashlib.sha256()
    size = 0
    with storage.open(source) as stream, target.open("xb") as file:
        while block := _read(stream, source):
            digest.update(block)
            file.write(block)
            count(len(block))
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    if size != source.size:
        raise StorageError(f"{source.key}: got {size} bytes, expected {source.size}")
    return digest.hexdigest()


def read(storage: Storage, source: Object, *, limit: int) -> bytes:
    """Content of a small file.

    Raises:
        StorageError: see `Storage.open`.
        Refused: it is larger than `limit`.
    """
    if source.size > limit:
        raise Refused(f"{source.key}: got {source.size} bytes, expected at most {limit}")
    with storage.open(source) as stream:
        blocks = iter(lambda: _read(stream, source), b"")
        return b"".join(blocks)


def _read(stream: Any, source: Object) -> bytes:
    try:
        block: bytes = stream.read(_CHUNK_BYTES)
    except _CLIENT_FAULTS as exc:
        raise StorageError(f"{source.key}: {exc}") from exc
    return block


class S3Storage:
    """A bucket, or a part of one; endpoint, region and credentials come from boto3's own chain."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._made: Any = None

    @property
    def _client(self) -> Any:
        # Made when it is needed: looking for credentials may ask the network, and fail.
        if self._made is None:
            self._made = boto3.session.Session().client("s3", config=_CLIENT)
        return self._made

    def walk(self) -> Iterator[Object]:
        """Every object below the prefix, in pages of a thousand."""
        with _translated(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(self._prefix) :]
                    yield Object(key, entry["Size"], entry["ETag"], entry["LastModified"])

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """The object, if it is still the one that was listed."""
        with _translated(source.key):
            reply = self._client.get_object(Bucket=self._bucket, Key=self._prefix + source.key, IfMatch=source.etag)
        with closing(reply["Body"]) as body:
            yield body


class FolderStorage:
    """A folder; links in it are told, and never followed."""

    def __init__(self, root: Path, *, hidden: bool = False) -> None:
        """Read a folder; `hidden`: with its hidden folders, which no synchroniser takes, and Triton reads."""
        self.url = str(root)
        self._root = root
        self._hidden = hidden

    def walk(self) -> Iterator[Object]:
        """Every file, and `<folder>/` for one of a model's that is empty.

        Hidden folders, where files are written before they are renamed in, only where asked for.
        """
        if not self._root.is_dir():
            raise StorageError(f"{self._root} is no folder")
        try:
            yield from self._walk(self._root, "")
        except OSError as exc:
            raise StorageError(f"{exc.filename}: {exc.strerror}") from exc

    def _walk(self, folder: Path, prefix: str, depth: int = 0) -> Iterator[Object]:
        with os.scandir(folder) as entries:
            for entry in entries:
                key = prefix + entry.name
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # a moment ago it was there
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if self._hidden or not entry.name.startswith("."):
                        if depth < _DEEPEST:
                            inside = self._walk(folder / entry.name, f"{key}/", depth + 1)
                            # S3 shows an empty folder too, where a tool has made one.
                            first = next(inside, None if depth else _describe(f"{key}/", status))
                            yield from () if first is None else (first,)
                            yield from inside
                        else:  # nothing of a model is there
                            yield _describe(f"{key}/...", status)
                elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    yield _describe(key, status)

    @contextmanager
    def open(self, source: Object) -> Iterator[BinaryIO]:
        """The file, if it is still the one that was listed."""
        try:
            descriptor = os.open(self._root / source.key, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as exc:
            raise StorageError(f"{source.key}: {exc.strerror}") from exc
        with os.fdopen(descriptor, "rb") as file:
            self._check(file, source)
            yield file
            self._check(file, source)

    def _check(self, file: BinaryIO, source: Object) -> None:
        if _describe(source.key, os.fstat(file.fileno())).etag != source.etag:
            raise StorageError(f"{source.key} changed while it was read")


def _describe(key: str, status: os.stat_result) -> Object:
    return Object(
        key,
        status.st_size,
        f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}",
        datetime.fromtimestamp(status.st_mtime, UTC),
        stat.S_ISLNK(status.st_mode),
    )


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except NoCredentialsError as exc:
        raise StorageError(f"{what}: no credentials; set AWS_ACCESS_KEY_ID and so on, or give the pod a role") from exc
    except ClientError as exc:
        error, http = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
        status = http.get("HTTPStatusCode", "")
        raise StorageError(f"{what}: S3 answers {status} {error.get('Code', '')}: {error.get('Message', '')}") from exc
    except _CLIENT_FAULTS as exc:
        raise StorageError(f"{what}: {exc}") from exc
