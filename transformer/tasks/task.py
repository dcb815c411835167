"""The interface of a task: what a model does with images or rows. A new task is one module of this folder.

    parameters of a request --Task.read_options--> options
    image --preprocess--> tensor, plan --Triton--> outputs --postprocess--> ImagePrediction
    rows  --preprocess--> arrays       --Triton--> outputs --postprocess--> RowsPrediction

A prediction writes itself as JSON and as tensors of the v2 protocol, draws itself, and compares itself with another
one, which is how `export` verifies a version. The data plane, the protocols, OpenAPI and `export` know tasks by this
interface alone. Everything here is arrays in, arrays out: no network, no process.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import InvalidRequest
from transformer.imaging.crops import cut
from transformer.imaging.letterbox import Image
from transformer.imaging.nms import Floats
from transformer.offload import ALWAYS
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

Array = NDArray[Any]
Schema = Mapping[str, Any]  # JSON schema
Write = Callable[[], Array | list[bytes]]  # one tensor, made only where it is wanted

IMAGES = TensorMetadata("image", "BYTES", (-1,))

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Parameter:
    """A parameter that a request may have, the same in every protocol.

    Attributes:
        name: in a query, in a form, in JSON.
        read: checks a value (a number, or a string that holds one) against the model; raises InvalidRequest.
        schema: of the value in a query.
        description: for OpenAPI.
        option: name of the field of the task's options; that of the parameter where empty.
        repeats: whether a query may have it several times, and its value is a list then.
    """

    name: str
    read: Callable[[Any, Model], Any]
    schema: Schema
    description: str
    option: str = ""
    repeats: bool = False


@dataclass(frozen=True)
class NoOptions:
    """Options of a task without parameters."""


class Prediction(ABC):
    """What a model predicts of an image, or of all rows of a request."""

    @property
    @abstractmethod
    def json_bytes(self) -> int:
        """Estimated size of its JSON: decides whether it is written in a thread."""

    @abstractmethod
    def compare(self, expected: Self) -> Mapping[str, float]:
        """How far this prediction is from that of the source program: figures by name, as `Task.tolerances` has them.

        A figure that is missing on one side only is infinite.
        """


class ImagePrediction(Prediction):
    """What a model predicts of one image.

    Attributes:
        limits_reached: limits that left something out, and how many objects each lets pass.
    """

    limits_reached: Mapping[str, int] = _NOTHING

    @property
    def held_bytes(self) -> int:
        """Size of what it holds until the response is written, where that is as large as an image; else 0."""
        return 0

    @property
    def objects(self) -> int | None:
        """How many objects were found, for the metric `nereid_detections`; None where the task finds none."""
        return None

    @property
    def object_boxes(self) -> Floats | None:
        """Boxes of the objects, `(N, 4)` x1, y1, x2, y2 in pixels of the image, in the order of `predictions` in JSON.

        None where the task finds none. A second model may classify what finds objects, see `dataplane/second_step.py`.
        """
        return None

    def crop(self, image_hwc: Image, index: int) -> Image:
        """The part of the image that an object is in, by its box: a view, without pixels where the box has none."""
        assert self.object_boxes is not None, "only objects are cropped"  # noqa: S101
        return cut(image_hwc, self.object_boxes[index])

    @property
    def best_class(self) -> tuple[int, float] | None:
        """The class of the image as a whole, and its score; None where `ImageTask.classifies` is False."""
        return None

    @abstractmethod
    def to_json(self, model: Model) -> dict[str, Any]:
        """Members of the response beside those that every task has; described by `Task.schema`."""

    @classmethod
    @abstractmethod
    def to_tensors(cls, predictions: Sequence[Self], model: Model) -> Mapping[str, Write]:
        """Tensors of the v2 protocol beside `Task.json_output`, over all images of a request; as `Task.outputs`."""

    @abstractmethod
    def draw(self, image_hwc: Image, model: Model) -> Image:
        """A copy of the image, RGB `(height, width, 3)`, with the prediction drawn."""


class RowsPrediction(Prediction):
    """What a model predicts of all rows of a request."""

    @abstractmethod
    def to_json(self, model: Model) -> list[dict[str, Any]]:
        """One object for each row; described by `Task.schema`."""

    @abstractmethod
    def to_tensors(self, model: Model) -> Mapping[str, Write]:
        """Tensors of the v2 protocol beside `Task.json_output`; as `Task.outputs`."""


class Task(ABC):
    """What a model does.

    Attributes:
        name: as `task` in `parameters.metadata` of config.pbtxt.
        parameters: that a request may have.
        options: the class that they become.
        facts: keys of `parameters.metadata` that only this task reads, from `Model.facts`.
        json_output: name of the v2 output, BYTES, that holds the JSON of each item.
        schema_name: of `schema` in OpenAPI.
        schema: of `to_json`: properties by name for images, the schema of one object for rows.
        metadata_schema: properties of `metadata` by name.
        tolerances: by the figures of `Prediction.compare`: what is larger fails an export.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    options: ClassVar[type[Any]] = NoOptions
    facts: ClassVar[tuple[str, ...]] = ()
    json_output: ClassVar[str] = "predictions"
    schema_name: ClassVar[str]
    schema: ClassVar[Schema]
    metadata_schema: ClassVar[Schema] = _NOTHING
    tolerances: ClassVar[Mapping[str, float]]

    @abstractmethod
    def check(self, model: Model) -> None:
        """Check that a model, as its config.pbtxt describes it, can do the task.

        Raises:
            ModelConfigError: it cannot.
        """

    @abstractmethod
    def inputs(self, model: Model) -> Sequence[TensorMetadata]:
        """The tensors that this server takes for the model."""

    @abstractmethod
    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """The tensors that this server returns, `json_output` first."""

    def metadata(self, model: Model) -> dict[str, Any]:  # noqa: ARG002
        """Further parameters of the model's metadata in v2."""
        return {}

    def read_options(self, parameters: Mapping[str, Any], model: Model) -> Any:
        """Check the parameters of a request.

        Args:
            parameters: as a protocol carries them.
            model: that is to respond.

        Returns:
            An instance of `options`.

        Raises:
            InvalidRequest: an unknown parameter, or a wrong type, range or class.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in parameters:
            if name not in known:
                expected = f"one of {', '.join(known)}" if known else f"none, {model.name} is a model for {self.name}"
                raise InvalidRequest(f"parameter {name!r} is unknown; expected {expected}")
        return self.options(
            **{known[name].option or name: known[name].read(value, model) for name, value in parameters.items()}
        )


Plan = TypeVar("Plan")
Options = TypeVar("Options")
Predicted = TypeVar("Predicted", bound=ImagePrediction)


class ImageTask(Task, Generic[Plan, Options, Predicted]):
    """A task on images, each by itself.

    `Plan` is what postprocessing has to know of preprocessing, such as how the image lies in the model's input.

    Attributes:
        classifies: whether a prediction is a class of the image as a whole, so that the model may be the second step of
            a request: all of its inputs have one shape then.
    """

    classifies: ClassVar[bool] = False

    def check(self, model: Model) -> None:
        """One input, and the image size that it was trained for."""
        if not model.outputs or len(model.inputs) != 1 or not model.input.shape:
            raise ModelConfigError(
                f"{model.name}: got {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one input and"
                " at least one output"
            )
        if model.input_wh is None:
            raise ModelConfigError(f"{model.name}: imgsz is missing in parameters.metadata")

    def inputs(self, model: Model) -> Sequence[TensorMetadata]:  # noqa: ARG002
        """Encoded images."""
        return [IMAGES]

    def smallest_wh(self, image_wh: tuple[int, int], model: Model) -> tuple[int, int] | None:  # noqa: ARG002
        """The size below which an image must not be reduced while it is decoded; None: every pixel counts."""
        return None

    @abstractmethod
    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, Plan]:
        """Bring an image to the model's input.

        Args:
            image_hwc: RGB, `(height, width, 3)`.
            model: for size and interface.
            size_wh: of the image itself, where `image_hwc` was reduced while it was decoded.

        Returns:
            The input without batch dimension, and the plan for `postprocess`.
        """

    def postprocess_cost(self, outputs: Mapping[str, Array]) -> float:  # noqa: ARG002
        """Cost of `postprocess`, in the unit of `offload`."""
        return ALWAYS

    @abstractmethod
    def postprocess(self, outputs: Mapping[str, Array], model: Model, *, plan: Plan, options: Options) -> Predicted:
        """Read the model's outputs.

        Args:
            outputs: by name, without batch dimension.
            model: that responded.
            plan: from `preprocess`.
            options: from `read_options`.

        Raises:
            PredictorError: the outputs are not those of the task.
        """


class RowsTask(Task):
    """A task on rows of a table, as many as a request has."""

    @abstractmethod
    def is_split(self, model: Model) -> bool:
        """Whether each column is an input of its own."""

    @abstractmethod
    def count(self, rows: Any) -> int:
        """Number of rows."""

    @abstractmethod
    def cost(self, rows: Any) -> float:
        """Cost of `preprocess`, in the unit of `offload`."""

    @abstractmethod
    def preprocess(self, rows: Any, model: Model) -> dict[str, Array]:
        """Arrays by the name of the input, `(rows, columns)`.

        Raises:
            InvalidRequest: a row or a value does not fit the model.
        """

    @abstractmethod
    def postprocess(self, outputs: Sequence[Mapping[str, Array]], model: Model) -> RowsPrediction:
        """Read the model's outputs, one mapping for each run, in the order of the rows.

        Raises:
            PredictorError: the outputs are not those of the task.
        """


TASKS: dict[str, Task] = {}

T = TypeVar("T", bound=Task)


def register(task: T) -> T:
    """Add a task to those that are served."""
    TASKS[task.name] = task
    return task


def largest_difference(got: Array, expected: Array) -> float:
    """The largest absolute difference of two arrays; infinite where their shapes differ, 0 of empty ones."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got.astype(np.float64) - expected).max(initial=0))
