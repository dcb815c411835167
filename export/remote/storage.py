"""The objects of a model repository, on S3 or in a local folder alike.

Two publishers may work at once, so what is written under a name is written on a condition: that nothing has the name,
or that its content is still the one that was read.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions
from botocore.config import Config

from export.errors import ExportError
from export.versions import alone_in
from registry.layout import TEXT_BYTES

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
_ATTEMPTS = 3
_BLOCK_BYTES = 1 << 20
_NOT_MET = {404, 409, 412}  # of a condition; 409: another write to this name is under way
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"

# Told how many bytes more are sent; less, where some are sent again. What it raises ends the upload.
Sent = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """An object, or a file.

    Attributes:
        key: path inside the repository, with slashes.
    """

    key: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True)
class Content:
    """Content of an object.

    Attributes:
        etag: changes with it.
    """

    data: bytes
    etag: str


class TooLarge(ExportError):
    """A config or manifest that no reader takes."""


class Storage(Protocol):
    """A repository.

    Attributes:
        address: as a user writes it, and as the server that mirrors it does.
    """

    address: str

    def entries(self, under: str = "") -> list[Entry]:
        """Everything whose key begins with `under`, a folder with its slash; empty where there is no such folder."""

    def get(self, key: str) -> Content | None:
        """Content of a text, or None where there is none.

        Raises:
            TooLarge: nothing that it could be is so large.
        """

    def blocks(self, key: str) -> Iterator[bytes]:
        """Content, a piece at a time.

        Raises:
            ExportError: there is none.
        """

    def put(self, key: str, data: bytes, *, etag: str | None) -> bool:
        """Write where the content still has this etag, where it is None where there is none; False: it was not so."""

    def upload(self, key: str, path: Path, sent: Sent) -> None:
        """Write the content of a file, whatever was there."""

    def delete(self, key: str) -> None:
        """Remove it, if it is there."""


def _read_text(file: Any, where: str) -> bytes:
    data: bytes = file.read(TEXT_BYTES + 1)
    if len(data) > TEXT_BYTES:
        raise TooLarge(f"{where}: got more than {TEXT_BYTES} bytes, expected fewer; next: remove or correct it")
    return data


def normalise(address: str) -> str:
    """The one way to write where a repository is.

    Raises:
        ExportError: neither S3 nor a folder.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "s3" and rest.strip("/"):
        return f"s3://{rest.strip('/')}"
    if separator and scheme == "file" and rest.startswith("/"):
        return str(Path(unquote(urlsplit(address).path)).resolve())
    if separator or not address:
        raise ExportError(f"REPOSITORY: got {address!r}, expected s3://<bucket>/<prefix>, file:///<folder> or a folder")
    return str(Path(address).resolve())


def open_storage(address: str) -> Storage:
    """The repository at an address; nothing is asked yet.

    Raises:
        ExportError: neither S3 nor a folder.
    """
    address = normalise(address)
    return S3(address) if address.startswith("s3://") else LocalFolder(Path(address))


class S3:
    """A prefix in a bucket. Credentials and endpoint are boto3's own business."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=32,
            # The newer checksums are unknown to older MinIO and Ceph; manifest.json has a digest of every file.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with self._clearly():
            try:
                self._client = boto3.session.Session().client("s3", config=config)
            except ValueError as exc:
                raise ExportError(f"AWS_ENDPOINT_URL: {exc}; expected such as http://localhost:9000") from exc

    def entries(self, under: str = "") -> list[Entry]:
        pages = self._client.get_paginator("list_objects_v2")
        with self._clearly():
            return [
                Entry(found["Key"][len(self._prefix) :], found["Size"], found["LastModified"])
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + under)
                for found in page.get("Contents", ())
            ]

    def get(self, key: str) -> Content | None:
        with self._clearly():
            try:
                found = self._client.get_object(**self._place(key))
            except self._client.exceptions.NoSuchKey:
                return None
            return Content(_read_text(found["Body"], f"{self.address}/{key}"), found["ETag"])

    def blocks(self, key: str) -> Iterator[bytes]:
        with self._clearly():
            try:
                found = self._client.get_object(**self._place(key))
            except self._client.exceptions.NoSuchKey as exc:
                raise ExportError(f"{self.address}/{key}: got nothing, expected a file; next: try again") from exc
            yield from found["Body"].iter_chunks(_BLOCK_BYTES)

    def put(self, key: str, data: bytes, *, etag: str | None) -> bool:
        mark = uuid4().hex
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with self._clearly():
            try:
                self._client.put_object(**self._place(key), Body=data, Metadata={"writer": mark}, **condition)
            except exceptions.ClientError as exc:
                if _status(exc) not in _NOT_MET or _code(exc) == "NoSuchBucket":
                    raise
                # The answer to a first try may have been lost, and the second one met what the first had written.
                return self._writer(key) == mark
        return True

    def upload(self, key: str, path: Path, sent: Sent) -> None:
        with self._clearly(), path.open("rb") as file:
            self._client.upload_fileobj(
                file, self._bucket, self._prefix + key, Callback=sent, Config=TransferConfig(max_concurrency=4)
            )

    def delete(self, key: str) -> None:
        with self._clearly():
            self._client.delete_object(**self._place(key))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _writer(self, key: str) -> str | None:
        try:
            writer: str | None = self._client.head_object(**self._place(key))["Metadata"].get("writer")
        except exceptions.ClientError as exc:
            if _status(exc) != 404:
                raise
            return None
        return writer

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        """Say what botocore reports as something that a user can act on; never its text where that has headers in it.

        Raises:
            ExportError: S3 refused, or could not be asked.
        """
        try:
            yield
        except exceptions.ClientError as exc:
            raise ExportError(f"{self.address}: {self._refusal(exc)}") from exc
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as exc:
            raise ExportError(f"{self.address}: {exc}; expected {_KEYS}; next: export them, and try again") from exc
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as exc:
            raise ExportError(f"{self.address}: {self._endpoint} {_transport_failure(exc)}") from exc
        except exceptions.BotoCoreError as exc:
            raise ExportError(f"{self.address}: {exc}") from exc

    @property
    def _endpoint(self) -> str:
        parts = urlsplit(self._client.meta.endpoint_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password

    def _refusal(self, error: exceptions.ClientError) -> str:
        code, status = _code(error), _status(error)
        if code == "NoSuchBucket":
            return (
                f"no bucket {self._bucket} at {self._endpoint}; next: make it, or mend REPOSITORY or AWS_ENDPOINT_URL"
            )
        if status in {401, 403}:
            return (
                f"access denied ({code}, {error.operation_name}); expected credentials that may list, read, write and "
                f"delete there; next: look at {_KEYS}"
            )
        if status == 501:
            return f"{self._endpoint} does not know {error.operation_name} as it was asked; expected conditional writes"
        if status >= 500 or status == 429:
            return f"{self._endpoint} failed {_ATTEMPTS} times ({status} {code}); next: try again later"
        return str(error)


class LocalFolder:
    """A folder. Links in it are not followed, so that nothing outside is read or written."""

    def __init__(self, root: Path) -> None:
        self.address = str(root)
        self._root = root

    def entries(self, under: str = "") -> list[Entry]:
        found = []
        for folder, _, names in os.walk(self._path(under)):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # went in this moment
                    facts = path.lstat()
                    if stat.S_ISREG(facts.st_mode):
                        modified = datetime.fromtimestamp(facts.st_mtime, UTC)
                        found.append(Entry(path.relative_to(self._root).as_posix(), facts.st_size, modified))
        return found

    def get(self, key: str) -> Content | None:
        try:
            with self._path(key).open("rb") as file:
                data = _read_text(file, f"{self.address}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Content(data, sha256(data).hexdigest())

    def blocks(self, key: str) -> Iterator[bytes]:
        try:
            with self._path(key).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ExportError(f"{self.address}/{key}: got nothing, expected a file; next: try again") from exc

    def put(self, key: str, data: bytes, *, etag: str | None) -> bool:
        path = self._path(key)
        self._root.mkdir(parents=True, exist_ok=True)
        with alone_in(self._root):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _hidden(path) as hidden:
                hidden.write_bytes(data)
                if etag is None:
                    try:
                        os.link(hidden, path)  # unlike a rename, this replaces nothing
                    except FileExistsError:
                        return False
                    return True
                present = self.get(key)
                if present is None or present.etag != etag:
                    return False
                hidden.replace(path)
                return True

    def upload(self, key: str, path: Path, sent: Sent) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _hidden(target) as hidden:
            with path.open("rb") as source, hidden.open("xb") as copy:
                while block := source.read(_BLOCK_BYTES):
                    copy.write(block)
                    sent(len(block))
            hidden.replace(target)

    def delete(self, key: str) -> None:
        path = self._path(key)
        if not self._root.is_dir():
            return
        with alone_in(self._root):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in path.parents[: path.parents.index(self._root)]:
                    folder.rmdir()

    def _path(self, key: str) -> Path:
        """Place of a key.

        Raises:
            ExportError: a link is on the way.
        """
        path = self._root / key
        for place in (path, *path.parents):
            if place == self._root:
                break
            if place.is_symlink():
                raise ExportError(f"{place}: got a link, expected a file or folder: links in a repository are unused")
        return path


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """A name beside a file for what is not complete yet."""
    hidden = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield hidden
    finally:
        hidden.unlink(missing_ok=True)


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _transport_failure(error: Any) -> str:
    match error:
        case exceptions.ReadTimeoutError():
            return f"did not answer in {READ_TIMEOUT_S} s, {_ATTEMPTS} times; next: try again later"
        case exceptions.SSLError():
            return f"is not trusted: {error.kwargs.get('error')}; next: AWS_CA_BUNDLE=<certificates>"
        case exceptions.ConnectionError():
            return "cannot be reached; next: look at AWS_ENDPOINT_URL, and whether it runs (locally: make s3)"
        case _:
            return f"broke off ({type(error).__name__}); next: try again"
