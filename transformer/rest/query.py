"""The query of an inference request."""

from typing import Any

from fastapi import Request

from transformer.errors import InvalidRequest
from transformer.tasks import parameters as task_parameters


def query_parameters(request: Request) -> dict[str, Any]:
    """Parameters of a task in the query, as texts; a list of all values of those that may be repeated.

    Raises:
        InvalidRequest: another parameter is repeated.
    """
    known = task_parameters()
    parameters: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in known and known[name].repeats:
            parameters.setdefault(name, []).append(value)
        elif name in parameters:
            raise InvalidRequest(f"parameter {name!r}: got it twice, expected once; known are {', '.join(known)}")
        else:
            parameters[name] = value
    return parameters
