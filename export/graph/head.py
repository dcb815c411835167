"""The layout of a YOLO head's output, by the metadata of its file and the shapes of its outputs together.

    plain        (4 + classes + rest, N)  centre, width, height in input pixels, a score for each class: needs NMS
    finished     (N, 6 + rest)            corners in input pixels, score, class: needs no NMS
    RT-DETR      (N, 6)                   centre, width, height as fractions of a stretched image, score, class
                 (N, 4 + classes)         the same with a score for each class, as earlier versions export it

The rest are the coefficients of a mask (segment), keypoints (pose) or an angle in radians (obb), whose box is centre,
width and height in both layouts. The prototypes of masks are an output of their own. YOLOv5's own repository returns
(25200, 5 + classes), which is not supported, and may not be mistaken for one of these.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from export.errors import ExportError

# Ultralytics' classes of heads, by the name that `head` of the metadata has since 8.4, with their tasks.
_RTDETR = "RTDETRDecoder"
_HEADS = {
    **dict.fromkeys(("Detect", "v10Detect", "WorldDetect", "YOLOEDetect", _RTDETR), "detect"),
    **dict.fromkeys(("Segment", "Segment26", "YOLOESegment", "YOLOESegment26"), "segment"),
    **dict.fromkeys(("Pose", "Pose26"), "pose"),
    **dict.fromkeys(("OBB", "OBB26"), "obb"),
}
_OTHER_HEADS = {"Classify": "classify", "SemanticSegment": "semantic", "Depth": "depth"}
TASKS = ("detect", "segment", "pose", "obb")
REST = {"segment": "coefficients", "pose": "keypoints", "obb": "angles"}
_RTDETR_NAME = re.compile(r"rt-?detr", re.IGNORECASE)
_NEXT = "next: a network that Ultralytics 8.4 or newer exports, or a current version of it for this file"
_MAX_KEYPOINTS = 1024


@dataclass(frozen=True)
class Layout:
    """How the outputs of a head are read.

    Attributes:
        task: `detect`, `segment`, `pose` or `obb`.
        classes: of the head.
        end2end: whether it needs no NMS.
        rest: numbers of each candidate beside its box and its classes.
        kpt_shape: keypoints, and numbers of each: x, y and, where there are three, visibility; None of other tasks.
        stretch: whether boxes are fractions of an image that was stretched to the input (RT-DETR).
        class_scores: whether a head that needs no NMS has a score for each class, as that of an older RT-DETR.
    """

    task: str
    classes: int
    end2end: bool
    rest: int = 0
    kpt_shape: tuple[int, int] | None = None
    stretch: bool = False
    class_scores: bool = False

    @property
    def columns(self) -> int:
        """Numbers of each candidate in the head's output."""
        is_finished = self.end2end and not self.class_scores
        return (6 if is_finished else 4 + self.classes) + self.rest

    @property
    def has_corners(self) -> bool:
        """Whether boxes are corners, else centre and size."""
        return self.end2end and not self.stretch and self.task != "obb"


def check_head(metadata: Mapping[str, Any], *, where: str) -> None:
    """Reject heads that are not served, by their names.

    Args:
        metadata: of a file that Ultralytics exported: task, and head, description and args where it has them.
        where: names the file in messages.

    Raises:
        ExportError: the task or the head is another one or unknown, or the graph includes NMS.
    """
    task = str(metadata["task"])
    if task not in TASKS:
        raise ExportError(f"{where}: task: got {task!r}, expected one of {', '.join(map(repr, TASKS))}")
    head = None if metadata.get("head") is None else str(metadata["head"])
    known = ", ".join(sorted(name for name, of_task in _HEADS.items() if of_task == task))
    other = ({**_HEADS, **_OTHER_HEADS}).get(head or "", task)
    if other != task:
        raise ExportError(
            f"{where}: head: got {head!r}, that of the task {other!r}, while task is {task!r}; expected one of {known}"
        )
    if head is not None and head not in _HEADS:
        raise ExportError(f"{where}: head: got {head!r:.80}, which is unknown, expected one of {known}")
    arguments = metadata.get("args")
    if isinstance(arguments, Mapping) and arguments.get("nms"):
        raise ExportError(
            f"{where}: got a graph with NMS inside, whose thresholds are fixed, expected one without; next: export it "
            "again without nms=True"
        )


def count_classes(names: Collection[int]) -> int:
    """Number of classes of a head: up to the last name; classes between two names may have none."""
    return max(names) + 1


def is_rtdetr(metadata: Mapping[str, Any]) -> bool:
    """Whether a head is that of RT-DETR, by its name, or before files had it by the description."""
    if metadata.get("head") is not None:
        return str(metadata["head"]) == _RTDETR
    return bool(_RTDETR_NAME.search(str(metadata.get("description", ""))))


def read_layout(
    shape: tuple[int, ...],
    metadata: Mapping[str, Any],
    *,
    prototypes: int | None = None,
    has_whole_classes: bool = True,
    where: str,
) -> Layout:
    """The layout of a head.

    Args:
        shape: of its output, without the batch.
        metadata: of its file, accepted by `check_head`; task, names, and head, end2end and kpt_shape where it has them.
        prototypes: number of the prototypes of masks that the file returns beside it; None without.
        has_whole_classes: whether the sixth column of the output holds whole numbers.
        where: names the file in messages.

    Raises:
        ExportError: shapes and metadata contradict each other, or fit several layouts.
    """
    task = str(metadata["task"])
    classes = count_classes(metadata["names"])
    if (task == "segment") != (prototypes is not None):
        raise ExportError(
            f"{where}: got {'no' if prototypes is None else prototypes} prototypes of masks beside output {shape}, "
            f"while task is {task!r}: expected {'them' if task == 'segment' else 'none'}; {_NEXT}"
        )
    if is_rtdetr(metadata):
        return _read_transformer(shape, metadata, has_whole_classes, where)
    kpt_shape = _read_kpt_shape(metadata, where) if task == "pose" else None
    rest = {"segment": prototypes or 0, "obb": 1}.get(task, kpt_shape[0] * kpt_shape[1] if kpt_shape else 0)
    layout = Layout(task, classes, end2end=False, rest=rest, kpt_shape=kpt_shape)
    return Layout(task, classes, _is_finished(shape, layout, metadata, where), rest, kpt_shape)


def _is_finished(shape: tuple[int, ...], plain_layout: Layout, metadata: Mapping[str, Any], where: str) -> bool:
    """Whether a head that is not RT-DETR's needs no NMS."""
    rows, columns = shape
    classes, rest = plain_layout.classes, plain_layout.rest
    end2end = metadata.get("end2end")
    plain, finished = rows == plain_layout.columns, columns == 6 + rest
    facts = _describe(shape, metadata)
    sizes = f"({plain_layout.columns}, N)", f"(N, {6 + rest})"
    is_square = plain and columns == 4 + classes and not (finished and end2end)
    if plain_layout.task == "detect" and metadata.get("head") is None and is_square:
        raise ExportError(
            f"{where}: got {facts}: its rows and its columns are 4 + {classes}: it may be a YOLO head or "
            f"RT-DETR's; expected head in its metadata; {_NEXT}"
        )
    if end2end is not None:
        fits = finished if end2end else plain
        expected = f"{sizes[1]}, of a head that needs no NMS" if end2end else f"{sizes[0]}, of a head that needs NMS"
        if not fits:
            raise ExportError(f"{where}: got {facts}, which contradict each other: expected {expected}; {_NEXT}")
        return bool(end2end)
    if not plain and not finished:
        hint = _guess(rows - rest, columns, classes, names=len(metadata["names"]))
        raise ExportError(f"{where}: got {facts}, expected {sizes[0]} or {sizes[1]}{hint}; {_NEXT}")
    return not plain


def _read_transformer(
    shape: tuple[int, ...], metadata: Mapping[str, Any], has_whole_classes: bool, where: str
) -> Layout:
    """The layout of RT-DETR's head, whose `end2end` is False although it needs no NMS."""
    _, columns = shape
    classes = count_classes(metadata["names"])
    # Of two classes both have six columns; scores of a class are whole numbers by chance only.
    if columns == 6 and has_whole_classes:
        return Layout("detect", classes, end2end=True, stretch=True)
    if columns == 4 + classes:
        return Layout("detect", classes, end2end=True, stretch=True, class_scores=True)
    hint = " with whole numbers as classes" if columns == 6 else ""
    raise ExportError(
        f"{where}: got {_describe(shape, metadata)}, which contradict each other: expected (N, 6){hint} or "
        f"(N, {4 + classes}), as RT-DETR returns; {_NEXT}"
    )


def _read_kpt_shape(metadata: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Number of keypoints, and numbers of each."""
    found = metadata.get("kpt_shape")
    numbers = found if isinstance(found, list | tuple) and len(found) == 2 else (0, 0)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        numbers = 0, 0
    count, each = numbers
    if not 1 <= count <= _MAX_KEYPOINTS or each not in {2, 3}:
        raise ExportError(
            f"{where}: kpt_shape in its metadata: got {found!r:.80}, expected the number of keypoints, at most "
            f"{_MAX_KEYPOINTS}, and of the numbers of each, 2 or 3"
        )
    return count, each


def _describe(shape: tuple[int, ...], metadata: Mapping[str, Any]) -> str:
    names = metadata["names"]
    known = f"{len(names)} names up to index {count_classes(names) - 1}"
    keypoints = f", kpt_shape {metadata['kpt_shape']!r:.80}" if metadata["task"] == "pose" else ""
    return f"output {shape}, {known}{keypoints}, head {metadata.get('head')!r}, end2end {metadata.get('end2end')!r}"


def _guess(rows: int, columns: int, classes: int, *, names: int) -> str:
    if columns == 4 + classes and rows == 300:
        return ": it looks like RT-DETR, expected that head in its metadata"
    if columns == 4 + classes:
        return ": it looks like a transposed head"
    if columns == 5 + classes:
        return ": it looks like YOLOv5's own repository, whose anchors are not supported"
    if rows == 4 + names:
        return f": its names go beyond the {names} classes that it has"
    if rows > 4 + classes:
        return f": it has {rows - 4 - classes} rows more than its names explain"
    return ""
