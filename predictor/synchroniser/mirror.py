"""The local repository that Triton reads.

    lock                                 one synchroniser at a time
    refused/<model>.json                 versions that must not be tried again
    unproven/<model>.json                versions that serve, and that no output has verified
    tried/<model>.json                   versions that are being tried, and how often their trial ended this process
    staged/<model>/<version>-<print>/    a version alone, as a model folder of its own
    generations/<model>/<number>/        what is served together: versions, and the config.pbtxt over them
    models/<model>                       link to the generation that serves: Triton's first repository
    trial/candidate~<model>              link to a staged folder: Triton's second repository

Triton loads only what it is told to, and at its start what `models/` holds. A link is replaced in one step, so there is
never half a version under a model's name, wherever a process is killed.
"""

import fcntl
import json
import logging
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from predictor.contract import CANDIDATE_PREFIX, models_folder, trial_folder
from predictor.errors import StartError
from registry.errors import TransientError, VersionRejected

log = logging.getLogger("synchroniser")

_CONTENT = "generation.json"
_RUNNING = "running"  # no fingerprint, which is hexadecimal
_SPARE_BYTES = 16 * 2**20  # left free on the disk


@dataclass(frozen=True)
class Generation:
    """What serves together under one name.

    Attributes:
        folder: a model folder of Triton's.
        prints: fingerprint of each of its versions.
    """

    folder: Path
    prints: Mapping[int, str] = field(default_factory=dict)


class Mirror:
    """The folder; methods of different models may run at once."""

    def __init__(self, root: Path, *, limit_bytes: int | None = None) -> None:
        """Take the folder for this process.

        Args:
            root: the folder.
            limit_bytes: most that all of its files may take; None: what the disk has.

        Raises:
            StartError: another process has it, or it cannot be written.
        """
        self.root = root.absolute()
        self.models = models_folder(self.root)
        self.trial = trial_folder(self.root)
        self._staged = self.root / "staged"
        self._generations = self.root / "generations"
        self._refused = self.root / "refused"
        self._unproven = self.root / "unproven"
        self._tried = self.root / "tried"
        self._limit_bytes = limit_bytes
        self._reserved: dict[Path, int] = {}
        self._reserving = threading.Lock()
        try:
            notes = (self._refused, self._unproven, self._tried)
            for folder in (self.models, self.trial, self._staged, self._generations, *notes):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._lock.close()
            raise StartError(
                f"the mirror {root} belongs to another synchroniser that runs; choose another with PREDICTOR_MIRROR"
                " (make: MIRROR=)"
            ) from exc
        except OSError as exc:
            raise StartError(f"the mirror {root}: {exc.strerror} (PREDICTOR_MIRROR; make: MIRROR=)") from exc
        self._sweep()
        self._current = {link.name: _read_generation(link.resolve()) for link in self.models.iterdir()}

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def _sweep(self) -> None:
        """Remove what a killed process left."""
        for link in (*self.trial.iterdir(), *self.models.glob(".*")):
            link.unlink()
        for link in self.models.iterdir():
            try:
                _read_generation(link)
            except (OSError, ValueError, AttributeError) as exc:  # invalid JSON, or no object
                log.warning("the mirror: %s cannot be read (%s): taken from the repository again", link, exc)
                link.unlink()
        shutil.rmtree(self._staged)
        self._staged.mkdir()
        serving = {link.resolve() for link in self.models.iterdir()}
        for generation in self._generations.glob("*/*"):
            if generation not in serving:
                shutil.rmtree(generation)

    def names(self) -> list[str]:
        """Models that have a generation."""
        return list(self._current)

    def current(self, model: str) -> Generation | None:
        """The generation that the model's link points to."""
        return self._current.get(model)

    def staging(self, model: str, version: int, fingerprint: str) -> Path:
        """Where a version is put together."""
        return self._staged / model / f"{version}-{fingerprint[:16]}"

    def offer(self, model: str, staged: Path) -> str:
        """Link a staged version under a candidate's name, and return that name."""
        name = CANDIDATE_PREFIX + model
        _link(self.trial / name, staged)
        return name

    def withdraw(self, model: str) -> None:
        """Remove the candidate's link."""
        (self.trial / (CANDIDATE_PREFIX + model)).unlink(missing_ok=True)

    def assemble(self, model: str, sources: Mapping[int, Path], prints: Mapping[int, str], config: bytes) -> Generation:
        """Put versions together in a new folder, without copying them.

        Args:
            model: its name.
            sources: the model folder, staged or of the generation before, that holds each version; what the newest one
                has beside its versions is taken along.
            prints: fingerprint of each version.
            config: config.pbtxt over all of them.
        """
        folder = self._generations / model / str(self._next_number(model))
        folder.mkdir(parents=True)
        newest = sources[max(sources)]
        for path in newest.iterdir():
            if not path.name.isdigit() and path.name != _CONTENT:
                _hard_link(path, folder / path.name)
        for version, source in sources.items():
            _hard_link(source / str(version), folder / str(version))
        # A new file: what is linked may be in use.
        replace(folder / "config.pbtxt", config)
        replace(folder / _CONTENT, json.dumps(dict(prints)).encode())
        return Generation(folder, dict(prints))

    def switch(self, model: str, generation: Generation | None) -> None:
        """Make a generation the model's, in one step; None: none."""
        if generation is None:
            (self.models / model).unlink(missing_ok=True)
            self._current.pop(model, None)
        else:
            _link(self.models / model, generation.folder)
            self._current[model] = generation

    def clean(self, model: str, keep: Collection[Path] = ()) -> None:
        """Remove what the model's link does not point to.

        Args:
            model: its name.
            keep: staged versions that are still wanted.
        """
        current = self.current(model)
        for path in (*self._generations.glob(f"{model}/*"), *self._staged.glob(f"{model}/*")):
            if path not in keep and (current is None or path != current.folder):
                shutil.rmtree(path, ignore_errors=True)
        for parent in (self._generations / model, self._staged / model):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    @contextmanager
    def reserve(self, folder: Path, size: int) -> Iterator[None]:
        """Keep room for a version while it is put together.

        Args:
            folder: where that is.
            size: of its files, in bytes.

        Raises:
            VersionRejected: it would not fit if nothing else were there.
            TransientError: there is no room for it now.
        """
        wanted, limit = f"{size / 1e6:.1f} MB wanted", self._limit_bytes
        if limit is not None and size > limit:
            raise VersionRejected(f"{wanted}, expected at most {limit / 1e6:.1f} MB (PREDICTOR_MIRROR_BYTES)")
        with self._reserving:
            free = shutil.disk_usage(self.root).free
            if free < size + _SPARE_BYTES:
                raise TransientError(f"disk full: {wanted}, {free / 1e6:.1f} MB free in the mirror")
            left = None if limit is None else limit - self._used()
            if left is not None and size > left:
                raise TransientError(
                    f"mirror full: {wanted}, {max(left, 0) / 1e6:.1f} of {(limit or 0) / 1e6:.1f} MB free "
                    "(PREDICTOR_MIRROR_BYTES)"
                )
            self._reserved[folder] = size
        try:
            yield
        finally:
            del self._reserved[folder]

    def _used(self) -> int:
        """Bytes of all files, each counted once however many links it has, and of those that are on their way."""
        sizes = {}
        for folder in (self._generations, self._staged):
            for parent, _, names in os.walk(folder):
                if not any(Path(parent).is_relative_to(reserved) for reserved in self._reserved):
                    for name in names:
                        with suppress(FileNotFoundError):  # another model's thread cleans
                            facts = os.stat(os.path.join(parent, name), follow_symlinks=False)  # noqa: PTH116, PTH118
                            sizes[facts.st_ino] = facts.st_size
        return sum(sizes.values()) + sum(self._reserved.values())

    def read_fatal(self, model: str) -> dict[str, int]:
        """How often this process ended while a version was tried, by fingerprint."""
        content = self._read(self._tried / f"{model}.json")
        counts = {key: count for key, count in content.items() if isinstance(count, int)}
        if isinstance(key := content.get(_RUNNING), str):
            counts[key] = counts.get(key, 0) + 1
        return counts

    def write_fatal(self, model: str, counts: Mapping[str, int], *, running: str = "") -> None:
        """Remember it across an end of this process, of whatever kind; where the disk is full, it is not.

        Args:
            model: its name.
            counts: as `read_fatal` has them.
            running: fingerprint of the version that is tried; empty: none is.
        """
        with suppress(OSError):
            self._write(self._tried / f"{model}.json", {**counts, **({_RUNNING: running} if running else {})})

    def stop(self) -> None:
        """This process ends because it was asked to: what is tried now is not at fault."""
        for path in self._tried.glob("*.json"):
            content = self._read(path)
            if content.pop(_RUNNING, None):
                with suppress(OSError):
                    self._write(path, content)

    def read_refused(self, model: str) -> dict[str, str]:
        """What `write_refused` wrote last; empty where there is nothing, or nothing that can be read."""
        return self._read(self._refused / f"{model}.json")

    def write_refused(self, model: str, reasons: Mapping[str, str]) -> None:
        """Remember across restarts why versions must not serve, by fingerprint."""
        self._write(self._refused / f"{model}.json", reasons)

    def read_unproven(self, model: str) -> dict[str, str]:
        """What `write_unproven` wrote last."""
        return self._read(self._unproven / f"{model}.json")

    def write_unproven(self, model: str, reasons: Mapping[str, str]) -> None:
        """Remember across restarts why no output of a version has verified it, by fingerprint."""
        self._write(self._unproven / f"{model}.json", reasons)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            log.warning("the mirror: %s cannot be read (%s): taken for empty", path, exc)
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        if content:
            replace(path, json.dumps(dict(content), indent=1).encode())
        else:
            path.unlink(missing_ok=True)

    def _next_number(self, model: str) -> int:
        present = [int(path.name) for path in (self._generations / model).glob("*") if path.name.isdigit()]
        return max(present, default=0) + 1


def _read_generation(folder: Path) -> Generation:
    content = json.loads((folder / _CONTENT).read_bytes())
    return Generation(folder, {int(version): value for version, value in content.items()})


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(f".{path.name}")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _link(path: Path, target: Path) -> None:
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, path.parent))
    new.replace(path)


def _hard_link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)
