"""Checks the settings with which a part of the local stack would end at its start, before any part is started.

Later, supervisor restarts a part that ends at once for half a minute before it gives up.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from environment.listening import join, listen
from environment.variables import describe_invalid
from predictor.settings import Settings
from registry.errors import Misconfigured
from registry.signatures.trust import read_trust
from stack.settings import StackError, StackSettings
from stack.variables import find_unknown, judge_profile
from transformer.settings import OpenTelemetrySettings, TransformerSettings


def check(settings: StackSettings) -> None:
    """Find what would fail later.

    Raises:
        StackError: a port that is in use, a missing repository, a Triton URL of another kind, an unknown variable.
    """
    if problem := next(find_unknown(os.environ), ""):
        raise StackError(problem)
    if settings.triton_url:
        if settings.triton_url.startswith(("http://", "https://")) or ":" not in settings.predictor_host:
            raise StackError(f"TRITON_URL: got {settings.triton_url}, expected host:port of Triton's gRPC (8001)")
        if policies := list(_policies(settings)):
            raise StackError(
                f"{policies[0][0]}: with TRITON_URL no synchroniser is started that verifies; next: leave one out"
            )
    else:
        check_repository(settings)
    check_ports(settings)


def check_repository(settings: StackSettings) -> None:
    """Find what is wrong with the repository, the profile and the mirror.

    Raises:
        StackError: the repository is no folder, has no such profile, or its mirror belongs to another stack.
    """
    if settings.folder is not None and not settings.folder.is_dir():
        raise StackError(
            f"REPOSITORY: {settings.folder} is no folder; expected one, or s3://bucket/prefix; next: make models, "
            "or make export MODEL=... WEIGHTS=... REPOSITORY=..."
        )
    for variable, path in _policies(settings):
        try:
            read_trust(path)
        except Misconfigured as exc:
            raise StackError(f"{variable}: {exc}") from exc
    if problem := judge_profile(settings.profile, settings.folder):
        raise StackError(problem)
    if is_locked(settings.mirror_folder / "lock"):
        raise StackError(
            f"MIRROR: {settings.mirror_folder} belongs to another stack that runs; next: stop it, or MIRROR=<a folder>"
        )


def _policies(settings: StackSettings) -> Iterator[tuple[str, Path]]:
    """The variables that say whose signatures are required: the stack's own, and the synchroniser's."""
    if settings.signed_by is not None:
        yield "SIGNED_BY", settings.signed_by
    if (given := os.environ.get("PREDICTOR_SIGNED_BY")) is not None:
        if not given:
            raise StackError("PREDICTOR_SIGNED_BY: set to nothing, expected a value, or no such variable")
        yield "PREDICTOR_SIGNED_BY", Path(given)


def check_ports(settings: StackSettings) -> None:
    """Listen on each port for a moment.

    Raises:
        StackError: that is not possible, or two ports are the same.
    """
    for variable, (address, port) in settings.ports.items():
        twins = [other for other, (_, its) in settings.ports.items() if its == port and other != variable]
        if twins:
            raise StackError(f"{variable}: port {port} is also {twins[0]}; expected another one for each")
        try:
            listen(address, port).close()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise StackError(f"{variable}: {join(address, port)} cannot be listened on: {exc.strerror}") from exc
            raise StackError(
                f"{variable}: port {port} is taken ({exc.strerror}); next: stop what listens there"
                f" (ss -ltnp 'sport = :{port}'), or {variable}=<another port>"
            ) from exc


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file, which need not exist."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


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
            yield from describe_invalid(kind, exc)
            continue
        if isinstance(settings, Settings):
            yield from _check_repository(settings.repository)
        if isinstance(settings, TransformerSettings) and settings.api_keys_file is not None:
            yield from _check_keys(settings.api_keys_file)


def _check_repository(address: str) -> Iterator[str]:
    from registry.storage.reading import open_storage  # noqa: PLC0415 - boto3, of a bucket, takes a while

    try:
        open_storage(address)
    except Misconfigured as exc:
        yield str(exc)


def _check_keys(path: Path) -> Iterator[str]:
    from transformer.auth import Keys, KeysError  # noqa: PLC0415 - only where there are any

    try:
        Keys(path)
    except KeysError as exc:
        yield f"TRANSFORMER_API_KEYS_FILE: {exc}"
