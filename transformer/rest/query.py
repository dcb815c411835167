"""The query of an inference request."""

from typing import Any

from fastapi import Request

from transformer.dataplane.parameters import NAMES
from transformer.errors import InvalidRequest


def query_parameters(request: Request) -> dict[str, Any]:
    """Parameters of a detector in the query, as texts; `classes` as the list of all that were given.

    Raises:
        InvalidRequest: another parameter than `classes` is repeated.
    """
    parameters: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name in parameters and name != "classes":
            raise InvalidRequest(f"parameter {name!r}: got it twice, expected once; known are {', '.join(NAMES)}")
        parameters.setdefault(name, []).append(value)
    return {name: values if name == "classes" else values[0] for name, values in parameters.items()}
