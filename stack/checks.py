"""Checks what would end a part of the local stack at its start, before any is started.

Once they run, a part that ends at once is tried again for half a minute before it is given up.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from predictor.settings import Settings
from registry.errors import Misconfigured
from transformer.settings import OpenTelemetrySettings, TransformerSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def find_problems(*, with_triton: bool) -> Iterator[str]:
    """What is wrong in the environment of this process for the parts that read it.

    Args:
        with_triton: whether Triton and the synchroniser are started too.
    """
    kinds: list[type[BaseSettings]] = [TransformerSettings, OpenTelemetrySettings]
    kinds += [Settings] if with_triton else []
    for kind in kinds:
        try:
            settings = kind()
        except SettingsError as exc:  # invalid JSON
            yield f"{kind.model_config['env_prefix']!s}...: {exc}: {exc.__cause__}"
            continue
        except ValidationError as exc:
            yield from (_describe(str(kind.model_config["env_prefix"]), error) for error in exc.errors())
            continue
        if isinstance(settings, Settings):
            yield from _refuse_repository(settings.repository)
        if isinstance(settings, TransformerSettings) and settings.api_keys_file is not None:
            yield from _refuse_keys(settings.api_keys_file)


def _describe(prefix: str, error: "ErrorDetails") -> str:
    name = "_".join(str(part) for part in error["loc"]).upper()
    return f"{name if name == 'LOG_FORMAT' else prefix + name}: got {error['input']!r}, expected: {error['msg']}"


def _refuse_repository(address: str) -> Iterator[str]:
    from registry.storage.reading import open_storage  # noqa: PLC0415 - boto3 takes a while

    try:
        open_storage(address)
    except Misconfigured as exc:
        yield str(exc)


def _refuse_keys(path: Path) -> Iterator[str]:
    from transformer.auth import Keys, KeysError  # noqa: PLC0415 - only where there are any

    try:
        Keys(path)
    except KeysError as exc:
        yield f"TRANSFORMER_API_KEYS_FILE: {exc}"
