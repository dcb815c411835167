"""Options of a request that choose among the objects in an image: parameters of every task that finds objects."""

from dataclasses import dataclass

from transformer.tasks.parameter_values import read_classes, read_count, read_fraction, read_name
from transformer.tasks.schemas import FRACTION, INTEGER, STRING
from transformer.tasks.task import Parameter

MAX_DETECTIONS_LIMIT = 1000  # NMS takes time by candidates times detections


@dataclass(frozen=True)
class Selection:
    """Which detections a client wants.

    Attributes:
        confidence: scores must be above this.
        iou: overlap of two boxes of one class above which the weaker one is suppressed.
        max_detections: number of detections, the best ones.
        class_ids: only these classes; None for all.
        then: name of the model that classifies each of them; "" for none.
    """

    confidence: float = 0.25
    iou: float = 0.7
    max_detections: int = 300
    class_ids: frozenset[int] | None = None
    then: str = ""


CLASSES = Parameter(
    "classes",
    read_classes,
    STRING,
    "a name, or names and indices separated by commas; what is a name is no index",
    option="class_ids",
    repeats=True,
)
SELECTION_PARAMETERS = (
    Parameter(
        "confidence",
        lambda value, _: read_fraction("confidence", value),
        FRACTION | {"default": Selection.confidence},
        "scores must be above this",
    ),
    Parameter(
        "iou",
        lambda value, _: read_fraction("iou", value),
        FRACTION | {"default": Selection.iou},
        "overlap above which the weaker box of a class is suppressed",
    ),
    Parameter(
        "max_detections",
        lambda value, _: read_count("max_detections", value, most=MAX_DETECTIONS_LIMIT),
        INTEGER | {"minimum": 1, "maximum": MAX_DETECTIONS_LIMIT, "default": Selection.max_detections},
        "the best detections, at most this many",
    ),
    CLASSES,
    Parameter(
        "then",
        lambda value, _: read_name("then", value),
        STRING | {"minLength": 1},
        "name of a classifier: each object is cropped out of the image and classified by it",
    ),
)
