"""The three models that come with the repository."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import ExportError
from export.manifest import Source, digest
from export.versions import latest, read_complete

if TYPE_CHECKING:
    from export.progress import Steps
    from export.repository import Version

# Nothing here imports scikit-learn or onnx before a model is made: where all is there, the answer takes no second.

_HERE = Path(__file__).parent
_CALIBRATION_SEED = 1  # other scenes than those of the training


@dataclass(frozen=True)
class Example:
    """A model that comes along.

    Attributes:
        name: of the model.
        sources: the files that make it; when one changes, the model is made again.
        prepare: makes and proves it.
    """

    name: str
    sources: tuple[Path, ...]
    prepare: "Callable[[Example, Steps], Version]"

    @property
    def source(self) -> Source:
        """For the manifest."""
        return Source(self.sources[0].name, digest(*self.sources))


def find_ready(example: Example, repository: Path) -> Path | None:
    """The newest version of an example, when it is complete and made from the sources as they are now."""
    folder = latest(repository / example.name)
    manifest = read_complete(folder) if folder else None
    if manifest is None or manifest.get("source", {}).get("sha256") != example.source.sha256:
        return None
    return folder


def _digit_finder(example: Example, steps: "Steps") -> "Version":
    import numpy as np  # noqa: PLC0415 - see above

    from export.calibration import ENOUGH, Sample  # noqa: PLC0415
    from export.digit_finder.scenes import compose  # noqa: PLC0415
    from export.pictures import Picture  # noqa: PLC0415
    from export.ultralytics import Choice, prepare  # noqa: PLC0415

    weights = example.sources[0]
    if not weights.is_file():
        raise ExportError(f"{weights}: there is no such file: `make train-digit-finder` makes it")
    scenes = [
        Sample(Picture(str(index), scene.image_hwc), np.column_stack([scene.boxes_xyxy, scene.class_ids]).tolist())
        for index, scene in enumerate(compose("train", count=ENOUGH, seed=_CALIBRATION_SEED))
    ]
    version = prepare(
        example.name,
        str(weights),
        choice=Choice(precisions=("bf16", "int8"), calibration=scenes),
        say=lambda step: steps.say(f"{example.name}: {step}"),
        track=lambda items, step: steps.track(items, f"{example.name}: {step}"),
        warn=lambda message: steps.warn(f"{example.name}: {message}"),
    )
    return replace(version, source=example.source)


def _digits(example: Example, steps: "Steps") -> "Version":
    steps.say("digits: load scikit-learn")
    from export.digits.model import prepare  # noqa: PLC0415 - see above

    return prepare(example.name, source=example.source, track=steps.track)


def _iris(example: Example, steps: "Steps") -> "Version":
    steps.say("iris: train, convert and compare")
    from export.iris import prepare  # noqa: PLC0415 - see above

    return prepare(example.name, source=example.source)


EXAMPLES = (
    Example(
        "digit-finder",
        (
            _HERE / "weights" / "digit-finder.onnx",
            *(_HERE / part for part in ("distribution.py", "graph.py", "profiles.py", "quantisation.py")),
            _HERE / "digit_finder" / "scenes.py",
        ),
        _digit_finder,
    ),
    Example(
        "digits",
        (
            *(_HERE / "digits" / part for part in ("model.py", "frame.py", "renderings.py")),
            _HERE / "digit_finder" / "scenes.py",
        ),
        _digits,
    ),
    Example("iris", (_HERE / "iris.py", _HERE / "xgboost.py"), _iris),
)
