"""What a model does with its input, one module for each task; each registers itself.

Pure functions on arrays that know neither protocol nor process. `export` runs the same ones to verify a model.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from transformer.errors import InvalidRequest
from transformer.tasks.detection_options import Selection
from transformer.tasks.task import TASKS, ImageTask, Parameter, RowsTask, Task
from transformer.triton.model import Model, ModelConfigError, TensorMetadata, read_metadata, read_model

__all__ = [
    "TASKS",
    "describe",
    "finds_objects",
    "image_task",
    "interface",
    "parameters",
    "rows_task",
    "takes_images",
    "task_of",
]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)


def describe(config: Any, *, version: str) -> Model:
    """Read a model's description, and check it against its task.

    Args:
        config: `inference.ModelConfig`, the protobuf, as Triton returns it or as config.pbtxt parses to.
        version: that the description belongs to.

    Raises:
        ModelConfigError: `parameters.metadata` is invalid, or the model cannot do its task.
    """
    metadata = read_metadata(config)
    task = metadata.get("task")
    if metadata and (not isinstance(task, str) or task not in TASKS):
        known = ", ".join(TASKS)
        raise ModelConfigError(f"{config.name}: task in parameters.metadata: got {task!r}, expected one of {known}")
    model = read_model(config, metadata, version=version, facts=TASKS[task].facts if task else ())
    if task:
        TASKS[task].check(model)
    return model


def task_of(model: Model) -> Task | None:
    """The task of a model; None of a model that takes its own tensors only."""
    return TASKS[model.task] if model.task else None


def takes_images(model: Model) -> bool:
    """Whether its task is one on images."""
    return isinstance(task_of(model), ImageTask)


def image_task(model: Model) -> ImageTask[Any, Any, Any]:
    """The task of a model that takes images.

    Raises:
        InvalidRequest: it does not.
    """
    task = task_of(model)
    if isinstance(task, ImageTask):
        return task
    raise _wrong_item(model, got="images")


def finds_objects(task: Task | None) -> bool:
    """Whether predictions of a task have boxes that a second model may classify: its requests choose among objects."""
    return isinstance(task, ImageTask) and issubclass(task.options, Selection)


def rows_task(model: Model) -> RowsTask:
    """The task of a model that takes rows.

    Raises:
        InvalidRequest: it does not.
    """
    task = task_of(model)
    if isinstance(task, RowsTask):
        return task
    raise _wrong_item(model, got="rows")


def _wrong_item(model: Model, *, got: str) -> InvalidRequest:
    if model.task is None:
        return InvalidRequest(f"{model.name} is a model without a task in its config: it takes its tensors: got {got}")
    expected = "images" if takes_images(model) else "rows"
    example = '; expected image files, or in JSON {"image": {"b64": "<base64>"}}' if expected == "images" else ""
    return InvalidRequest(f"{model.name} is a model for {expected} ({model.task}): got {got}{example}")


def interface(model: Model) -> tuple[Sequence[TensorMetadata], Sequence[TensorMetadata]]:
    """The inputs and outputs of this server for a model; the model's own where it has no task."""
    task = task_of(model)
    return (task.inputs(model), task.outputs(model)) if task else (model.inputs, model.outputs)


def parameters() -> dict[str, Parameter]:
    """Parameters of all tasks, by name."""
    return {parameter.name: parameter for task in TASKS.values() for parameter in task.parameters}
