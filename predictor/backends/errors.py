"""The errors of a model that a backend does not load."""

import json
from collections.abc import Mapping
from typing import Any

from predictor.triton_conventions import INCOMPLETE_CONFIG


class ModelRejectedError(ValueError):
    """The C++ backend of that name would reject this model too; Triton reports the message and serves the others."""


class IncompleteConfigError(ModelRejectedError):
    """The config lacks inputs or outputs, and Triton completes none; the message has them, for the synchroniser."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Name the fields of the ModelConfig as they should be."""
        super().__init__(f"{INCOMPLETE_CONFIG}{json.dumps(fields)}")
