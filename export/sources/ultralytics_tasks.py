"""The tasks of Ultralytics' files that are exported, and the module that makes a version of each.

A new task is one entry here and a module with a function `prepare(file: File) -> Version`, which is imported where a
file has that task.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import ExportError

if TYPE_CHECKING:
    from export.sources.choice import Choice, Reporter
    from export.sources.ultralytics_checkpoint import Checkpoint
    from export.writer.manifest import Source
    from export.writer.repository import Version

MODULES: Mapping[str, str] = {
    **dict.fromkeys(("detect", "segment", "pose", "obb"), "export.sources.ultralytics_objects"),
    "classify": "export.sources.ultralytics_classifier",
    **dict.fromkeys(("semantic", "depth"), "export.sources.ultralytics_maps"),
}


@dataclass(frozen=True)
class File:
    """An ONNX file of Ultralytics that becomes a version.

    Attributes:
        name: of the model.
        path: of the ONNX file.
        source: the file that the user gave, for the manifest.
        checkpoint: what it is compared with besides the ONNX file itself; None for that file alone.
        choice: what the user chose.
        report: shows steps, progress and warnings.
    """

    name: str
    path: Path
    source: "Source"
    checkpoint: "Checkpoint | None"
    choice: "Choice"
    report: "Reporter"


def check_task(task: Any, *, where: str) -> None:
    """Reject tasks that are not exported.

    Raises:
        ExportError: the task is another one.
    """
    if task not in MODULES:
        expected = ", ".join(map(repr, MODULES))
        raise ExportError(
            f"{where}: task: got {task!r:.80}, expected one of {expected}: other tasks are not served yet"
        )


def find_preparer(task: str) -> "Callable[[File], Version]":
    """The function that makes a version of a file of a task, accepted by `check_task`."""
    prepare: Callable[[File], Version] = importlib.import_module(MODULES[task]).prepare
    return prepare
