"""A stack that serves a bucket, for tests of the synchroniser: short intervals, a proxy for S3, and load."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtest.generator.load import Load, Plan
from tests.support.ports import find_free_ports, is_open
from tests.support.processes import ended
from tests.support.s3 import S3, FaultyProxy, start_s3
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack, wait_until
from tests.support.versions import Build, write

POLL_S = 0.5
SETTLE_S = 2.0
PREFIX = "demo"
REPOSITORY = f"s3://models/{PREFIX}"


@dataclass
class Synced:
    """A running stack with its bucket.

    Attributes:
        s3: the server, without the proxy.
        proxy: between server and synchroniser.
        stack: serves the bucket.
        mirror: of the synchroniser.
        folder: where versions are built.
    """

    s3: S3
    proxy: FaultyProxy
    stack: Stack
    mirror: Path
    folder: Path

    def status(self) -> dict[str, Any]:
        """The synchroniser's /status, through the transformer."""
        status: dict[str, Any] = self.stack.http.get("/status").raise_for_status().json()
        return status

    def version(self, model: str, number: int) -> dict[str, Any]:
        """The status of a version; empty while it is unknown."""
        found: dict[str, Any] = self.status()["models"].get(model, {"versions": {}})["versions"].get(str(number), {})
        return found

    def build(self, model: str, number: int, build: Build, *, padding_bytes: int = 0) -> Path:
        """Build a valid version; its folder."""
        # In a folder of its own: export uses the number after the highest.
        return write(self.folder / f"{model}-{number}", model, build, number=number, padding_bytes=padding_bytes)

    def upload(self, model: str, number: int, build: Build) -> None:
        """Upload a valid version, the manifest last."""
        self.s3.upload(self.build(model, number, build), f"{PREFIX}/{model}/{number}")

    def serve(self, model: str, number: int, build: Build) -> None:
        """Upload a version of the test's own model, and wait until it serves."""
        folder = self.build(model, number, build)
        self.s3.put(f"{PREFIX}/{model}/config.pbtxt", folder.parent / "config.pbtxt")
        self.s3.upload(folder, f"{PREFIX}/{model}/{number}")
        self.wait_for_serving(model, number)

    def wait_for_state(self, model: str, number: int, state: str) -> dict[str, Any]:
        """Wait until a version is in a state."""
        known: dict[str, Any] = self.wait_for(
            lambda: found if (found := self.version(model, number)).get("state") == state else None
        )
        return known

    def wait_for_serving(self, model: str, *numbers: int) -> None:
        """Wait until exactly these versions serve."""
        wanted = [str(number) for number in numbers]
        self.wait_for(lambda: self.status()["models"].get(model, {}).get("serving") == wanted)

    def wait_for(self, condition: Any, *, seconds: float = PATIENCE_S) -> Any:
        """Wait until a condition returns something true, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        log = self.stack.log.read_text(errors="replace")
        lines = [line for line in log.splitlines() if " synchroniser " in line]
        raise AssertionError("\n".join(["not in time; log of the synchroniser:", *lines[-25:], str(self.status())]))

    def wait_for_listings(self, count: int) -> None:
        """Wait for so many more listings of the repository."""
        until = self.metric("nereid_sync_listings_total", result="ok") + count
        self.wait_for(lambda: self.metric("nereid_sync_listings_total", result="ok") >= until)

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric of the synchroniser; 0 where it is missing."""
        pairs = [f'{key}="{value}"' for key, value in sorted(labels.items())]
        wanted = f"{name}{{{','.join(pairs)}}}" if pairs else name
        for line in httpx.get(f"{self.stack.sync}/metrics", trust_env=False).text.splitlines():
            if line.startswith(f"{wanted} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def part(self, word: str) -> psutil.Process:
        """A process of the stack, by a word in its command line."""
        return self.stack.part(word)

    def load(self, model: str, *, image: Path | None = None) -> Load:
        """Load with a row or an image over four connections."""
        http, grpc = (f"localhost:{port}" for port in (self.stack.http_port, self.stack.grpc_port))
        row = () if image else [1.0] * 4
        return Load(Plan(http, grpc, model, row=row, image_path=str(image or ""), pause_s=0.01))


@contextmanager
def start_synced(
    folder: Path, builds: Mapping[str, Build], *, finish: Callable[[Path], object] = id, **variables: str
) -> Iterator[Synced]:
    """Serve a bucket that holds version 1 of each build; `finish` gets each folder before it is uploaded."""
    with start_s3(folder / "s3.log") as s3, FaultyProxy(s3.url) as proxy:
        for model, build in builds.items():
            source = write(folder / "first", model, build, number=1)
            finish(source)
            s3.put(f"{PREFIX}/{model}/config.pbtxt", source.parent / "config.pbtxt")
            s3.upload(source, f"{PREFIX}/{model}/1")
        with start_stack(REPOSITORY, folder / "stack.log", variables=variables_for(s3, proxy) | variables) as stack:
            mirror = Path(variables.get("MIRROR", folder / "stack.log-mirror"))
            yield Synced(s3, proxy, stack, mirror, folder / "builds")


def variables_for(s3: S3, proxy: FaultyProxy) -> dict[str, str]:
    """Environment variables for a stack on this server."""
    return s3.environment(proxy.url) | {"POLL_S": str(POLL_S), "SETTLE_S": str(SETTLE_S)}


@contextmanager
def start_synchroniser(folder: Path, **variables: str) -> Iterator[int]:
    """Run the synchroniser alone on an empty repository; yields its port. The log is in the folder."""
    (port,) = find_free_ports(1)
    log = folder / "log"
    (folder / "models").mkdir()
    variables |= {
        "PREDICTOR_REPOSITORY": str(folder / "models"),
        "PREDICTOR_MIRROR": str(folder / "mirror"),
        "PREDICTOR_SYNC_PORT": str(port),
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "predictor", "synchroniser"]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=output, stderr=output)
    with ended(process, patience_s=PATIENCE_S):
        wait_until(lambda: is_open(port), log=log)
        yield port
    assert "Traceback" not in log.read_text()
