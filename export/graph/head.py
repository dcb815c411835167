"""The layout of a YOLO head's output, by the metadata of its file and the shape of its output together.

    plain      (4 + classes, N)  centre, width, height in input pixels, a score for each class: needs NMS
    finished   (N, 6)            corners in input pixels, score, class: needs no NMS

RT-DETR returns (300, 6) or (300, 4 + classes) too, as fractions of a stretched image; YOLOv5's own repository returns
(25200, 5 + classes). Neither is supported, and neither may be mistaken for one of the two.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from export.errors import ExportError

# Ultralytics' classes of heads, by the name that `head` of the metadata has since 8.4.
_SERVED = frozenset({"Detect", "v10Detect", "WorldDetect", "YOLOEDetect"})
_TASKS = {
    "RTDETRDecoder": "RT-DETR",
    **dict.fromkeys(("Segment", "Segment26", "YOLOESegment", "YOLOESegment26"), "segment"),
    **dict.fromkeys(("Pose", "Pose26"), "pose"),
    **dict.fromkeys(("OBB", "OBB26"), "obb"),
    "Classify": "classify",
    "SemanticSegment": "semantic",
    "Depth": "depth",
}
MAP_HEADS = {"SemanticSegment": "semantic", "Depth": "depth"}  # see `sources.ultralytics_maps`
_RTDETR = re.compile(r"rt-?detr", re.IGNORECASE)
_NEXT = "next: a YOLO detector that Ultralytics 8.4 or newer exports, or a current version of it for this file"


def check_task(task: str, *, where: str, maps: bool = True) -> None:
    """Reject tasks that are not served, and where `maps` is false those that return a map.

    Raises:
        ExportError: the task is one of them.
    """
    if task != "detect" and not (maps and task in MAP_HEADS.values()):
        raise ExportError(f"{where}: task: got {task!r}, expected 'detect': other tasks are not served yet")


def check_head(metadata: Mapping[str, Any], *, where: str) -> None:
    """Reject heads that are not served, by their names.

    Args:
        metadata: of a file that Ultralytics exported: task, and head, description and args where it has them.
        where: names the file in messages.

    Raises:
        ExportError: the task or the head is another one or unknown, or the graph includes NMS.
    """
    check_task(str(metadata["task"]), where=where, maps=False)
    head = None if metadata.get("head") is None else str(metadata["head"])
    is_rtdetr = head is None and _RTDETR.search(str(metadata.get("description", "")))
    if head == "RTDETRDecoder" or is_rtdetr:
        got = repr(head) if head else f"the description {metadata['description']!r:.80}"
        raise ExportError(
            f"{where}: head: got {got}, expected one of {_served()}: RT-DETR is not served yet, its boxes are "
            "fractions of a stretched image; next: a YOLO detector"
        )
    if head in _TASKS:
        raise ExportError(
            f"{where}: head: got {head!r}, that of the task {_TASKS[head]!r}, while task is 'detect'; expected one "
            f"of {_served()}"
        )
    if head is not None and head not in _SERVED:
        raise ExportError(f"{where}: head: got {head!r:.80}, which is unknown, expected one of {_served()}")
    arguments = metadata.get("args")
    if isinstance(arguments, Mapping) and arguments.get("nms"):
        raise ExportError(
            f"{where}: got a graph with NMS inside, whose thresholds are fixed, expected one without; next: export it "
            "again without nms=True"
        )


def count_classes(names: Collection[int]) -> int:
    """Number of classes of a head: up to the last name; classes between two names may have none."""
    return max(names) + 1


def is_finished(shape: tuple[int, ...], metadata: Mapping[str, Any], *, where: str) -> bool:
    """Whether a head needs no NMS.

    Args:
        shape: `(rows, columns)` of its output, without the batch.
        metadata: of its file, accepted by `check_head`; names, and head and end2end where it has them.
        where: names the file in messages.

    Raises:
        ExportError: shape and metadata contradict each other, or fit several layouts.
    """
    rows, columns = shape
    classes = count_classes(metadata["names"])
    end2end = metadata.get("end2end")
    plain, finished = rows == 4 + classes, columns == 6
    known = f"{len(metadata['names'])} names up to index {classes - 1}"
    facts = f"output {shape}, {known}, head {metadata.get('head')!r}, end2end {end2end!r}"
    if "head" not in metadata and plain and columns == 4 + classes and not (finished and end2end):
        raise ExportError(
            f"{where}: got {facts}: its rows and its columns are 4 + {classes}: it may be a YOLO head or "
            f"RT-DETR's; expected head in its metadata; {_NEXT}"
        )
    if end2end is not None:
        fits = finished if end2end else plain
        expected = "(N, 6), of a head that needs no NMS" if end2end else f"({4 + classes}, N), of a head that needs NMS"
        if not fits:
            raise ExportError(f"{where}: got {facts}, which contradict each other: expected {expected}; {_NEXT}")
        return bool(end2end)
    if not plain and not finished:
        hint = _guess(rows, columns, classes, names=len(metadata["names"]))
        raise ExportError(f"{where}: got {facts}, expected ({4 + classes}, N) or (N, 6){hint}; {_NEXT}")
    return not plain


def _guess(rows: int, columns: int, classes: int, *, names: int) -> str:
    if columns == 4 + classes and rows == 300:
        return ": it looks like RT-DETR, which is not served yet"
    if columns == 4 + classes:
        return ": it looks like a transposed head"
    if columns == 5 + classes:
        return ": it looks like YOLOv5's own repository, whose anchors are not supported"
    if rows == 4 + names:
        return f": its names go beyond the {names} classes that it has"
    if rows > 4 + classes:
        return f": it has {rows - 4 - classes} rows more than its names explain"
    return ""


def _served() -> str:
    return ", ".join(sorted(_SERVED))
