"""The environment variables of a program's settings: their names, and what is wrong with their values."""

import os
from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings


def variable(settings: type[BaseSettings], name: str) -> str:
    """The environment variable that sets a field."""
    alias = settings.model_fields[name].validation_alias
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{name.upper()}")


def reject_empty(name: str) -> None:
    """Reject a variable that is set to nothing, where that would leave out what it is for.

    Args:
        name: of the variable.

    Raises:
        PydanticCustomError: it is set, and empty.
    """
    if os.environ.get(name) == "":
        raise PydanticCustomError("empty", "a value, or no such variable: it is set to nothing")


def describe_invalid(settings: type[BaseSettings], error: ValidationError) -> Iterator[str]:
    """What is wrong with each variable: what was got, and what is expected."""
    for problem in error.errors():
        field = str(problem["loc"][0])  # or the field's alias, which is the variable
        name = variable(settings, field) if field in settings.model_fields else field
        if problem["type"] == "missing":  # its input is that of all fields
            yield f"{name} is not set; expected: {settings.model_fields[field].description}"
        else:
            yield f"{name}: got {problem['input']!r}, expected: {problem['msg']}"
