"""Prints where the stack is reached and what it serves, as soon as it is ready; a program of stack/supervisord.conf.

A process of its own: gRPC's threads do not survive the forks that start the parts.
"""

import json
import os
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from environment import api_key
from environment.error_codes import ErrorCode, read_code
from environment.example_request import find_image, make_row
from environment.listening import join, within_reach
from environment.project import shown
from stack.logs import log_of
from stack.settings import StackSettings

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

# The parts start while this waits: httpx and rich are imported once they have.
_PATIENCE_S = 10
_POLL_S = 0.1
_KEY_NEXT = "next: NEREID_API_KEY=<one of make key> make serve"
_HIDDEN = f"a model (/status says which to a client with an API key; {_KEY_NEXT})"
_KEY_REQUIRED = {ErrorCode.MISSING_API_KEY, ErrorCode.UNKNOWN_API_KEY}
_LOCAL = {"127.0.0.1", "0.0.0.0", "::"}  # noqa: S104 - what localhost leads to


def main() -> None:
    """Wait, print, and end."""
    settings = StackSettings()
    if caller := os.environ.get("CALLER_FOLDER"):
        os.chdir(caller)  # paths are shown as the user would type them
    announce(settings)


def announce(settings: StackSettings) -> None:
    """Print what the stack serves once it is ready, and until then what it waits for."""
    started = time.monotonic()
    host = within_reach(settings.transformer_host)
    while not accepts(host, settings.http_port):
        time.sleep(0.1)

    import httpx  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    waiting_for = ""
    with httpx.Client(base_url=settings.url, headers=api_key.headers(), trust_env=False, timeout=30) as transformer:
        while True:
            with suppress(httpx.HTTPError):
                transformer.get("/v2/health/ready").raise_for_status()
                if waiting_for != _HIDDEN:
                    wait_until_loaded(transformer)
                console.print(*describe_stack(settings, transformer), sep="\n", soft_wrap=True)
                return
            # A server with API keys would log each request without one.
            if waiting_for != _HIDDEN and time.monotonic() - started > _PATIENCE_S:
                waiting_for = print_waiting(console, settings, transformer, before=waiting_for)
            time.sleep(_POLL_S)


def wait_until_loaded(transformer: "httpx.Client") -> None:
    """Wait for models that are still loading, so that the list has them: a stack is ready before /status says so."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        response = transformer.get("/status")
        if response.is_error or not any(model["state"] == "loading" for model in response.json()["models"].values()):
            return  # not known to this client, or none
        time.sleep(_POLL_S)


def print_waiting(console: "Console", settings: StackSettings, transformer: "httpx.Client", *, before: str) -> str:
    """Print what keeps the stack from being ready, unless it is the same as before; returns it."""
    import httpx  # noqa: PLC0415 - see above
    from rich.markup import escape  # noqa: PLC0415

    waiting_for = find_waiting_for(settings, transformer)
    if waiting_for != before:
        console.print(f"not ready yet, waiting for {escape(waiting_for)}", soft_wrap=True)
        with suppress(httpx.HTTPError):
            for line in iterate_rejected(transformer) if waiting_for != _HIDDEN else ():
                console.print(f"  [red]{escape(line)}[/]", soft_wrap=True)
    return waiting_for


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    with suppress(OSError), socket.create_connection((host, port)):
        return True
    return False


def find_waiting_for(settings: StackSettings, transformer: "httpx.Client") -> str:
    """The reason why the stack is not ready yet."""
    import httpx  # noqa: PLC0415 - see above

    try:
        response = transformer.get("/status")
        if read_code(response.text) in _KEY_REQUIRED:
            return _HIDDEN
        status = response.raise_for_status().json()
    except httpx.HTTPError:
        return f"Triton at {settings.predictor_host}" if settings.triton_url else "the parts to start"
    error = status["listing"]["error"]
    return status["waiting_for"] + (f" ({error})" if error else "") if status["waiting_for"] else "Triton"


def describe_stack(settings: StackSettings, transformer: "httpx.Client") -> list[str]:
    """Lines with the stack's addresses, the models that it serves and those that were rejected, in rich's markup.

    Raises:
        httpx.HTTPError: it is not ready.
    """
    from rich.markup import escape  # noqa: PLC0415 - see above

    name = "localhost" if settings.transformer_host in _LOCAL else settings.transformer_host
    url, grpc = f"http://{join(name, settings.http_port)}", join(name, settings.grpc_port)
    lines = ["", f"[bold green]ready[/]  {escape(url)} in a browser  {escape(url)}/docs  gRPC {escape(grpc)}"]
    models, example = describe_models(settings, transformer, url)
    logs = f"log:   {escape(describe_logs(settings))}"
    return [*lines, *models, example, *([] if settings.verbose else [logs]), "stop:  Ctrl-C", ""]


def describe_models(settings: StackSettings, transformer: "httpx.Client", url: str) -> tuple[list[str], str]:
    """A line for each model, and one with a request to try.

    Raises:
        httpx.HTTPError: the transformer is not ready.
    """
    from rich.markup import escape  # noqa: PLC0415 - see above

    listed = transformer.get("/v2/models")
    if (code := read_code(listed.text)) in _KEY_REQUIRED:
        line = f"  the models are listed for clients with an API key; {_KEY_NEXT}"
        return [line], f"try:   curl -H 'X-API-Key: <key>' {url}/v2/models"
    if code is ErrorCode.MODELS_NOT_LISTED:
        line = "  the models are not listed: this Triton lists its models for a secret only"
        return [line], f"try:   curl {url}/v2/models/<model>"
    lines: list[str] = []
    examples: dict[bool, str] = {}  # the first of a detector, which says most, and the first of another task
    for model in listed.raise_for_status().json()["models"]:
        response = transformer.get(f"/v2/models/{model}")
        metadata = response.json()
        if response.is_error:
            lines.append(f"  [red]{model}[/] {escape(metadata['error'])}")
            continue
        lines.append(describe_model(metadata, transformer))
        if task := metadata["parameters"]["task"]:
            key = '-H "X-API-Key: $NEREID_API_KEY" ' if settings.nereid_api_key else ""
            examples.setdefault(task == "detect", f"curl {key}{example_body(metadata)} {url}/predict/{model}")
    if not settings.triton_url:
        lines += [f"  [red]{escape(line)}[/]" for line in iterate_rejected(transformer)]
    example = examples.get(True, examples.get(False))
    return lines, f"try:   {escape(example)}" if example else "try:   no model here has a task; docs/api.md: v2"


def describe_model(metadata: Mapping[str, Any], transformer: "httpx.Client") -> str:
    """Name, versions, task and profile of a model."""
    config = transformer.get(f"/v2/models/{metadata['name']}/config").raise_for_status().json()
    profile = config["parameters"].get("profile")
    how = f" ({profile['string_value']})" if profile else ""
    task = metadata["parameters"]["task"] or "tensors: its config names no task"
    return f"  [bold]{metadata['name']}[/] {', '.join(metadata['versions'])} {task}{how}"


def describe_logs(settings: StackSettings) -> str:
    """How to follow what the parts log."""
    folder = settings.log_folder.absolute()
    others = "" if settings.triton_url else "; beside it triton.log and synchroniser.log"
    return f"tail -f {shown(log_of('transformer', folder))}  (each request{others}; --verbose: all of it here)"


def iterate_rejected(transformer: "httpx.Client") -> Iterator[str]:
    """A line for each version or model that should serve and does not.

    Raises:
        httpx.HTTPError: the transformer is not ready.
    """
    for name, model in transformer.get("/status").raise_for_status().json()["models"].items():
        if model["error"]:
            yield f"{name}: {model['error']}"
        for number, version in model["versions"].items():
            if version["state"] in {"refused", "incomplete"}:
                yield f"{name} {number} {version['state']}: {version['reason']}"


def example_body(metadata: Mapping[str, Any]) -> str:
    """Arguments of curl for a request that this model accepts."""
    if image := find_image(metadata):
        return f"-F image=@{image}"
    return f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(make_row(metadata)))}"


if __name__ == "__main__":
    main()
