"""From a repository that is served to a local one: one version, whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from export.errors import ExportError
from export.publish.listing import Version
from export.writer import manifest
from export.writer.versions import judge, read_complete
from registry.layout import MANIFEST
from registry.storage.folder_lock import alone_in
from registry.storage.writing import Storage


def fetch(storage: Storage, model: str, version: Version, target: Path, *, tell: Callable[[int], None]) -> Path:
    """Copy a version; its folder.

    The writers of a bucket choose its keys. Only the files that the manifest lists are written, whose names the
    schema allows: one segment, with a suffix that nothing runs. A version that is not whole leaves nothing behind.

    Args:
        storage: the repository.
        model: name of the model.
        version: complete.
        target: a local repository; a version of this number there is replaced.
        tell: is told how many bytes came.

    Raises:
        ExportError: there is no manifest that fits the schema, or what came is not what it lists.
    """
    prefix = f"{model}/{version.number}"
    content = storage.get(f"{prefix}/{MANIFEST}")
    listed = manifest.read(content.data) if content else None
    if content is None or listed is None:
        raise ExportError(
            f"{storage.address}/{prefix}: got no {MANIFEST} that fits the schema, expected one; next: publish it again"
        )
    folder = target / prefix
    for place in (folder, folder.parent):
        if place.is_symlink():
            raise ExportError(f"{place}: got a link, expected a folder: links in a repository are unused")
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}.{uuid4().hex}")
    replaced = hidden.with_name(f"{hidden.name}.replaced")
    hidden.mkdir()
    try:
        for name, entry in listed["files"].items():
            _copy(storage, f"{prefix}/{name}", hidden / name, size_bytes=entry["size_bytes"], tell=tell)
        (hidden / MANIFEST).write_bytes(content.data)
        tell(len(content.data))
        if read_complete(hidden) is None:
            raise ExportError(
                f"{storage.address}/{prefix}: what came does not fit its {MANIFEST}; next: publish it again"
            )
        judge(hidden, where=f"{storage.address}/{prefix}")
        with alone_in(target):
            if folder.exists():
                folder.rename(replaced)
            hidden.rename(folder)
    finally:
        for leftover in (hidden, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder


def _copy(storage: Storage, key: str, path: Path, *, size_bytes: int, tell: Callable[[int], None]) -> None:
    """Write an object's content, and no more of it than there should be."""
    left = size_bytes
    with path.open("xb") as file:
        for block in storage.blocks(key):
            left -= len(block)
            if left < 0:
                raise ExportError(f"{storage.address}/{key}: got more than the {size_bytes} bytes of its {MANIFEST}")
            file.write(block)
            tell(len(block))
