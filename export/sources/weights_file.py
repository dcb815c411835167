"""What a .pt file holds, known before torch is installed or loaded: from its name, and from names in its pickle.

Nothing is unpickled: the pickle's opcodes are read as they are.
"""

import pickletools
import re
import zipfile
import zlib
from pathlib import Path

from export.errors import ExportError
from export.graph.head import check_head, check_task

_OFFICIAL = re.compile(r"^yolo[\w-]*\.pt$")
_TASKS_BY_NAME = {
    "seg": "segment",
    "pose": "pose",
    "obb": "obb",
    "cls": "classify",
    "sem": "semantic",
    "depth": "depth",
}
_TASKS_BY_CLASS = {
    "SegmentationModel": "segment",
    "YOLOESegModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
    "SemanticSegmentationModel": "semantic",
    "DepthModel": "depth",
}
_RTDETR = {"RTDETRDetectionModel", "RTDETRDecoder"}
_YOLOV5 = re.compile(r"^models\.(yolo|common|experimental)$")
_LARGEST_PICKLE_BYTES = 64 * 2**20  # that of YOLOv8x has less than one


def check_weights(weights: str) -> None:
    """Refuse weights that cannot become a detector here, as far as that shows from outside.

    Args:
        weights: a `.pt` file, or an official name.

    Raises:
        ExportError: it is neither, or holds RT-DETR, another task or a YOLOv5 of its own repository.
    """
    path = Path(weights)
    if not path.is_file():
        _check_name(weights)
        if path.name != weights or not _OFFICIAL.match(weights):
            raise ExportError(f"{path}: there is no such file, and it is no official name such as yolov8n.pt")
        return
    for module, name in sorted(_read_classes(path)):
        if name in _RTDETR:
            check_head({"task": "detect", "head": "RTDETRDecoder"}, where=weights)
        if module.startswith("ultralytics.") and name in _TASKS_BY_CLASS:
            check_task(_TASKS_BY_CLASS[name], where=weights)
        if _YOLOV5.match(module):
            raise ExportError(
                f"{weights}: got a checkpoint of YOLOv5's own repository ({module}.{name}), whose anchors are not read "
                "here, expected one of Ultralytics; next: yolov5nu.pt, or train again with the package ultralytics"
            )


def _check_name(weights: str) -> None:
    """By the name alone, since it is downloaded only after torch was installed."""
    stem = Path(weights).stem
    if stem.startswith("rtdetr"):
        check_head({"task": "detect", "head": "RTDETRDecoder"}, where=weights)
    for suffix in stem.split("-")[1:]:
        check_task(_TASKS_BY_NAME.get(suffix, "detect"), where=weights)


def _read_classes(path: Path) -> set[tuple[str, str]]:
    """Module and name of all that a checkpoint's pickle refers to."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            if pickled.file_size > _LARGEST_PICKLE_BYTES:
                raise ValueError(f"a pickle of {pickled.file_size} bytes")
            content = archive.read(pickled)
        return set(_iterate_classes(content))
    # What zipfile, zlib and pickletools raise of what is no checkpoint; of a member that is encrypted, RuntimeError.
    except (zipfile.BadZipFile, zlib.error, StopIteration, ValueError, RuntimeError, IndexError, EOFError) as exc:
        size = path.stat().st_size
        raise ExportError(
            f"{path}: got {size} bytes that are no PyTorch checkpoint: cut off, or something else?"
        ) from exc


def _iterate_classes(content: bytes) -> list[tuple[str, str]]:
    found = []
    texts: list[str] = []  # the last two are what STACK_GLOBAL takes, where they are not from the memo
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            found.append((module, name))
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            found.append((texts[-2], texts[-1]))
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
    return found
