"""What the second model of a request adds to a response of the v2 protocol."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from transformer.dataplane.results import ImageResult, ObjectClasses
from transformer.tasks.objects import NO_CLASS, pad_rows
from transformer.tasks.task import Write
from transformer.triton.model import TensorMetadata

# Best class of each object and its score, padded as those of the first model.
OUTPUTS = (TensorMetadata("then_class_ids", "INT32", (-1, -1)), TensorMetadata("then_scores", "FP32", (-1, -1)))


def to_tensors(results: Sequence[ImageResult]) -> Mapping[str, Write]:
    """The tensors of `OUTPUTS`, over all images of a request; none where it names no second model."""
    steps = [result.then for result in results if result.then]
    if not steps:
        return {}
    class_ids, scores = (output.name for output in OUTPUTS)
    return {
        class_ids: partial(_pad, steps, "class_id", np.int32, NO_CLASS),
        scores: partial(_pad, steps, "score", np.float32, 0),
    }


def to_parameters(results: Sequence[ImageResult]) -> Mapping[str, str]:
    """Name and version of the second model, as parameters of the response."""
    then = results[0].then
    return {"then_model_name": then.model.name, "then_model_version": then.model.version} if then else {}


def _pad(steps: Sequence[ObjectClasses], field: str, dtype: Any, fill: int) -> Any:
    """`(images, most objects)`; an object without pixels has what pads the rest."""
    rows = [np.array([getattr(each, field, fill) for each in step.classes], dtype) for step in steps]
    return pad_rows(rows, dtype, (), fill)
