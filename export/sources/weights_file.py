"""What a .pt file holds, by its name and the names in its pickle, before torch is installed or loaded.

Nothing is unpickled: only the opcodes of the pickle are read.
"""

import pickletools
import re
import zipfile
import zlib
from pathlib import Path

from export.errors import ExportError

_OFFICIAL = re.compile(r"^(yolo|rtdetr-)[\w-]*\.pt$")
_YOLOV5 = re.compile(r"^models\.(yolo|common|experimental)$")
_LARGEST_PICKLE_BYTES = 64 * 2**20  # YOLOv8x has less than 1 MiB


def check_weights(weights: str) -> None:
    """Reject weights that cannot be exported, as far as names show it.

    Args:
        weights: a `.pt` file, or an official name.

    Raises:
        ExportError: they are neither, or of YOLOv5's own repository.
    """
    path = Path(weights)
    if not path.is_file():
        if path.name != weights or not _OFFICIAL.match(weights):
            raise ExportError(f"{path}: the file is missing, and its name is not an official one such as yolov8n.pt")
        return
    for module, name in sorted(_read_classes(path)):
        if _YOLOV5.match(module):
            raise ExportError(
                f"{weights}: got a checkpoint of YOLOv5's own repository ({module}.{name}), whose anchors are not read "
                "here, expected one of Ultralytics; next: yolov5nu.pt, or train again with the package ultralytics"
            )


def _read_classes(path: Path) -> set[tuple[str, str]]:
    """Module and name of each class and function in a checkpoint's pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            if pickled.file_size > _LARGEST_PICKLE_BYTES:
                raise ValueError(f"a pickle of {pickled.file_size} bytes")
            content = archive.read(pickled)
        return set(_iterate_classes(content))
    # All that zipfile, zlib and pickletools raise for another file; RuntimeError for an encrypted member.
    except (zipfile.BadZipFile, zlib.error, StopIteration, ValueError, RuntimeError, IndexError, EOFError) as exc:
        size = path.stat().st_size
        raise ExportError(
            f"{path}: got {size} bytes, expected a PyTorch checkpoint: is the file truncated, or of another kind?"
        ) from exc


def _iterate_classes(content: bytes) -> list[tuple[str, str]]:
    found = []
    texts: list[str] = []  # STACK_GLOBAL takes the last two, where they are not from the memo
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            found.append((module, name))
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            found.append((texts[-2], texts[-1]))
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
    return found
