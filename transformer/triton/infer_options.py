"""What a request says beside its items."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformer.admission import Deadline


@dataclass(frozen=True)
class Asked:
    """What a request says beside its items.

    Attributes:
        model: its name.
        version: a certain one, or "" for what serves.
        parameters: of the task, see `parameters.py`; of Triton where the items are a model's own tensors.
        scheduling: what Triton's scheduler is told: `priority`, and `timeout` in microseconds.
        deadline: when the answer is of no use any more.
    """

    model: str
    deadline: Deadline
    version: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scheduling: Mapping[str, int] = field(default_factory=dict)
