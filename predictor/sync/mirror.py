"""The local repository that Triton reads.

    lock                                 one synchroniser at a time
    refused/<model>.json                 versions that must not be tried again
    staged/<model>/<version>-<print>/    a version alone, as a model folder of its own
    generations/<model>/<number>/        what is served together: versions, and the config.pbtxt over them
    models/<model>                       link to the generation that serves: Triton's first repository
    trial/candidate.<model>              link to a staged folder: Triton's second repository

Triton loads only what it is told to, and at its start what `models/` holds. A link is replaced in one step, so there is
never half a version under a model's name, wherever a process is killed.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from predictor.command import models_folder, trial_folder
from predictor.errors import StartError

CANDIDATE = "candidate."  # no legal name of a model: the transformer serves nothing under it
_CONTENT = "generation.json"


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

    def __init__(self, root: Path) -> None:
        """Take the folder for this process.

        Raises:
            StartError: another process has it, or it cannot be written.
        """
        self.root = root.absolute()
        self.models = models_folder(self.root)
        self.trial = trial_folder(self.root)
        self._staged = self.root / "staged"
        self._generations = self.root / "generations"
        self._refused = self.root / "refused"
        try:
            for folder in (self.models, self.trial, self._staged, self._generations, self._refused):
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
            if not (link / _CONTENT).exists():
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
        name = CANDIDATE + model
        _link(self.trial / name, staged)
        return name

    def withdraw(self, model: str) -> None:
        """Remove the candidate's link."""
        (self.trial / (CANDIDATE + model)).unlink(missing_ok=True)

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

    def read_refused(self, model: str) -> dict[str, str]:
        """What `write_refused` wrote last; empty where there is nothing, or nothing that can be read."""
        try:
            content = json.loads((self._refused / f"{model}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write_refused(self, model: str, reasons: Mapping[str, str]) -> None:
        """Remember across restarts why versions must not serve, by fingerprint."""
        path = self._refused / f"{model}.json"
        if reasons:
            replace(path, json.dumps(dict(reasons), indent=1).encode())
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
