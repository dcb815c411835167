"""Which instances of a version are busy: a byte for each, in memory that the processes of the instances share."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is shared on purpose, and opened below so that no other user can
_MOST_INSTANCES = 64  # of a config, by registry/config.py


class Neighbours:
    """The instances of one version in one Triton, of which this process is one.

    A process that dies while it is busy counts as busy until the model is loaded again: the others then take no more
    than their share of the threads.
    """

    def __init__(self, version: Path, instance: str, *, folder: Path | None = None) -> None:
        """Join the instances of a version.

        Args:
            version: its folder, the same for all instances of one load.
            instance: Triton's name of this one, `<model>_<group>_<index>`.
            folder: where the memory is; default: the machine's shared memory.

        Raises:
            OSError: the memory cannot be made, or belongs to another user.
        """
        place = folder or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
        # By Triton's process, and the inode: the same path is another version after a swap.
        self._path = place / f"nereid-{os.getppid()}-{version.stat().st_ino}"
        group, index = instance.rsplit("_", 2)[1:]
        self._own = (int(group) * 8 + int(index)) % _MOST_INSTANCES
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(handle).st_uid != os.geteuid():
                raise PermissionError(f"{self._path}: belongs to another user")
            os.ftruncate(handle, _MOST_INSTANCES)
            self._busy = mmap.mmap(handle, _MOST_INSTANCES)
        finally:
            os.close(handle)
        self._busy[self._own] = 0

    @contextmanager
    def busy(self) -> Iterator[int]:
        """Be busy, and yield how many instances are, this one included."""
        self._busy[self._own] = 1
        try:
            yield sum(self._busy[:])
        finally:
            self._busy[self._own] = 0

    def leave(self) -> None:
        """Remove the memory: the model is unloaded. Instances that still run keep theirs."""
        with suppress(FileNotFoundError):
            self._path.unlink()
