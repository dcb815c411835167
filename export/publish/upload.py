"""Upload a version: its number claimed first, its manifest last, and nothing left of it when that fails."""

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
from export.writer.config import follow, parse, under_policy
from export.writer.manifest import read
from export.writer.profiles import PROFILES
from export.writer.versions import judge, numbers, read_complete
from registry.layout import CONFIG, MANIFEST
from registry.storage.writing import Sent, Storage

Warn = Callable[[str], None]

_FILES_AT_ONCE = 4
_LOOK_S = 0.2


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
        """Of all files but the manifest."""
        return sum(listed["size_bytes"] for listed in self.manifest["files"].values())


def find_source(repository: Path, model: str, version: str | None) -> Source:
    """The version to publish.

    Args:
        repository: a local one.
        model: its name.
        version: its number there, None for the newest.

    Raises:
        ExportError: it is not there, or not complete.
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
        folder = place / str(number)
        if read_complete(folder) is not None:
            manifest = read((folder / MANIFEST).read_bytes())
            if manifest is not None and manifest["model"] == model:
                judge(folder, where=str(folder))
                return Source(folder, manifest)
    raise ExportError(f"{folder}: not complete: its files are not those of its {MANIFEST}; next: export it again")


def find_same(model: Model, source: Source) -> int | None:
    """Number of the newest complete version when it has the very same files, or None."""
    if not model.complete:
        return None
    newest = model.versions[model.complete[-1]]
    same = newest.manifest is not None and newest.manifest["files"] == source.manifest["files"]
    return newest.number if same else None


def upload(storage: Storage, source: Source, *, above: int, sent: Sent, warn: Warn) -> int:
    """Write a version under the first free number above another; its number.

    Args:
        storage: the repository.
        source: the version.
        above: the number.
        sent: takes how many bytes are.
        warn: called where two publishers could take the same number.

    Raises:
        ExportError: it failed, or was interrupted; what had been written is removed.
    """
    stop = Event()
    with _ctrl_c_sets(stop), ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(_upload, storage, source, above, sent, warn, stop)
        while wait([uploading], timeout=_LOOK_S).not_done:
            pass  # a signal that another thread takes does not end a longer wait
    number = uploading.result()
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


def update_config(storage: Storage, source: Source, before: Model) -> str:
    """Bring the model's own config.pbtxt up to date, which a stock Triton reads; what became of it.

    Args:
        storage: the repository.
        source: the version that was added.
        before: the model as it was.

    Raises:
        ExportError: that failed; the version itself is published.
    """
    model = source.manifest["model"]
    bare = [number for number, version in before.versions.items() if CONFIG not in version.files]
    if bare:
        which = ", ".join(map(str, bare))
        return f"{model}/{CONFIG} stays: it describes version {which}, without a {CONFIG} of its own"
    newest = parse((source.folder / CONFIG).read_text(encoding="utf-8"))
    try:
        if before.policy.specific is None:
            _update_profiles(storage, source, before)
        written = edit_config(storage, model, lambda present: follow(newest, present))
    except FAILURES as exc:
        raise ExportError(f"the version is published, but {model}/{CONFIG} is not brought up to date: {exc}") from exc
    if not written and before.policy.specific is not None:
        return f"{model}/{CONFIG} stays: it pins ({before.policy}); make unpin lets newer versions serve"
    return f"{model}/{CONFIG} {'is that of the new version' if written else 'is up to date'}"


def _update_profiles(storage: Storage, source: Source, before: Model) -> None:
    """What a stock Triton reads with `--model-config-name`: the profiles of the version, and no older ones."""
    model = source.manifest["model"]
    for profile in sorted(PROFILES):
        name = f"{profile}.pbtxt"
        if name not in source.manifest["files"]:
            if storage.get(f"{model}/configs/{name}") is not None:
                storage.delete(f"{model}/configs/{name}")
            continue
        newest = parse((source.folder / name).read_text(encoding="utf-8"))
        composed = under_policy(newest, before.config)
        edit_config(
            storage,
            model,
            lambda present, composed=composed: None if present == composed else composed,  # type: ignore[misc]
            name=f"configs/{name}",
        )


def _upload(storage: Storage, source: Source, above: int, sent: Sent, warn: Warn, stop: Event) -> int:  # noqa: PLR0913, PLR0917
    def count(size_bytes: int) -> None:
        if stop.is_set():
            raise ExportError("interrupted")
        sent(size_bytes)

    model, files = source.manifest["model"], source.manifest["files"]
    config = (source.folder / CONFIG).read_bytes()
    number = next(n for n in itertools.count(above + 1) if storage.put(f"{model}/{n}/{CONFIG}", config, etag=None))
    folder = f"{model}/{number}"
    manifest = json.dumps({**source.manifest, "version": str(number)}, indent=2) + "\n"
    try:
        count(len(config))
        if not storage.keeps_conditions(f"{folder}/{CONFIG}"):
            warn(
                f"{storage.address}: this server ignores conditional writes (If-None-Match): two publishers at once "
                "may take one number, and both may fail; next: one publisher at a time, or a server that keeps them"
            )
        largest_first = sorted(files.keys() - {CONFIG}, key=lambda name: -int(files[name]["size_bytes"]))
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            try:
                sending = [
                    pool.submit(storage.upload, f"{folder}/{name}", source.folder / name, count)
                    for name in largest_first
                ]
                for done in as_completed(sending):
                    done.result()
            except (*FAILURES, OSError):
                stop.set()  # the others too
                raise
        count(0)
        if not storage.put(f"{folder}/{MANIFEST}", manifest.encode(), etag=None):
            raise ExportError(f"{folder}/{MANIFEST}: somebody else wrote it meanwhile; next: publish again")
    except (*FAILURES, OSError) as exc:
        raise ExportError(f"{exc}; {_remove(storage, source, folder)}") from exc
    return number


def _remove(storage: Storage, source: Source, folder: str) -> str:
    """The manifest first, so that nothing takes what is left for a version; the claim last. In words, what is left."""
    names = sorted(source.manifest["files"].keys() - {CONFIG})
    try:
        for name in (MANIFEST, *names, CONFIG):
            storage.delete(f"{folder}/{name}")
    except (*FAILURES, OSError) as exc:
        return f"what was uploaded to {folder} could not be removed ({exc}); next: make prune"
    return "what was uploaded is removed"
