"""Where the lines of a batch go: parts of JSONL or Parquet, each written whole, and how far the batch has come."""

import io
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import ClientError

from worker.aws import code_of, connect, translating
from worker.batch.locks import LOCK, Lease, locked_folder, taken
from worker.batch.parquet import Columns
from worker.errors import StartError

PROGRESS = "progress.json"
BYTES = 64 * 2**20  # of a part, as JSONL: it ends then too

Hold = Callable[[Callable[[], Any]], Any]


class Store(Protocol):
    """A folder, or a prefix of a bucket."""

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""

    def write(self, name: str, content: Path | bytes) -> None:
        """Write a file whole: no reader sees a part of it."""

    def remove(self, name: str) -> None:
        """Remove a file, where there is one."""

    def locked(self, hold: Hold, *, stopped: threading.Event) -> AbstractContextManager[None]:
        """Keep other batches out.

        Args:
            hold: calls a function until nothing that it needs is away.
            stopped: ends the waiting; set where another batch has taken the store over.

        Raises:
            StartError: another one is in it.
        """


class FolderStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        """Make the folder.

        Raises:
            StartError: that is not possible.
        """
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StartError(f"OUTPUT: {root}: {exc.strerror}") from exc

    def read(self, name: str) -> bytes | None:
        """As the protocol says."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: Path | bytes) -> None:
        """As the protocol says."""
        new = self._root / f".{name}.new"
        with new.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._root / name)

    def remove(self, name: str) -> None:
        """As the protocol says."""
        (self._root / name).unlink(missing_ok=True)

    def locked(self, hold: Hold, *, stopped: threading.Event) -> AbstractContextManager[None]:  # noqa: ARG002 - of a lease
        """As the protocol says."""
        return locked_folder(self._root)


class PrefixStore:
    """A prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Nothing is sent yet."""
        self._s3 = connect("s3", together=3)
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._lease = Lease(self._s3, bucket, self._key(LOCK))

    def read(self, name: str) -> bytes | None:
        """As the protocol says; raises `Away` or `Failed`."""
        with translating(f"reading {self._key(name)}"):
            try:
                content: bytes = self._s3.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
            except ClientError as exc:
                if code_of(exc) not in {"NoSuchKey", "404"}:
                    raise
                return None
        return content

    def write(self, name: str, content: Path | bytes) -> None:
        """As the protocol says; raises `Away` or `Failed`, `StartError` where another batch has taken over."""
        if self._lease.is_lost:
            raise taken()
        opened = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
        with opened as body, translating(f"writing {self._key(name)}"):
            self._s3.put_object(Bucket=self._bucket, Key=self._key(name), Body=body)

    def remove(self, name: str) -> None:
        """As the protocol says; raises `Away` or `Failed`."""
        with translating(f"removing {self._key(name)}"):
            self._s3.delete_object(Bucket=self._bucket, Key=self._key(name))

    def locked(self, hold: Hold, *, stopped: threading.Event) -> AbstractContextManager[None]:
        """As the protocol says."""
        return self._lease.held(hold, stopped=stopped)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def open_store(text: str) -> Store:
    """The place that a user names: `s3://bucket/prefix` or a folder.

    Raises:
        StartError: it cannot be used.
    """
    if not text.startswith("s3://"):
        return FolderStore(Path(text))
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not bucket:
        raise StartError(f"OUTPUT: got {text!r}, expected s3://bucket/prefix or a folder")
    return PrefixStore(bucket, prefix)


class Form(NamedTuple):
    """How parts are written.

    Attributes:
        lines: of a part.
        columns: of Parquet; None: JSONL.
    """

    lines: int
    columns: Columns | None = None


class Outputs:
    """The parts of a batch in a store.

    `part-00000.jsonl` (or `.parquet`) has a line for each result, `failed-00000.jsonl` one for each input without one,
    and `progress.json` says behind which input the batch goes on. It is written after the part: a batch that is killed
    between the two writes that part again, with the same lines.
    """

    def __init__(
        self,
        store: Store,
        request: dict[str, Any],
        *,
        folder: Path,
        form: Form,
        hold: Hold,
    ) -> None:
        """Read how far the batch has come.

        Args:
            store: of the parts.
            request: input, model and so on: what a batch that goes on has in common with this one.
            folder: for the lines of parts that are not written yet.
            form: of the parts.
            hold: calls a function until nothing that it needs is away.

        Raises:
            StartError: the store has another batch.
        """
        self._store, self._hold, self._folder, self._form = store, hold, folder, form
        self._lines: dict[str, list[int]] = {"part": [0, 0], "failed": [0, 0]}  # lines and bytes of the open part
        self._mark = ""
        self.progress: dict[str, Any] = {
            "request": request,
            "after": "",
            "complete": False,
            **dict.fromkeys(("part", "failed", "results", "failures"), 0),
        }
        found = hold(partial(store.read, PROGRESS))
        if found is None:
            first = self._name("part", 0)
            if hold(partial(store.read, first)) is not None:
                raise StartError(f"OUTPUT has {first} without {PROGRESS}; next: another OUTPUT")
            self._write_progress()
            return
        try:
            before = json.loads(found)
            before_request, _ = before["request"], before["part"]
        except (ValueError, KeyError, TypeError) as exc:
            raise StartError(f"OUTPUT: {PROGRESS} is not one of a batch; next: another OUTPUT") from exc
        if before_request != request:
            raise StartError(
                f"OUTPUT has another batch, {json.dumps(before_request)}, expected {json.dumps(request)}; next: "
                "another OUTPUT, or remove that one"
            )
        self.progress, self._mark = before, before["after"]
        for kind in self._lines:  # written by a batch that was killed before it wrote its progress
            hold(partial(store.remove, self._name(kind, before[kind])))

    def add(self, results: Sequence[dict[str, Any]], failures: Sequence[dict[str, Any]], *, mark: str) -> None:
        """Add the lines of one item, in the order of the items.

        Args:
            results: lines.
            failures: lines.
            mark: of the item.
        """
        for kind, lines in (("part", results), ("failed", failures)):
            if not lines:
                continue
            encoded = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines).encode()
            with self._open_part(kind).open("ab") as file:
                file.write(encoded)
            self._lines[kind][0] += len(lines)
            self._lines[kind][1] += len(encoded)
        self._mark = mark
        if any(lines >= self._form.lines or size >= BYTES for lines, size in self._lines.values()):
            self.flush()

    def flush(self, *, is_last: bool = False) -> None:
        """Write what there is to the store, and that the batch has come so far.

        Args:
            is_last: whether the batch is complete.
        """
        if not any(lines for lines, _ in self._lines.values()) and not is_last:
            return
        for kind, total in (("part", "results"), ("failed", "failures")):
            lines, _ = self._lines[kind]
            if lines:
                path = self._open_part(kind)
                written = self._form.columns.write(path) if self._form.columns and kind == "part" else path
                self._hold(partial(self._store.write, self._name(kind, self.progress[kind]), written))
                written.unlink()
                path.unlink(missing_ok=True)
                self._lines[kind] = [0, 0]
                self.progress[kind] += 1
                self.progress[total] += lines
        self.progress |= {"after": self._mark, "complete": is_last}
        self._write_progress()

    def _write_progress(self) -> None:
        self._hold(partial(self._store.write, PROGRESS, json.dumps(self.progress).encode()))

    def _open_part(self, kind: str) -> Path:
        return self._folder / kind

    def _name(self, kind: str, number: int) -> str:
        return f"{kind}-{number:05}.{'parquet' if self._form.columns and kind == 'part' else 'jsonl'}"
