"""Files and links that change in one step, wherever a process is killed."""

import os
import shutil
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    new = path.with_name(f".{path.name}")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def replace_link(path: Path, target: Path) -> None:
    """Make `path` a relative link to `target`, in place of any link before."""
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, path.parent))
    new.replace(path)


def hard_link(source: Path, target: Path) -> None:
    """Link a file, or all files of a folder, without copying their content."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)
