"""Programs in containers: their arguments, settings and ports."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

from pydantic import ValidationError
from pydantic_settings import BaseSettings
from starlette.applications import Starlette
from starlette.routing import Match

from predictor.settings import Settings as PredictorSettings
from predictor.synchroniser.server import create_app as create_synchroniser
from predictor.synchroniser.status import Status
from tests.manifests.environment import expand
from tests.manifests.rendering import ROOT
from transformer import cli as arguments
from transformer.rest.app import create_app as create_transformer
from transformer.services import Services
from transformer.settings import TransformerSettings
from worker.settings import Settings as WorkerSettings

TRITON, SYNCHRONISER, TRANSFORMER, WORKER = "tritonserver", "synchroniser", "transformer", "worker"
SETTINGS: dict[str, type[BaseSettings]] = {
    "PREDICTOR_": PredictorSettings,
    "TRANSFORMER_": TransformerSettings,
    "WORKER_": WorkerSettings,
}

_TIMEOUT_S = 60
_TRITON_EXIT_S = 30  # its default, which it logs at its start


@dataclass(frozen=True)
class Listener:
    """A port of a program.

    Attributes:
        app: the HTTP application; None: another protocol, or not ours.
        outside: whether it listens on the pod's address, not on loopback only.
    """

    port: int
    outside: bool
    app: Starlette | None = None


def program_of(container: Any) -> str | None:
    """The program of ours that a container runs; None for any other."""
    words = words_of(container, {})
    image = container.get("image", "").split("@")[0].rpartition("/")[2].split(":")[0]
    if TRITON in words:
        return TRITON
    if image == "predictor" and {"synchroniser", "sync"} & set(words):
        return SYNCHRONISER
    return image if image in {TRANSFORMER, WORKER} else None


def words_of(container: Any, variables: dict[str, str]) -> list[str]:
    """The complete command line, as the kubelet passes it to the container."""
    return [expand(str(word), variables) for word in (*container.get("command", []), *container.get("args", []))]


def argv_of(container: Any, variables: dict[str, str]) -> list[str]:
    """The arguments of the program, after `tritonserver`, `python -m predictor` or `python -m transformer`."""
    words = words_of(container, variables)
    for name in (TRITON, "predictor", "transformer"):
        if name in words:
            words = words[words.index(name) + 1 :]
    return words


def flags_of(argv: list[str]) -> dict[str, list[str]]:
    """Triton's `--name=value`, values by name."""
    flags: dict[str, list[str]] = {}
    for word in argv:
        name, _, value = word.partition("=")
        flags.setdefault(name, []).append(value)
    return flags


def argument_error(program: str, argv: list[str]) -> str:
    """A program's error about its arguments; empty where they are valid. Triton's are tested in test_triton.py."""
    if program == TRANSFORMER:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
            arguments.parse(argv)
        return errors.getvalue().strip()
    if program == SYNCHRONISER:
        return _predictor_error(tuple(argv))
    return ""


@cache
def _predictor_error(argv: tuple[str, ...]) -> str:
    # It reads its arguments, then its settings: an invalid one stops it before it starts anything.
    done = subprocess.run(
        [sys.executable, "-m", "predictor", *argv],
        cwd=ROOT,
        env=os.environ | {"PREDICTOR_SYNC_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return "" if "PREDICTOR_SYNC_PORT" in done.stderr else done.stderr.strip()


def settings_of(prefix: str, variables: Mapping[str, str]) -> BaseSettings:
    """Settings of a program from these variables.

    Raises:
        ValidationError: a value is invalid.
    """
    with mock.patch.dict(os.environ, dict(variables), clear=True):
        return SETTINGS[prefix]()


def transformer_settings(variables: Mapping[str, str]) -> TransformerSettings | None:
    """Settings of the transformer; None where one is invalid, which another rule reports."""
    try:
        settings = settings_of("TRANSFORMER_", variables)
    except ValidationError:
        return None
    assert isinstance(settings, TransformerSettings)
    return settings


def stop_faults(containers: Sequence[Any], grace_s: int, settings: TransformerSettings) -> Iterator[str]:
    """Faults of a grace period that is shorter than preStop, the requests and Triton together."""
    before_s = max((_sleep_s(each) for each in containers if program_of(each) == TRANSFORMER), default=0)
    # Without a preStop Triton does not wait for the transformer.
    waits = any("preStop" in each.get("lifecycle", {}) for each in containers if program_of(each) == TRITON)
    after_s = _TRITON_EXIT_S if waits else 0
    if grace_s <= before_s + settings.shutdown_timeout_s + after_s:
        parts = f"{before_s:g} s of preStop, {settings.shutdown_timeout_s} s for requests, {after_s} s for Triton"
        yield f"killed after {grace_s} s, may take {parts}"


def _sleep_s(container: Any) -> float:
    before = container.get("lifecycle", {}).get("preStop", {})
    command = before.get("exec", {}).get("command", [])
    return float(command[1]) if command[:1] == ["sleep"] else float(before.get("sleep", {}).get("seconds", 0))


def setting_faults(variables: Mapping[str, str]) -> Iterator[str]:
    """Variables that no program reads, and invalid values."""
    for prefix, settings in SETTINGS.items():
        own = {name: value for name, value in variables.items() if name.startswith(prefix)}
        known = {field.validation_alias or f"{prefix}{name.upper()}" for name, field in settings.model_fields.items()}
        yield from (f"{name}: no such setting" for name in sorted(set(own) - known))
        if not own:
            continue
        try:
            settings_of(prefix, own)
        except ValidationError as exc:
            for error in exc.errors():
                yield f"{prefix}{str(error['loc'][0]).upper()}={error['input']}: {error['msg']}"


def listeners_of(container: Any, variables: dict[str, str]) -> list[Listener]:
    """Ports of a container, by its arguments and settings."""
    argv, program = argv_of(container, variables), program_of(container)
    if program == TRANSFORMER:
        parsed = arguments.parse(argv)
        outside = not _is_loopback(variables.get("TRANSFORMER_HOST", "127.0.0.1"))
        return [Listener(parsed.http_port, outside, _transformer()), Listener(parsed.grpc_port, outside)]
    if program == SYNCHRONISER:
        port = int(variables.get("PREDICTOR_SYNC_PORT", "8003"))
        outside = not _is_loopback(variables.get("PREDICTOR_SYNC_ADDRESS", "127.0.0.1"))
        found = [Listener(port, outside, _synchroniser())]
        if relayed := variables.get("PREDICTOR_METRICS_RELAY_PORT"):
            found.append(Listener(int(relayed), outside))
        return found
    if program == WORKER:
        return [
            Listener(
                int(variables.get("WORKER_PORT", "8004")),
                not _is_loopback(variables.get("WORKER_ADDRESS", "127.0.0.1")),
            )
        ]
    if program == TRITON:
        flags = flags_of(argv)
        return [
            Listener(
                int(flags.get(f"--{kind}-port", [default])[-1]),
                not _is_loopback(flags.get(f"--{kind}-address", ["0.0.0.0"])[-1]),  # noqa: S104 - Triton's default
            )
            for kind, default in (("http", "8000"), ("grpc", "8001"), ("metrics", "8002"))
        ]
    return []


def has_route(app: Starlette, path: str) -> bool:
    """Whether the application has a route for `GET path`."""
    scope = {"type": "http", "method": "GET", "path": path.partition("?")[0], "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


def _is_loopback(address: str) -> bool:
    return address in {"localhost", "::1"} or address.startswith("127.")


@cache
def _transformer() -> Starlette:
    return create_transformer(Services(TransformerSettings(), None, None))  # type: ignore[arg-type]  # only for its routes


@cache
def _synchroniser() -> Starlette:
    return create_synchroniser(Status("s3://models"))
