"""A served model repository, a local folder or S3, into which new versions are uploaded under load."""

import json
from collections.abc import Sequence
from pathlib import Path

from loadtest.errors import LoadTestError
from registry.storage.writing import open_to_write

_SHIPPED = Path(__file__).parents[1] / "model_repository"
_MANIFEST = "manifest.json"


class Uploads:
    """Versions of one model, numbered from the one after the newest; older ones of its own are deleted.

    Attributes:
        newest: number of the version that was uploaded last.
    """

    def __init__(self, url: str, model: str, sources: Sequence[Path], *, keep: int) -> None:
        """Upload nothing yet.

        Args:
            url: s3://bucket/prefix, or a folder.
            model: name.
            sources: version folders, uploaded in turn.
            keep: how many uploaded versions stay.
        """
        self._repository = open_to_write(url)
        self._model, self._sources, self._keep = model, sources, keep
        names = {found.key.split("/")[1] for found in self._repository.walk(f"{model}/")}
        self._first = max((int(name) for name in names if name.isdigit()), default=0) + 1
        self.newest = self._first - 1

    @property
    def count(self) -> int:
        """Versions that were uploaded."""
        return self.newest - self._first + 1

    def upload(self) -> None:
        """Upload the next version, manifest.json last.

        Raises:
            LoadTestError: another program has uploaded a version of this number.
            RepositoryError: the repository cannot be written.
        """
        source = self._sources[self.count % len(self._sources)]
        number = self.newest + 1
        for path in sorted(source.iterdir(), key=lambda path: path.name == _MANIFEST):
            key = f"{self._model}/{number}/{path.name}"
            if path.name != _MANIFEST:
                self._repository.upload(key, path, lambda _: None)
                continue
            content = json.loads(path.read_bytes()) | {"model": self._model, "version": str(number)}
            if not self._repository.put(key, json.dumps(content).encode(), etag=None):
                raise LoadTestError(f"{key}: got one from another program; next: let one program at a time upload")
        self.newest = number

    def prune(self) -> None:
        """Delete the uploaded version that is one too many."""
        if self.count > self._keep:
            for found in list(self._repository.walk(f"{self._model}/{self.newest - self._keep}/")):
                self._repository.delete(found.key)


def shipped_versions(model: str, folder: Path = _SHIPPED) -> list[Path]:
    """Version folders of a shipped model, the newest last.

    Raises:
        LoadTestError: there is none.
    """
    versions = [path for path in (folder / model).glob("*") if path.name.isdigit()]
    if not versions:
        raise LoadTestError(f"no version of {model} in {folder}; next: make models")
    return sorted(versions, key=lambda path: int(path.name))
