"""Comparison of an exported model with its source program, whatever the task: the task defines figures and tolerances.

What only some tasks need stands beside it: candidates before NMS of detectors (`parity`, `predictions`), spread of the
values of tables (`tables.parity`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.session import Session
from transformer.tasks import image_task, rows_task
from transformer.tasks.task import ImagePrediction, RowsPrediction, Task
from transformer.triton.model import Model

Arrays = Mapping[str, NDArray[Any]]
Image = NDArray[np.uint8]


def verify_images(
    session: Session, model: Model, predict: Callable[[Image], ImagePrediction], *, images: Sequence[Image]
) -> tuple[dict[str, Any], Arrays]:
    """Compare what would be served for images with what the source program predicts.

    Each image is inferred alone, and in a batch with another one that a graph could confuse it with.

    Args:
        session: the exported model.
        model: as it is served.
        predict: the source program; an image, RGB `(height, width, 3)`, in.
        images: RGB.

    Returns:
        For parity.json, and the golden tensors of the first image.

    Raises:
        ExportError: a figure is over its tolerance.
    """
    task = image_task(model)
    golden: Arrays = {}
    comparisons = []
    for image in images:
        tensor, plan = task.preprocess(image, model, size_wh=(image.shape[1], image.shape[0]))
        alone, batch = session.infer(tensor[None]), session.infer(np.stack([tensor, np.zeros_like(tensor)]))
        golden = golden or {model.input.name: tensor[None], **alone}
        for outputs in (alone, batch):
            first = {name: output[0] for name, output in outputs.items()}
            served = task.postprocess(first, model, plan=plan, options=task.options())
            comparisons.append(served.compare(predict(image)))
    return _check(task, comparisons) | {"images": len(images)}, golden


def verify_rows(
    session: Session, model: Model, predict: Callable[[Any], RowsPrediction], *, rows: Any
) -> tuple[dict[str, Any], Arrays]:
    """Compare what would be served for rows with what the source program predicts; as `verify_images`."""
    task = rows_task(model)
    arrays = task.preprocess(rows, model)
    served = task.postprocess([session.infer(arrays)], model)
    golden = {name: array[:1] for name, array in arrays.items()}
    figures = _check(task, [served.compare(predict(rows))])
    return figures | {"rows": task.count(rows)}, {**golden, **session.infer(golden)}


def _check(task: Task, comparisons: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The largest figure of each name, with the tolerances."""
    largest = {name: max(comparison[name] for comparison in comparisons) for name in task.tolerances}
    for name, figure in largest.items():
        if not figure <= task.tolerances[name]:
            raise ExportError(
                f"{name}: the graph differs from the source by {figure:.4g}, expected at most {task.tolerances[name]}"
            )
    return {"tolerance": dict(task.tolerances), **largest}
