"""From a repository that is served to a local one: one version, whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError
from export.remote.layout import Version
from export.remote.storage import Storage
from export.versions import read_complete


def fetch(storage: Storage, model: str, version: Version, target: Path, *, tell: Callable[[int], None]) -> Path:
    """Copy a version; its folder.

    Args:
        storage: the repository.
        model: name of the model.
        version: complete.
        target: a local repository; a version of this number there is replaced.
        tell: is told how many bytes came.

    Raises:
        ExportError: what came is not what its manifest lists.
    """
    folder = target / model / str(version.number)
    shutil.rmtree(folder, ignore_errors=True)
    for name in version.files:
        content = storage.get(f"{model}/{version.number}/{name}")
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.data)
            tell(len(content.data))
    if read_complete(folder) is None:
        where = f"{storage.address}/{model}/{version.number}"
        raise ExportError(f"{where}: what came does not fit its manifest.json; next: publish it again")
    return folder
