"""What a batch is made of, in an order that is the same each time: a batch that was stopped goes on behind its last."""

import csv
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from worker.aws import connect, translating
from worker.bucket import Buckets
from worker.errors import StartError, Undeliverable
from worker.messages import Place, etag_of

SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
ROWS = 200  # of a table, in a request
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MOST_COUNTED = 100_000  # beyond, a listing would take minutes for the progress bar alone


@dataclass(frozen=True)
class Item:
    """A unit of work: an image, or some rows.

    Attributes:
        name: of the image, or of the table.
        mark: where a batch that was stopped after this one goes on.
        read: of an image: returns it as it is encoded, and its ETag; may raise `Undeliverable`, `Away` and `Failed`.
        rows: of a table, with the number of the first; none of an image.
        first_row: from 1, without the header.
    """

    name: str
    mark: str
    read: Callable[[], tuple[bytes, str]] | None = None
    rows: tuple[dict[str, Any], ...] = ()
    first_row: int = 0

    @property
    def size(self) -> int:
        """How many predictions it stands for."""
        return len(self.rows) or 1


class Inputs(Protocol):
    """A source of items."""

    def items(self, after: str) -> Iterator[Item]:
        """The items behind a mark, in order; "" for all."""

    def count(self, after: str) -> int | None:
        """How many predictions they stand for; None where that would take long."""


class Folder:
    """The images of a folder and of those below it, by path."""

    def __init__(self, root: Path, *, most_bytes: int) -> None:
        """Nothing is read yet.

        Args:
            root: the folder.
            most_bytes: of an image.
        """
        self._root, self._most_bytes = root, most_bytes

    def items(self, after: str) -> Iterator[Item]:
        """By path, as text."""
        for name in self._names(self._root):
            if name > after:
                yield Item(name, name, partial(self._read, name))

    def count(self, after: str) -> int | None:
        """Of the files."""
        return sum(1 for _ in self.items(after))

    def _read(self, name: str) -> tuple[bytes, str]:
        path = self._root / name
        try:
            if (size := path.stat().st_size) > self._most_bytes:
                raise Undeliverable("payload_too_large", f"got {size} bytes, expected at most {self._most_bytes}")
            content = path.read_bytes()
        except OSError as exc:
            raise Undeliverable("image_not_found", f"{path}: {exc.strerror}") from exc
        return content, etag_of(content)

    def _names(self, folder: Path) -> Iterator[str]:
        """In the order of the whole paths as text: `a-b` and `a.jpg` stand before what is in `a/`."""
        with os.scandir(folder) as entries:
            found = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries)
        for _, entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from self._names(Path(entry.path))
            elif Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
                yield str(Path(entry.path).relative_to(self._root))


class Prefix:
    """The images below a prefix of a bucket, as S3 lists them."""

    def __init__(self, bucket: str, prefix: str, *, together: int, most_bytes: int) -> None:
        """Nothing is read yet.

        Args:
            bucket: its name.
            prefix: of all keys; empty: the whole bucket.
            together: how many images may be read at the same time.
            most_bytes: of an image.
        """
        self._bucket, self._prefix = bucket, prefix
        self._s3 = connect("s3", together=2)
        self._buckets = Buckets(together=together, most_bytes=most_bytes)

    def items(self, after: str) -> Iterator[Item]:
        """By key, in the order of UTF-8."""
        for key in self._keys(after):
            if _is_image(key):
                place = Place(self._bucket, key)
                yield Item(str(place), key, partial(self._buckets.read, place))

    def count(self, after: str) -> int | None:
        """Of the keys, up to a hundred requests."""
        images = 0
        for number, key in enumerate(self._keys(after)):
            if number == _MOST_COUNTED:
                return None
            images += _is_image(key)
        return images

    def _keys(self, after: str) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2")
        with translating(f"listing s3://{self._bucket}/{self._prefix}"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix, StartAfter=after):
                for entry in page.get("Contents", []):
                    yield entry["Key"]


class Table:
    """The rows of a CSV file with a header; a value that is a number becomes one."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            StartError: the file cannot be read, or has no header.
        """
        self._path = path
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                header = next(csv.reader(file), [])
        except (OSError, UnicodeDecodeError, csv.Error) as exc:
            raise StartError(f"{path}: {exc}") from exc
        if not all(header) or len(set(header)) != len(header) or not header:
            raise StartError(f"{path}: got the header {header}, expected a name for each column, each another")

    def items(self, after: str) -> Iterator[Item]:
        """Some rows each."""
        done, rows, first = int(after or 0), [], int(after or 0) + 1
        with self._path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file, restkey="", restval=""), 1):
                if number <= done:
                    continue
                rows.append({name: _read_value(value) for name, value in row.items()})
                if len(rows) == ROWS:
                    yield Item(self._path.name, str(number), rows=tuple(rows), first_row=first)
                    rows, first = [], number + 1
        if rows:
            yield Item(self._path.name, str(first + len(rows) - 1), rows=tuple(rows), first_row=first)

    def count(self, after: str) -> int | None:
        """Of the rows."""
        return sum(item.size for item in self.items(after))


def open_inputs(text: str, *, together: int, most_bytes: int) -> Inputs:
    """The source that a user names: `s3://bucket/prefix`, a folder, or a CSV file.

    Args:
        text: as on the command line.
        together: how many images may be read at the same time.
        most_bytes: of an image.

    Raises:
        StartError: there is none.
    """
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not bucket:
            raise StartError(f"INPUT: got {text!r}, expected s3://bucket/prefix")
        return Prefix(bucket, prefix, together=together, most_bytes=most_bytes)
    path = Path(text)
    if path.is_dir():
        return Folder(path, most_bytes=most_bytes)
    if path.suffix.lower() == ".csv" and path.is_file():
        return Table(path)
    raise StartError(f"INPUT: got {text!r}, expected s3://bucket/prefix, a folder with images, or a .csv file")


def _is_image(key: str) -> bool:
    return not key.endswith("/") and Path(key).suffix.lower() in SUFFIXES


def _read_value(value: Any) -> Any:
    """A number where the cell is written as one, null where it is empty; `007`, `1_000` and `nan` are words."""
    if value == "":
        return None
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
