"""Names of classes in responses, and the rounding of scores."""

from typing import Any

from transformer.triton.model import Model


def class_name(model: Model, class_id: int) -> str:
    """Name of a class; its index where the model names none."""
    return model.names.get(class_id, str(class_id))


def round_score(score: Any) -> float:
    """A score as JSON has it."""
    return round(float(score), 6)
