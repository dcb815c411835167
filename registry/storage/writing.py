"""Writes the objects of a model repository, on S3 or in a folder alike.

Two publishers may write at once, so a key is written on a condition: that it is free, or that its content is still the
one that was read.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from boto3.s3.transfer import TransferConfig
from botocore import exceptions

from registry.errors import RepositoryError, StorageError
from registry.layout import TEXT_BYTES, Object
from registry.storage.address import read_address
from registry.storage.bucket import Bucket
from registry.storage.bucket_errors import code_of, status_of
from registry.storage.bucket_reading import S3Storage
from registry.storage.folder_lock import lock_folder
from registry.storage.reading import FolderStorage

_BLOCK_BYTES = 1 << 20
_NOT_MET = {404, 409, 412}  # the condition failed; 409: another write to this key is in progress

# Takes the bytes of each block that was sent; negative where some are sent again. An exception ends the upload.
Sent = Callable[[int], None]


@dataclass(frozen=True)
class Content:
    """Content of an object.

    Attributes:
        etag: changes with it.
    """

    data: bytes
    etag: str


class TooLarge(RepositoryError):
    """A config or manifest that is larger than any reader accepts."""


def _read_text(file: Any, where: str) -> bytes:
    data: bytes = file.read(TEXT_BYTES + 1)
    if len(data) > TEXT_BYTES:
        raise TooLarge(f"{where}: got more than {TEXT_BYTES} bytes, expected fewer; next: remove or correct it")
    return data


class WritableS3(S3Storage):
    """A bucket, or a part of one, to read and write."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self._ignores_conditions = False

    def get(self, key: str) -> Content | None:
        """Content of a small text file (config or manifest), or None where it is missing.

        Raises:
            TooLarge: the text is larger than a config or manifest may be.
        """
        found = self._get(key)
        if found is None:
            return None
        with self._bucket.translating(self.url):
            return Content(_read_text(found["Body"], f"{self.url}/{key}"), found["ETag"])

    def put(self, key: str, data: bytes, *, etag: str | None) -> bool:
        """Write where the content still has this etag (None: where it is missing); False where the condition failed."""
        if self._ignores_conditions and (self._head(key) or {}).get("ETag") != etag:
            return False
        mark = uuid4().hex
        if not self._put(key, data, mark, {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}):
            # The response to a first try may have been lost, and the second one found what the first had written.
            return self._writer(key) == mark
        return not self._ignores_conditions or self._writer(key) == mark

    def keeps_conditions(self, key: str) -> bool:
        """Whether the storage honours conditions of `put`; tried with a text that was just written under a new key."""
        content, mark = self.get(key), self._writer(key)
        if content is not None and mark is not None:
            self._ignores_conditions = self._put(key, content.data, mark, {"IfNoneMatch": "*"})
        return not self._ignores_conditions

    def upload(self, key: str, path: Path, sent: Sent) -> None:
        """Write the content of a file, without a condition."""

        def send(client: Any) -> None:
            with path.open("rb") as file:
                place = self._place(key)
                options = TransferConfig(max_concurrency=4)
                client.upload_fileobj(file, place["Bucket"], place["Key"], Callback=sent, Config=options)

        self._bucket.call(self.url, send)

    def delete(self, key: str) -> None:
        """Remove it, where it exists."""
        self._bucket.call(self.url, lambda client: client.delete_object(**self._place(key)))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket.address.bucket, "Key": self._prefix + key}

    def _get(self, key: str) -> Any | None:
        def read(client: Any) -> Any | None:
            try:
                return client.get_object(**self._place(key))
            except exceptions.ClientError as exc:
                if status_of(exc) != 404 or code_of(exc) == "NoSuchBucket":
                    raise
                return None

        return self._bucket.call(self.url, read)

    def _put(self, key: str, data: bytes, mark: str, condition: dict[str, str]) -> bool:
        """Write with a mark; False where the condition failed."""

        def write(client: Any) -> bool:
            try:
                client.put_object(**self._place(key), Body=data, Metadata={"writer": mark}, **condition)
            except exceptions.ClientError as exc:
                if status_of(exc) not in _NOT_MET or code_of(exc) == "NoSuchBucket":
                    raise
                return False
            return True

        return self._bucket.call(self.url, write)

    def _head(self, key: str) -> Any | None:
        def look(client: Any) -> Any | None:
            try:
                return client.head_object(**self._place(key))
            except exceptions.ClientError as exc:
                if status_of(exc) != 404:
                    raise
                return None

        return self._bucket.call(self.url, look)

    def _writer(self, key: str) -> str | None:
        writer: str | None = (self._head(key) or {"Metadata": {}})["Metadata"].get("writer")
        return writer


class WritableFolder(FolderStorage):
    """A folder to read and write. Links in it are not followed, so that nothing outside is read or written."""

    def walk(self, under: str = "") -> Iterator[Object]:
        """Every file, as the synchroniser sees it; nothing before the first version makes the folder."""
        return super().walk(under) if self._root.is_dir() else iter(())

    def get(self, key: str) -> Content | None:
        """See `WritableS3`, like the other methods."""
        try:
            with self._path(key).open("rb") as file:
                data = _read_text(file, f"{self.url}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Content(data, sha256(data).hexdigest())

    def put(self, key: str, data: bytes, *, etag: str | None) -> bool:
        path = self._path(key)
        self._root.mkdir(parents=True, exist_ok=True)
        with lock_folder(self._root):
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

    def keeps_conditions(self, key: str) -> bool:  # noqa: ARG002 - a lock does
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
        with lock_folder(self._root):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in path.parents[: path.parents.index(self._root)]:
                    folder.rmdir()

    def _path(self, key: str) -> Path:
        """Path of a key.

        Raises:
            StorageError: the path has a link.
        """
        path = self._root / key
        for place in (path, *path.parents):
            if place == self._root:
                break
            if place.is_symlink():
                raise StorageError(f"{place}: got a link, expected a file or folder: links in a repository are unused")
        return path


WritableStorage = WritableS3 | WritableFolder


def open_to_write(address: str) -> WritableStorage:
    """The repository at an address; no request is sent yet.

    Raises:
        Misconfigured: neither S3 nor a folder, or a setting of S3 is wrong (a variable, a profile, a certificate).
    """
    place = read_address(address)
    if isinstance(place, Path):
        return WritableFolder(place.resolve())
    bucket = Bucket(place, connect_s=5, read_s=30, attempts=3, together=32)
    bucket.check()
    return WritableS3(bucket)


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """A hidden name beside a file, for content that is not complete yet."""
    hidden = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield hidden
    finally:
        hidden.unlink(missing_ok=True)
