"""The local repository that Triton reads.

    lock                                        one synchroniser at a time
    refused/ unproven/ tried/ chosen/           records of versions, see `records.py`
    staged/<model>/<version>-<fingerprint>/     one version, as a model folder of its own
    generations/<model>/<number>/               versions that serve together, and the config.pbtxt over them
    models/<model>                              link to the generation that serves: Triton's first repository
    trial/candidate~<model>                     link to a staged folder: Triton's second repository

Triton loads a model on request only, and at its start what `models/` holds. A link is replaced in one step, so there is
never half a version under a model's name, wherever a process is killed.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from predictor.errors import StartError
from predictor.synchroniser.disk_space import DiskSpace
from predictor.synchroniser.files import hard_link, replace_file, replace_link
from predictor.synchroniser.records import Records
from predictor.triton_conventions import CANDIDATE_PREFIX, models_folder, trial_folder

log = logging.getLogger("synchroniser")

_CONTENT = "generation.json"


@dataclass(frozen=True)
class Generation:
    """Versions that serve together under one name.

    Attributes:
        folder: a model folder of Triton's.
        fingerprints: by version.
    """

    folder: Path
    fingerprints: Mapping[int, str] = field(default_factory=dict)


class Mirror:
    """The folder; methods may be called for different models at once.

    Attributes:
        root: the folder.
        records: of versions, across restarts.
        space: disk space for new versions.
    """

    def __init__(self, root: Path, *, limit_bytes: int | None = None) -> None:
        """Lock the folder for this process, and remove what a killed process left in it.

        Args:
            root: the folder.
            limit_bytes: of all of its files; None: the disk's size alone limits them.

        Raises:
            StartError: another process has locked it, or it cannot be written.
        """
        self.root = root.absolute()
        self._models = models_folder(self.root)
        self._trial = trial_folder(self.root)
        self._staged = self.root / "staged"
        self._generations = self.root / "generations"
        try:
            for folder in (self._models, self._trial, self._staged, self._generations):
                folder.mkdir(parents=True, exist_ok=True)
            self.records = Records(self.root)
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
        self.space = DiskSpace(self.root, (self._generations, self._staged), limit_bytes=limit_bytes)
        self._sweep()
        self._current = {link.name: _read_generation(link.resolve()) for link in self._models.iterdir()}

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.close()

    def _sweep(self) -> None:
        """Remove what a killed process left."""
        for link in (*self._trial.iterdir(), *self._models.glob(".*")):
            link.unlink()
        for link in self._models.iterdir():
            try:
                _read_generation(link)
            except (OSError, ValueError, AttributeError) as exc:  # invalid JSON, or not an object
                log.warning("the mirror: %s cannot be read (%s): downloaded again", link, exc)
                link.unlink()
        shutil.rmtree(self._staged)
        self._staged.mkdir()
        serving = {link.resolve() for link in self._models.iterdir()}
        for generation in self._generations.glob("*/*"):
            if generation not in serving:
                shutil.rmtree(generation)

    def names(self) -> list[str]:
        """Return the models that have a generation."""
        return list(self._current)

    def current(self, model: str) -> Generation | None:
        """Return the generation that the model's link points to."""
        return self._current.get(model)

    def staging_folder(self, model: str, version: int, fingerprint: str) -> Path:
        """Return the folder where a version is staged."""
        return self._staged / model / f"{version}-{fingerprint[:16]}"

    def offer(self, model: str, staged: Path) -> str:
        """Link a staged version under a candidate's name, and return that name."""
        name = CANDIDATE_PREFIX + model
        replace_link(self._trial / name, staged)
        return name

    def withdraw(self, model: str) -> None:
        """Remove the candidate's link."""
        (self._trial / (CANDIDATE_PREFIX + model)).unlink(missing_ok=True)

    def assemble(
        self, model: str, sources: Mapping[int, Path], fingerprints: Mapping[int, str], config: bytes
    ) -> Generation:
        """Link versions into the folder of a new generation.

        Args:
            model: its name.
            sources: the model folder, staged or of the current generation, that holds each version; the files beside
                the versions are those of the newest one's.
            fingerprints: by version.
            config: config.pbtxt over all of them.
        """
        folder = self._generations / model / str(self._next_number(model))
        folder.mkdir(parents=True)
        newest = sources[max(sources)]
        for path in newest.iterdir():
            if not path.name.isdigit() and path.name != _CONTENT:
                hard_link(path, folder / path.name)
        for version, source in sources.items():
            hard_link(source / str(version), folder / str(version))
        # New files: the linked ones may be in use.
        replace_file(folder / "config.pbtxt", config)
        replace_file(folder / _CONTENT, json.dumps(dict(fingerprints)).encode())
        return Generation(folder, dict(fingerprints))

    def switch(self, model: str, generation: Generation | None) -> None:
        """Make a generation the model's current one, in one step; None removes the model."""
        if generation is None:
            (self._models / model).unlink(missing_ok=True)
            self._current.pop(model, None)
        else:
            replace_link(self._models / model, generation.folder)
            self._current[model] = generation

    def clean(self, model: str, keep: Collection[Path] = ()) -> None:
        """Remove the generations and staged versions of a model, except the current generation.

        Args:
            model: its name.
            keep: staged versions to keep.
        """
        current = self.current(model)
        for path in (*self._generations.glob(f"{model}/*"), *self._staged.glob(f"{model}/*")):
            if path not in keep and (current is None or path != current.folder):
                shutil.rmtree(path, ignore_errors=True)
        for parent in (self._generations / model, self._staged / model):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    def _next_number(self, model: str) -> int:
        present = [int(path.name) for path in (self._generations / model).glob("*") if path.name.isdigit()]
        return max(present, default=0) + 1


def _read_generation(folder: Path) -> Generation:
    content = json.loads((folder / _CONTENT).read_bytes())
    return Generation(folder, {int(version): value for version, value in content.items()})
