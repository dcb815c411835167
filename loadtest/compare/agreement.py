"""How far the detections of a candidate are from those of Ultralytics with PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_IOU = 0.9


@dataclass(frozen=True)
class Detection:
    """One box, in pixels of the image."""

    label: str
    confidence: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Agreement:
    """Figures over all images together.

    Attributes:
        expected, found: detections of Ultralytics, and of the candidate.
        matched: pairs of the same class with an IoU of 0.9 or more.
        score: largest difference of confidence within a pair.
        box_px: largest difference of a coordinate within a pair.
    """

    expected: int
    found: int
    matched: int
    score: float
    box_px: float

    @property
    def share(self) -> float:
        """The share of the detections of both sides that are matched."""
        return 2 * self.matched / (self.expected + self.found) if self.expected + self.found else 1.0


def agree(found: Mapping[str, Sequence[Detection]], expected: Mapping[str, Sequence[Detection]]) -> Agreement:
    """Compare the detections of the same images; an image that is missing in `found` has no detections."""
    pairs = [pair for name, rows in expected.items() for pair in _match(found.get(name, ()), rows)]
    return Agreement(
        expected=sum(map(len, expected.values())),
        found=sum(map(len, found.values())),
        matched=len(pairs),
        score=max((abs(ours.confidence - theirs.confidence) for ours, theirs in pairs), default=0.0),
        box_px=max(
            (abs(a - b) for ours, theirs in pairs for a, b in zip(ours.box_xyxy, theirs.box_xyxy, strict=True)),
            default=0.0,
        ),
    )


def _match(found: Sequence[Detection], expected: Sequence[Detection]) -> list[tuple[Detection, Detection]]:
    """Pairs, each detection in at most one; each expected one takes the nearest that is left."""
    left = list(found)
    pairs = []
    for theirs in expected:
        rivals = [ours for ours in left if ours.label == theirs.label]
        nearest = max(rivals, key=lambda ours: iou(ours.box_xyxy, theirs.box_xyxy), default=None)
        if nearest is not None and iou(nearest.box_xyxy, theirs.box_xyxy) >= _IOU:
            left.remove(nearest)
            pairs.append((nearest, theirs))
    return pairs


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, x1, y1, x2, y2."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
