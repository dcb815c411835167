"""Disk space of the mirror: reserved before a version is downloaded."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.errors import TransientError, VersionRejected

_SPARE_BYTES = 16 * 2**20  # left free on the disk


class DiskSpace:
    """Space for the files of some folders, each counted once however many links it has."""

    def __init__(self, root: Path, folders: tuple[Path, ...], *, limit_bytes: int | None = None) -> None:
        """Begin without reservations.

        Args:
            root: of the mirror; its disk is checked.
            folders: whose files count towards the limit.
            limit_bytes: of all files; None: the disk's size alone limits them.
        """
        self._root, self._folders, self._limit_bytes = root, folders, limit_bytes
        self._reserved: dict[Path, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, folder: Path, size_bytes: int) -> Iterator[None]:
        """Reserve space while the files of a folder are written.

        Args:
            folder: where they are written.
            size_bytes: of all of them.

        Raises:
            VersionRejected: the limit is smaller than the files.
            TransientError: the disk or the limit has no space left now.
        """
        wanted, limit = f"{size_bytes / 1e6:.1f} MB wanted", self._limit_bytes
        if limit is not None and size_bytes > limit:
            raise VersionRejected(f"{wanted}, expected at most {limit / 1e6:.1f} MB (PREDICTOR_MIRROR_BYTES)")
        with self._lock:
            free = shutil.disk_usage(self._root).free
            if free < size_bytes + _SPARE_BYTES:
                raise TransientError(f"disk full: {wanted}, {free / 1e6:.1f} MB free in the mirror")
            if limit is not None and size_bytes > (left := limit - self._used()):
                raise TransientError(
                    f"mirror full: {wanted}, {max(left, 0) / 1e6:.1f} of {limit / 1e6:.1f} MB free "
                    "(PREDICTOR_MIRROR_BYTES)"
                )
            self._reserved[folder] = size_bytes
        try:
            yield
        finally:
            del self._reserved[folder]

    def _used(self) -> int:
        """Return the bytes of all complete files and of all reservations."""
        sizes = {}
        for folder in self._folders:
            for parent, _, names in os.walk(folder):
                if not any(Path(parent).is_relative_to(reserved) for reserved in self._reserved):
                    for name in names:
                        with suppress(FileNotFoundError):  # removed by another model's thread
                            facts = os.stat(os.path.join(parent, name), follow_symlinks=False)  # noqa: PTH116, PTH118
                            sizes[facts.st_ino] = facts.st_size
        return sum(sizes.values()) + sum(self._reserved.values())
