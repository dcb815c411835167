"""Where the lines of a batch go: parts of JSONL or Parquet, each written whole, and how far the batch has come."""

import json
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from worker.batch.locks import Hold, Lease, locked_folder, taken
from worker.batch.objects import Objects
from worker.batch.parquet import Columns
from worker.errors import StartError

PROGRESS = "progress.json"
BYTES = 64 * 2**20  # of a part, as JSONL: it ends then too
_LEASE_READ_S = 5.0


class Store(Protocol):
    """A folder, or a prefix of a bucket."""

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""

    def find(self, name: str) -> bool:
        """Whether there is a file."""

    def write(self, name: str, content: Path | bytes) -> None:
        """Write a file whole: no reader sees a part of it."""

    def remove(self, name: str) -> None:
        """Remove a file that was found, where it is still there."""

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

    def find(self, name: str) -> bool:
        """As the protocol says."""
        return (self._root / name).exists()

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
    """A prefix of a bucket. Its methods raise `Away` and `Failed`, `StartError` where another batch has taken over."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Nothing is sent yet."""
        self._objects = Objects(bucket, prefix)
        self._lease = Lease(Objects(bucket, prefix, read_s=_LEASE_READ_S, attempts=1))

    def read(self, name: str) -> bytes | None:
        """As the protocol says."""
        return self._objects.read(name)

    def find(self, name: str) -> bool:
        """As the protocol says."""
        return self._objects.find(name)

    def write(self, name: str, content: Path | bytes) -> None:
        """As the protocol says."""
        if not (self._lease.is_held() and self._objects.write(name, content)):
            raise taken()

    def remove(self, name: str) -> None:
        """As the protocol says."""
        if not (self._lease.is_held() and self._objects.remove(name)):
            raise taken()

    def locked(self, hold: Hold, *, stopped: threading.Event) -> AbstractContextManager[None]:
        """As the protocol says."""
        return self._lease.held(hold, stopped=stopped)


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
    between the two writes that part again. Each run of a batch writes it first, with a mark of its own: a run whose
    store was taken over sees that it has changed, and writes it no more.
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
            "run": uuid4().hex,
            "request": request,
            "after": "",
            "complete": False,
            **dict.fromkeys(("part", "failed", "results", "failures"), 0),
        }
        found = hold(partial(store.read, PROGRESS))
        if found is None:
            if left := self._find_left():
                raise StartError(f"OUTPUT has {left[0]} without {PROGRESS}; next: another OUTPUT")
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
        self.progress, self._mark = before | {"run": self.progress["run"]}, before["after"]
        left = self._find_left()
        self._write_progress()
        for name in left:
            hold(partial(store.remove, name))

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
        for name in self._find_left() if is_last else ():
            self._hold(partial(self._store.remove, name))
        self.progress |= {"after": self._mark, "complete": is_last}
        self._write_progress()

    def _find_left(self) -> list[str]:
        """The files of a run that ended, or lost its store, before it wrote its progress."""
        names = [self._name(kind, self.progress[kind]) for kind in self._lines]
        return [name for name in names if self._hold(partial(self._store.find, name))]

    def _write_progress(self) -> None:
        self._hold(partial(self._store.write, PROGRESS, json.dumps(self.progress).encode()))

    def _open_part(self, kind: str) -> Path:
        return self._folder / kind

    def _name(self, kind: str, number: int) -> str:
        return f"{kind}-{number:05}.{'parquet' if self._form.columns and kind == 'part' else 'jsonl'}"
