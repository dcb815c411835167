"""What a batch is made of, in an order that is the same each time: a batch that was stopped goes on behind its last."""

import csv
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from worker.aws import connect, translating
from worker.batch import parquet
from worker.bucket import Buckets
from worker.errors import StartError, Undeliverable
from worker.messages import Place, etag_of

SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
ROWS = 200  # of a table, in a request
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
TABLES = {".csv", ".parquet"}
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
    """The rows of a CSV file with a header, or of a Parquet file."""

    def __init__(self, path: Path, *, words: Collection[str] = ()) -> None:
        """Read the header of a CSV file.

        Args:
            path: of the file.
            words: of a CSV file, the columns that are words for the model, whatever their cells look like.

        Raises:
            StartError: the file cannot be read, or has no header; pyarrow is not installed.
        """
        self._path, self._words = path, frozenset(words)
        if path.suffix.lower() == ".parquet":
            parquet.require()
            return
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                header = next(csv.reader(file), [])
        except (OSError, UnicodeDecodeError, csv.Error) as exc:
            raise StartError(f"{path}: {exc}") from exc
        if not all(header) or len(set(header)) != len(header) or not header:
            raise StartError(f"{path}: got the header {header}, expected a name for each column, each another")

    def items(self, after: str) -> Iterator[Item]:
        """Some rows each."""
        done = int(after or 0)
        left = islice(self._rows(), done, None)
        while rows := tuple(islice(left, ROWS)):
            yield Item(self._path.name, str(done + len(rows)), rows=rows, first_row=done + 1)
            done += len(rows)

    def count(self, after: str) -> int | None:
        """Of the rows."""
        return sum(1 for _ in islice(self._rows(), int(after or 0), None))

    def _rows(self) -> Iterator[dict[str, Any]]:
        if self._path.suffix.lower() == ".parquet":
            yield from parquet.read_rows(self._path)
            return
        with self._path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, restkey="", restval=""):
                yield {name: self._read_value(name, value) for name, value in row.items()}

    def _read_value(self, name: str, value: Any) -> Any:
        """Null where a cell is empty; a number where it is written as one, and its column is none of words."""
        if value == "":
            return None
        is_number = name not in self._words and isinstance(value, str) and _NUMBER.fullmatch(value)
        return float(value) if is_number else value


def is_table(text: str) -> bool:
    """Whether a user names a table, not images."""
    return not text.startswith("s3://") and Path(text).suffix.lower() in TABLES and Path(text).is_file()


def open_inputs(text: str, *, together: int, most_bytes: int, words: Collection[str] = ()) -> Inputs:
    """The source that a user names: `s3://bucket/prefix`, a folder, a CSV or a Parquet file.

    Args:
        text: as on the command line.
        together: how many images may be read at the same time.
        most_bytes: of an image.
        words: columns of a table that are words.

    Raises:
        StartError: there is none.
    """
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not bucket:
            raise StartError(f"INPUT: got {text!r}, expected s3://bucket/prefix")
        return Prefix(bucket, prefix, together=together, most_bytes=most_bytes)
    if Path(text).is_dir():
        return Folder(Path(text), most_bytes=most_bytes)
    if is_table(text):
        return Table(Path(text), words=words)
    raise StartError(f"INPUT: got {text!r}, expected s3://bucket/prefix, a folder with images, a .csv or .parquet file")


def _is_image(key: str) -> bool:
    return not key.endswith("/") and Path(key).suffix.lower() in SUFFIXES
