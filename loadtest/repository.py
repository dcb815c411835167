"""A served model repository, a local folder or S3, into which new versions are uploaded under load."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import boto3

from loadtest.errors import LoadTestError

_SHIPPED = Path(__file__).parents[1] / "model_repository"
_MANIFEST = "manifest.json"


class Folder:
    """A local repository."""

    def __init__(self, url: str) -> None:
        self._root = Path(url)

    def versions(self, model: str) -> list[str]:
        return [path.name for path in (self._root / model).glob("*")]

    def put(self, key: str, content: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, model: str, version: str) -> None:
        shutil.rmtree(self._root / model / version)


class Bucket:
    """A repository on S3."""

    def __init__(self, url: str) -> None:
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._client = boto3.client("s3")

    def versions(self, model: str) -> list[str]:
        return list({key.removeprefix(f"{self._prefix}{model}/").split("/")[0] for key in self._keys(f"{model}/")})

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def delete(self, model: str, version: str) -> None:
        for key in self._keys(f"{model}/{version}/"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _keys(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


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
        self._repository = Bucket(url) if url.startswith("s3://") else Folder(url)
        self._model, self._sources, self._keep = model, sources, keep
        self._first = max((int(name) for name in self._repository.versions(model) if name.isdigit()), default=0) + 1
        self.newest = self._first - 1

    @property
    def count(self) -> int:
        """Versions that were uploaded."""
        return self.newest - self._first + 1

    def upload(self) -> None:
        """Upload the next version, manifest.json last."""
        source = self._sources[self.count % len(self._sources)]
        number = self.newest + 1
        for path in sorted(source.iterdir(), key=lambda path: path.name == _MANIFEST):
            content = path.read_bytes()
            if path.name == _MANIFEST:
                content = json.dumps(json.loads(content) | {"model": self._model, "version": str(number)}).encode()
            self._repository.put(f"{self._model}/{number}/{path.name}", content)
        self.newest = number

    def prune(self) -> None:
        """Delete the uploaded version that is one too many."""
        if self.count > self._keep:
            self._repository.delete(self._model, str(self.newest - self._keep))


def shipped_versions(model: str, folder: Path = _SHIPPED) -> list[Path]:
    """Version folders of a shipped model, the newest last.

    Raises:
        LoadTestError: there is none.
    """
    versions = [path for path in (folder / model).glob("*") if path.name.isdigit()]
    if not versions:
        raise LoadTestError(f"no version of {model} in {folder}; next: make models")
    return sorted(versions, key=lambda path: int(path.name))
