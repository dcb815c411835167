"""`make demo`: start the stack, send each shipped model a request over HTTP, show the responses, stop everything."""

import contextlib
import fcntl
import itertools
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from environment import api_key
from environment.arguments import Parser
from environment.listening import find_free_ports
from environment.project import ROOT, in_project, shown
from stack.logs import log_of, read_last_lines
from stack.parts import compose_environment, paths_from_root, visible
from stack.settings import StackSettings, describe
from stack.variables import find_unknown, judge_profile

PICTURES = ROOT / "loadtest" / "pictures"
OUTPUT = ROOT / "output"
START_S = 60
STOP_S = 30
# An image for each task; of `digit-finder` and `digits` more is shown.
ANNOTATED = {
    "digit-finder": "digits.jpg",
    "digit-outlines": "digits.jpg",
    "digit-strokes": "digits.jpg",
    "tilted-digits": "tilted-digits.jpg",
    "digit-classes": "middle-two.jpg",
}
_STAGES = ("queue", "decode", "preprocess", "infer", "postprocess", "total")


class DemoError(Exception):
    """The demo failed; the message says why and where to look."""


def main() -> int:
    """Run the demo; 0 if every model returned predictions."""
    Parser(prog="nereid demo", description="Serve the shipped models, send each a request, and stop.").parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    try:
        with (
            own_folder() as logs,
            tempfile.TemporaryDirectory(prefix="nereid-") as mirror,
            stack(console, Path(mirror), logs) as url,
            httpx.Client(base_url=url, headers=api_key.headers(), trust_env=False, timeout=30) as client,
        ):
            show(console, send_all(client, logs))
            for model, image_name in ANNOTATED.items():
                annotate(console, client, model, image_name)
        console.print("stopped: the transformer, the synchroniser, Triton")
    except (DemoError, api_key.AccessError, httpx.HTTPError) as exc:
        console.print(f"[bold red]error:[/] {escape(str(exc))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for logs: `output/demo`, or the next one while another demo writes there."""
    for number in itertools.count(1):
        folder = OUTPUT / ("demo" if number == 1 else f"demo-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder
            return


@contextlib.contextmanager
def stack(console: Console, mirror: Path, logs: Path) -> Iterator[str]:
    """Start the three parts of `make serve` on free ports; they are stopped at the end of the block.

    Args:
        console: where progress is shown.
        mirror: an empty folder: that of `make serve` has one user at a time.
        logs: a folder that no other demo writes to.

    Yields:
        The URL of the transformer, once all are ready.

    Without supervisor, which takes seconds to start and stop: no part needs to be started again here.
    """
    settings = choose_settings(mirror)
    parts = start_parts(settings, logs)
    try:
        with console.status("starting Triton, the synchroniser and the transformer ..."):
            seconds = wait_until_ready(parts, settings.url, logs)
        console.print(f"the stack is ready after {seconds:.1f} s at {settings.url} (logs: {shown(logs)})")
        yield settings.url
    finally:
        with console.status("stopping ..."):
            for part in parts.values():  # no request is in progress, so the order does not matter
                part.terminate()
            for name in reversed(parts):
                wait_until_ended(name, parts[name])


def choose_settings(mirror: Path) -> StackSettings:
    """The shipped models, on ports that are free.

    Args:
        mirror: as for `stack`.

    Raises:
        DemoError: a variable of the environment is unknown or invalid.
    """
    names = ("http_port", "grpc_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port", "sync_port")
    ports = dict(zip(names, find_free_ports(len(names)), strict=True))
    # Whatever the variables of make are.
    own = {"repository": str(in_project("model_repository")), "mirror": None, "triton_url": ""}
    try:
        settings = StackSettings.model_validate(ports | own)
    except ValidationError as exc:
        raise DemoError(describe(exc, {})) from exc
    if problem := next(find_unknown(os.environ), "") or judge_profile(settings.profile, settings.folder):
        raise DemoError(problem)
    return settings.model_copy(update={"mirror": mirror})


def start_parts(settings: StackSettings, logs: Path) -> dict[str, subprocess.Popen[bytes]]:
    """Start the three parts, each of which has a log; by what the user calls them."""
    environ = os.environ | compose_environment(settings, state=str(OUTPUT)) | paths_from_root(os.environ)
    ports = [f"--http_port={settings.http_port}", f"--grpc_port={settings.grpc_port}"]
    programs = {
        "Triton": ("triton", "predictor", "triton"),
        "synchroniser": ("synchroniser", "predictor", "synchroniser"),
        "transformer": ("transformer", "transformer", *ports, f"--predictor_host={settings.predictor_host}"),
    }
    parts = {}
    for name, (part, *words) in programs.items():
        with log_of(part, logs).open("wb") as log:
            parts[name] = subprocess.Popen(
                [*shlex.split(environ["DIE_WITH_PARENT"]), sys.executable, "-m", *words],
                cwd=ROOT, env=visible(part, environ), stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for this process
            )  # fmt: skip
    return parts


def wait_until_ended(name: str, part: subprocess.Popen[bytes]) -> None:
    """Wait until a part has ended that was sent SIGTERM.

    Raises:
        DemoError: it did not end in time.
    """
    try:
        part.wait(STOP_S)
    except subprocess.TimeoutExpired:
        part.kill()
        raise DemoError(f"{name} did not stop within {STOP_S} s and was killed") from None
    finally:
        # A Triton that is stopped while it loads leaves its stubs, in its process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(part.pid, signal.SIGKILL)


def wait_until_ready(parts: Mapping[str, subprocess.Popen[bytes]], url: str, logs: Path) -> float:
    """Seconds until the stack was ready.

    Raises:
        DemoError: a part ended, or they were not ready in time.
        AccessError: they require a key, or another one.
    """
    started = time.monotonic()
    while time.monotonic() - started < START_S:
        for name, part in parts.items():
            if part.poll() is not None:
                raise DemoError(f"{name} ended with status {part.returncode}:\n{last_words(logs, name)}")
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(f"{url}/v2/health/ready", headers=api_key.headers(), trust_env=False)
            api_key.check(url, response.status_code, response.text)
            if response.is_success:
                return time.monotonic() - started
        time.sleep(0.05)
    raise DemoError(f"the stack was not ready within {START_S} s:\n{last_words(logs, *parts)}")


def send_all(client: httpx.Client, logs: Path) -> list[tuple[str, dict[str, Any]]]:
    """What was sent, and the JSON of the response."""
    responses = []
    # The first request to a model is slower, for it allocates what later ones use: sent twice, shown once.
    for model, name in (*ANNOTATED.items(), ("digit-finder", "digits-on-paper.jpg"), ("digits", "seven.png")):
        files = {"image": (PICTURES / name).read_bytes()}
        client.post(f"/predict/{model}", files=files)
        responses.append((name, read(client.post(f"/predict/{model}", files=files), logs)))
    row = {"sepal length (cm)": 6.3, "sepal width (cm)": 3.3, "petal length (cm)": 6.0, "petal width (cm)": 2.5}
    client.post("/predict/iris", json=row)
    responses.append(("a row: 6.3, 3.3, 6.0, 2.5", read(client.post("/predict/iris", json=row), logs)))
    return responses


def read(response: httpx.Response, logs: Path) -> dict[str, Any]:
    """The JSON of a response.

    Raises:
        DemoError: the response is an error.
    """
    api_key.check(str(response.url), response.status_code, response.text)
    if response.is_error:
        raise DemoError(f"{response.url}: {response.status_code} {response.text}\n{last_words(logs, 'transformer')}")
    document: dict[str, Any] = response.json()
    return document


def show(console: Console, responses: list[tuple[str, dict[str, Any]]]) -> None:
    """A table of every prediction, and one of the milliseconds."""
    table = Table(
        "request", "model", "label", "confidence", Column("where, in pixels", no_wrap=True), title="Responses"
    )
    times = Table("request", "model", *_STAGES, title="Milliseconds in each stage")
    for request, document in responses:
        name = document["model"]["name"]
        model = f"{name} {document['model']['version']}"
        predictions = document["predictions"]
        shown = predictions if name == "digit-finder" else predictions[:1]
        for index, prediction in enumerate(shown):
            confidence = f"{prediction['confidence']:.3f}"
            table.add_row(
                request if not index else "", model if not index else "", prediction["class"], confidence,
                find_place(prediction),
            )  # fmt: skip
        if not predictions:
            table.add_row(request, model, "nothing found", "", "")
        table.add_section()
        times.add_row(request, name, *(f"{document['timing_ms'][stage]:.1f}" for stage in _STAGES))
    console.print(table)
    console.print(times)


def find_place(prediction: Mapping[str, Any]) -> str:
    """Where an object is: its keypoints, its outline, its turned box, or its box; empty for a class."""
    if keypoints := prediction.get("keypoints"):
        return ", ".join(f"{point['class']} {point['x']:.0f}, {point['y']:.0f}" for point in keypoints)
    box = prediction.get("box")
    place = f"{box['x1']:.0f}, {box['y1']:.0f} - {box['x2']:.0f}, {box['y2']:.0f}" if box else ""
    if rotated := prediction.get("rotated_box"):
        return f"{place}, turned by {math.degrees(rotated['rotation']):.0f}°"
    return f"{place}, outline of {len(prediction['points'])} points" if "points" in prediction else place


def annotate(console: Console, client: httpx.Client, model: str, image_name: str) -> None:
    """Request an image with what a model finds drawn on it, and write it to a file."""
    response = client.post(
        f"/predict/{model}", files={"image": (PICTURES / image_name).read_bytes()}, headers={"Accept": "image/png"}
    )
    if response.is_error:
        raise DemoError(f"{response.url}: {response.status_code} {response.text}")
    path = OUTPUT / f"{model}.png"
    new = path.with_name(f".{path.name}.{os.getpid()}")  # another demo may write it too
    new.write_bytes(response.content)
    new.replace(path)
    console.print(f"annotated image: [bold]{shown(path)}[/]")


def last_words(logs: Path, *names: str) -> str:
    """The end of the log of each of these parts, as the user calls them."""
    files = [log_of(name.lower(), logs) for name in names]
    return "\n".join(line for log in files for line in (f"{shown(log)}:", *read_last_lines(log)))


if __name__ == "__main__":
    sys.exit(main())
