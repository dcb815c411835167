"""Reads the objects of a model repository, on S3 or in a folder alike: for the synchroniser and for export."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from registry.errors import StorageError, VersionRejected
from registry.layout import Object
from registry.storage.address import read_address

_CHUNK_BYTES = 1 << 20
_DEEPEST = 4  # folders in one another that are looked into


class Storage(Protocol):
    """A repository to read.

    Attributes:
        url: its address.
    """

    url: str

    def walk(self, under: str = "") -> Iterator[Object]:
        """Every file whose key begins with `under`, a folder with its slash; all of them or an error.

        Raises:
            StorageError: the storage does not respond, or rejects the request.
        """

    def open(self, source: Object) -> Any:
        """Context manager of a stream of exactly this content.

        Raises:
            StorageError: as above; also where the content has changed since it was listed.
        """


def open_storage(url: str) -> Storage:
    """The storage that an address means.

    Raises:
        Misconfigured: the address is invalid, or the settings of S3 are.
    """
    address = read_address(url)
    if isinstance(address, Path):
        return FolderStorage(address)
    from registry.storage.bucket import Bucket  # noqa: PLC0415 - boto3 takes a while, and a folder needs none
    from registry.storage.bucket_reading import S3Storage  # noqa: PLC0415

    # Few attempts: the synchroniser itself tries again, with pauses.
    bucket = Bucket(address, connect_s=5, read_s=15, attempts=2, together=16)
    bucket.check()
    return S3Storage(bucket)


def download(storage: Storage, source: Object, target: Path, *, count: Callable[[int], None]) -> str:
    """Write a file to disk.

    Args:
        storage: where it is.
        source: as it was listed.
        target: does not exist yet.
        count: takes the bytes of every block.

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
        VersionRejected: it is larger than `limit`.
    """
    if source.size > limit:
        raise VersionRejected(f"{source.key}: got {source.size} bytes, expected at most {limit}")
    with storage.open(source) as stream:
        blocks = iter(lambda: _read(stream, source), b"")
        return b"".join(blocks)


def _read(stream: Any, source: Object) -> bytes:
    try:
        block: bytes = stream.read(_CHUNK_BYTES)
    except OSError as exc:
        raise StorageError(f"{source.key}: {exc}") from exc
    return block


class FolderStorage:
    """A folder; links in it are reported, and never followed."""

    def __init__(self, root: Path, *, hidden: bool = False) -> None:
        """Read a folder; `hidden`: with hidden folders, which the synchroniser ignores, and a stock Triton reads."""
        self.url = str(root)
        self._root = root
        self._hidden = hidden

    def walk(self, under: str = "") -> Iterator[Object]:
        """Every file, and `<folder>/` for one of a model's that is empty.

        Hidden folders, where files are written before they are renamed in, only with `hidden`.
        """
        if not self._root.is_dir():
            raise StorageError(f"{self._root} is no folder")
        folder = self._root / under
        try:
            if folder.is_dir() and not folder.is_symlink():
                yield from self._walk(folder, under, under.count("/"))
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
