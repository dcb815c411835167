"""Which checkpoints (.pt) may be loaded. They are pickles: loading one runs the code that it holds.

A few of Ultralytics' own are known by their digests; one whose digest is not on this list needs the user's permission,
official or not. The bytes that were checked are those that are loaded: a copy that no other user can write.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# SHA-256 of official checkpoints, each computed from the file itself (2026-11-26), as Ultralytics' release v8.4.0 of
# ultralytics/assets has it. A new one: sha256sum of a file whose origin you trust.
OFFICIAL: Mapping[str, str] = {
    "yolov8n.pt": "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36",
    "yolov8n-seg.pt": "d39e867b2c3a5dbc1aa764411544b475cb14727bf6af1ec46c238f8bb1351ab9",
    "yolo11n-seg.pt": "55ed65c56c91713d23e8402371c6c49a6fd84f257f7dce452e8d70e41dcbe152",
}
_CHUNK_BYTES = 1 << 20


class CheckpointError(Exception):
    """A checkpoint must not be loaded; the message says why and what to do."""


@contextmanager
def admit(path: Path, *, allowed: bool) -> Iterator[Path]:
    """A copy of a checkpoint that may be loaded, until the block ends.

    Where ultralytics is imported after this, it installs nothing that a checkpoint requires, and of an official one it
    builds only the classes of networks.

    Args:
        path: of the checkpoint.
        allowed: whether the user permits to load it, whatever code it holds.

    Raises:
        CheckpointError: it is not on the list, and the user did not permit it.
        OSError: it cannot be read.
    """
    # Only the user can read the folder (0700), and its name cannot be guessed.
    with tempfile.TemporaryDirectory(prefix="nereid-checkpoint-") as folder:
        copy = Path(folder) / "checkpoint.pt"
        digest = _copy(path, copy)
        official = digest in OFFICIAL.values()
        if not official and not allowed:
            raise CheckpointError(_describe_rejection(path, digest))
        os.environ["YOLO_AUTOINSTALL"] = "false"
        os.environ["ULTRALYTICS_SAFE_LOAD"] = "true" if official else "false"
        yield copy


def _copy(path: Path, copy: Path) -> str:
    """Copy a file, and return the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    with path.open("rb") as source, copy.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _describe_rejection(path: Path, digest: str) -> str:
    known = OFFICIAL.get(path.name)
    expected = f"that of the official {path.name}, {known}" if known else f"one of the {len(OFFICIAL)} on our list"
    return (
        f"{path}: got SHA-256 {digest}, expected {expected}: unpickling runs the code that the file holds: pass "
        "--allow-unpickling (make: ALLOW_UNPICKLING=1) if you trust where it comes from"
    )
