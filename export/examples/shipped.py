"""The models that come with the project, and which of them are ready."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import ExportError
from export.writer.manifest import Source, digest
from export.writer.versions import latest, read_complete

if TYPE_CHECKING:
    from export.progress import Steps
    from export.writer.repository import Version

# Nothing here imports scikit-learn or onnx before a model is made: where all are ready, that takes less than a second.

_EXAMPLES = Path(__file__).parent
_EXPORT = _EXAMPLES.parent
_CALIBRATION_SEED = 1  # other scenes than those of the training
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Example:
    """A model that comes with the project.

    Attributes:
        name: of the model.
        sources: the files that make it; when one changes, the model is made again.
        prepare: makes and verifies it, in the given precisions besides FP32.
        precisions: the ones that it can have besides FP32.
    """

    name: str
    sources: tuple[Path, ...]
    prepare: "Callable[[Example, Steps, Collection[str]], Version]"
    precisions: frozenset[str] = frozenset()

    @property
    def source(self) -> Source:
        """For the manifest."""
        return Source(self.sources[0].name, digest(*self.sources))


def find_ready(example: Example, repository: Path, *, precisions: Collection[str] = PRECISIONS) -> Path | None:
    """The newest version of an example, when it is complete, made from the sources as they are now, and has these."""
    folder = latest(repository / example.name)
    manifest = read_complete(folder) if folder else None
    if manifest is None or manifest.get("source", {}).get("sha256") != example.source.sha256:
        return None
    missing = example.precisions & set(precisions) - manifest.get("precisions", {}).keys()
    return None if missing else folder


def _yolo(example: Example, steps: "Steps", precisions: Collection[str]) -> "Version":
    import numpy as np  # noqa: PLC0415 - see above

    from export.examples.scenes import compose  # noqa: PLC0415
    from export.proof.calibration import ENOUGH, Sample  # noqa: PLC0415
    from export.proof.drawn_images import NamedImage  # noqa: PLC0415
    from export.proof.precision import LIMITS  # noqa: PLC0415
    from export.sources.choice import Choice  # noqa: PLC0415
    from export.sources.ultralytics import prepare  # noqa: PLC0415

    weights = example.sources[0]
    if not weights.is_file():
        raise ExportError(f"{weights}: the file is missing; next: make train-examples EXAMPLE={example.name}")
    wanted = [precision for precision in LIMITS if precision in example.precisions & set(precisions)]
    scenes = [
        Sample(NamedImage(str(index), scene.image_hwc), np.column_stack([scene.boxes_xyxy, scene.class_ids]).tolist())
        for index, scene in enumerate(compose("train", count=ENOUGH if wanted else 0, seed=_CALIBRATION_SEED))
    ]
    version = prepare(
        example.name,
        str(weights),
        choice=Choice(precisions=wanted, calibration=scenes),
        say=lambda step: steps.say(f"{example.name}: {step}"),
        track=lambda items, step: steps.track(items, f"{example.name}: {step}"),
        warn=lambda message: steps.warn(f"{example.name}: {message}"),
    )
    return replace(version, source=example.source)


def _digits(example: Example, steps: "Steps", _: Collection[str]) -> "Version":
    steps.say("digits: load scikit-learn")
    from export.examples.digits.model import prepare  # noqa: PLC0415 - see above

    return prepare(example.name, source=example.source, track=steps.track)


def _iris(example: Example, steps: "Steps", _: Collection[str]) -> "Version":
    steps.say("iris: train, convert and compare")
    from export.examples.iris import prepare  # noqa: PLC0415 - see above

    return prepare(example.name, source=example.source)


_GRAPH = _EXPORT / "graph"
_PROFILES = _EXPORT / "writer" / "profiles.py"
_OBJECTS = (
    *(_GRAPH / part for part in ("dfl.py", "dims.py", "fused_interface.py", "half_weights.py", "head.py", "int8.py")),
    _PROFILES,
)

EXAMPLES = (
    Example(
        "digit-finder",
        (_EXPORT / "weights" / "digit-finder.onnx", *_OBJECTS, _EXAMPLES / "scenes.py"),
        _yolo,
        frozenset({"bf16", "int8"}),
    ),
    *(
        Example(name, (_EXPORT / "weights" / f"{name}.onnx", *_OBJECTS), _yolo)
        for name in ("digit-outlines", "digit-strokes", "tilted-digits")
    ),
    Example(
        "digit-classes",
        (_EXPORT / "weights" / "digit-classes.onnx", _GRAPH / "classifier.py", _GRAPH / "half_weights.py", _PROFILES),
        _yolo,
    ),
    Example(
        "digits",
        (
            *(_EXAMPLES / "digits" / part for part in ("model.py", "frame.py", "renderings.py")),
            _EXAMPLES / "scenes.py",
        ),
        _digits,
    ),
    Example(
        "iris",
        (
            _EXAMPLES / "iris.py",
            *(_EXPORT / "sources" / part for part in ("tabular.py", "xgboost.py")),
            *sorted((_EXPORT / "tables").glob("*.py")),
        ),
        _iris,
    ),
)
