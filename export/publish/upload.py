"""Uploads a version: its number is claimed first, its manifest comes last, and nothing is left when it fails."""

import itertools
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from export.errors import FAILURES, ExportError
from export.publish.listing import Model, edit_config
from export.publish.signing import Signer, write_signature
from export.writer.config import follow, read_config, under_policy
from export.writer.manifest import read
from export.writer.profiles import PROFILES
from export.writer.versions import judge, numbers, read_complete
from registry.layout import CONFIG, MANIFEST, SIGNATURE
from registry.storage.writing import Sent, WritableStorage

Warn = Callable[[str], None]

_FILES_AT_ONCE = 4
_POLL_S = 0.2


@dataclass(frozen=True)
class Source:
    """A complete version in a local repository.

    Attributes:
        manifest: content of its manifest.json.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        """Size of all files except the manifest."""
        return sum(listed["size_bytes"] for listed in self.manifest["files"].values())


def find_source(repository: Path, model: str, version: str | None) -> Source:
    """The version to publish.

    Args:
        repository: a local one.
        model: its name.
        version: its number there, None for the newest.

    Raises:
        ExportError: it is missing, or not complete.
    """
    place = repository / model
    found = sorted(numbers(place), reverse=True)
    chosen = [number for number in found if version in {None, str(number)}]
    if not chosen:
        got = f"got {', '.join(map(str, found))}" if found else "got none"
        raise ExportError(
            f"{place}: no version {version or ''}: {got}; next: make models, or make export MODEL=... WEIGHTS=..."
        )
    for number in chosen:
        if source := _read_source(place / str(number), model):
            return source
    raise ExportError(
        f"{place / str(chosen[-1])}: not complete: its files are not those of its {MANIFEST}; next: export it again"
    )


def _read_source(folder: Path, model: str) -> Source | None:
    """A version that the synchroniser accepts, or None where it is not complete, or another model's.

    Raises:
        ExportError: the synchroniser would reject it.
    """
    if read_complete(folder) is None:
        return None
    manifest = read((folder / MANIFEST).read_bytes())
    if manifest is None or manifest["model"] != model:
        return None
    judge(folder, where=str(folder))
    return Source(folder, manifest)


def find_same(model: Model, source: Source) -> int | None:
    """Number of the newest complete version where it has the very same files, else None."""
    if not model.complete:
        return None
    newest = model.versions[model.complete[-1]]
    same = newest.manifest is not None and newest.manifest["files"] == source.manifest["files"]
    return newest.number if same else None


def upload(  # noqa: PLR0913 - to where, what, its number and signature, and two reports
    storage: WritableStorage, source: Source, *, above: int, signer: Signer | None, sent: Sent, warn: Warn
) -> int:
    """Write a version under the first free number above another, and return its number.

    Args:
        storage: the repository.
        source: the version.
        above: the number.
        signer: of its manifest; None: it is not signed.
        sent: takes the bytes of each block that was sent.
        warn: called where two publishers could take the same number.

    Raises:
        ExportError: it failed, or was interrupted; what had been written is removed.
    """
    stop = Event()
    uploading = _Upload(storage, source, signer, sent, warn, stop)
    with _ctrl_c_sets(stop), ThreadPoolExecutor(1) as pool:
        running = pool.submit(uploading.run, above)
        while wait([running], timeout=_POLL_S).not_done:
            pass  # a signal that another thread takes does not end a longer wait
    number = running.result()
    if stop.is_set():
        raise ExportError(f"interrupted; {source.manifest['model']}/{number} is published: it was complete already")
    return number


@contextmanager
def _ctrl_c_sets(stop: Event) -> Iterator[None]:
    """An exception in the main thread could come between what is written and the knowledge of it; this cannot."""
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class _Upload:
    """An upload in progress.

    Attributes:
        stop: set where it is to end.
    """

    storage: WritableStorage
    source: Source
    signer: Signer | None
    sent: Sent
    warn: Warn
    stop: Event

    def run(self, above: int) -> int:
        """Write the version, and return its number; see `upload`."""
        model, config = self.source.manifest["model"], (self.source.folder / CONFIG).read_bytes()
        number = next(
            n for n in itertools.count(above + 1) if self.storage.put(f"{model}/{n}/{CONFIG}", config, etag=None)
        )
        folder = f"{model}/{number}"
        try:
            self._count(len(config))
            self._check_conditions(folder)
            self._send_files(folder)
            self._count(0)
            manifest = (json.dumps({**self.source.manifest, "version": str(number)}, indent=2) + "\n").encode()
            if self.signer is not None:  # before the manifest, with which the version is there
                write_signature(self.storage, folder, self.signer.sign(manifest))
            if not self.storage.put(f"{folder}/{MANIFEST}", manifest, etag=None):
                raise ExportError(f"{folder}/{MANIFEST}: another process wrote it meanwhile; next: publish again")
        except (*FAILURES, OSError) as exc:
            raise ExportError(f"{exc}; {self._remove(folder)}") from exc
        return number

    def _count(self, size_bytes: int) -> None:
        if self.stop.is_set():
            raise ExportError("interrupted")
        self.sent(size_bytes)

    def _check_conditions(self, folder: str) -> None:
        if not self.storage.keeps_conditions(f"{folder}/{CONFIG}"):
            self.warn(
                f"{self.storage.url}: this server ignores conditional writes (If-None-Match): two publishers at "
                "once may take one number, and both may fail; next: one publisher at a time, or a server that keeps "
                "them"
            )

    def _send_files(self, folder: str) -> None:
        """Send all files but the config and the manifest, several at once, the largest first."""
        files = self.source.manifest["files"]
        largest_first = sorted(files.keys() - {CONFIG}, key=lambda name: -int(files[name]["size_bytes"]))
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            try:
                sending = [
                    pool.submit(self.storage.upload, f"{folder}/{name}", self.source.folder / name, self._count)
                    for name in largest_first
                ]
                for done in as_completed(sending):
                    done.result()
            except (*FAILURES, OSError):
                self.stop.set()  # the others too
                raise

    def _remove(self, folder: str) -> str:
        """Remove what was written, and return in words what is left.

        The manifest first: no reader takes what is left for a version; the config, which claims the number, last.
        """
        names = sorted(self.source.manifest["files"].keys() - {CONFIG})
        try:
            for name in (MANIFEST, SIGNATURE, *names, CONFIG):
                self.storage.delete(f"{folder}/{name}")
        except (*FAILURES, OSError) as exc:
            return f"what was uploaded to {folder} could not be removed ({exc}); next: make prune"
        return "what was uploaded is removed"


def update_config(storage: WritableStorage, source: Source, before: Model) -> str:
    """Bring the model's own config.pbtxt up to date, which a stock Triton reads; returns in words what became of it.

    Args:
        storage: the repository.
        source: the version that was added.
        before: the model as it was.

    Raises:
        ExportError: that failed; the version itself is published.
    """
    name = f"{source.manifest['model']}/{CONFIG}"
    if bare := [number for number, version in before.versions.items() if CONFIG not in version.files]:
        which = ", ".join(map(str, bare))
        return f"{name} stays: it describes version {which}, without a {CONFIG} of its own"
    newest = read_config(source.folder / CONFIG)
    try:
        if before.policy.specific is None:
            _update_profiles(storage, source, before)
        written = edit_config(storage, source.manifest["model"], lambda present: follow(newest, present))
    except FAILURES as exc:
        raise ExportError(f"the version is published, but {name} is not brought up to date: {exc}") from exc
    if not written and before.policy.specific is not None:
        return f"{name} stays: it pins ({before.policy}); make unpin lets newer versions serve"
    return f"{name} {'is that of the new version' if written else 'is up to date'}"


def _update_profiles(storage: WritableStorage, source: Source, before: Model) -> None:
    """Write the profiles of the version, for a stock Triton's `--model-config-name`, and remove older ones."""
    model = source.manifest["model"]
    for profile in sorted(PROFILES):
        name = f"{profile}.pbtxt"
        if name not in source.manifest["files"]:
            if storage.get(f"{model}/configs/{name}") is not None:
                storage.delete(f"{model}/configs/{name}")
            continue
        newest = read_config(source.folder / name)
        composed = under_policy(newest, before.config)
        edit_config(
            storage,
            model,
            lambda present, composed=composed: None if present == composed else composed,  # type: ignore[misc]
            name=f"configs/{name}",
        )
