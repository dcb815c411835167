"""Moves a version into a local model repository: whole or not at all, with the standard library alone.

Triton may read the repository at any moment. A version is written into a hidden folder inside the model's own, which
Triton ignores, and renamed into place. One export writes at a time (a lock on the repository folder), so numbers do not
collide, and a hidden folder that the next one finds is left from an interrupted one.
"""

import errno
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from export.writer.versions import numbers

HIDDEN_CONFIG = ".config.pbtxt"

_STAGING = ".export"


def stage(model: Path) -> Path:
    """Make an empty folder to write a version of a model into."""
    staging = model / _STAGING
    staging.mkdir()
    return staging


def move_in(staging: Path, describe: Callable[[int], Mapping[str, Any]]) -> Path:
    """Write the manifest, rename the folder to the next free number, and return it.

    Args:
        staging: has all other files.
        describe: number of the version -> content of its manifest.
    """
    model = staging.parent
    for number in itertools.count(max(numbers(model), default=0) + 1):
        content = json.dumps(describe(number), indent=2) + "\n"
        (staging / "manifest.json").write_text(content, encoding="utf-8")
        try:
            staging.rename(model / str(number))
        except OSError as exc:  # another process has just made a folder of this number
            if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            (staging / "manifest.json").unlink()
            continue
        return model / str(number)
    raise AssertionError("itertools.count ends")


def sweep(repository: Path) -> None:
    """Remove what an interrupted export has left."""
    for staging in repository.glob(f"*/{_STAGING}"):
        shutil.rmtree(staging)
        (staging.parent / HIDDEN_CONFIG).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: a model that was there before
            staging.parent.rmdir()
