"""Inference options: everything in a request except its model and its payload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer.admission import Deadline


@dataclass(frozen=True)
class InferOptions:
    """Options of one request.

    Attributes:
        deadline: when the response is of no use any more.
        version: the requested version of the model, or "" for the one that serves.
        parameters: of the task; of Triton where the payload is the model's own tensors.
        scheduling: for Triton's scheduler: `priority`, and `timeout` in microseconds.
    """

    deadline: Deadline
    version: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scheduling: Mapping[str, int] = field(default_factory=dict)
