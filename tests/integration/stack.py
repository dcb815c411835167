"""The whole stack as `make serve` starts it, on free ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.triton import find_free_ports

ROOT = Path(__file__).resolve().parents[2]
START_S = 90.0
STOP_S = 40.0


@dataclass(frozen=True)
class Stack:
    """A stack that is ready.

    Attributes:
        http: client of the transformer.
        http_port, grpc_port: of the transformer.
        triton_http_port: Triton's own HTTP port.
        triton_grpc_port: Triton's own gRPC port.
        process: supervisor, the parent of every part.
        log: what all of them print.
    """

    http: httpx.Client
    http_port: int
    grpc_port: int
    triton_http_port: int
    triton_grpc_port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def start_stack(repository: Path, log: Path, *, variables: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Serve a repository until the block ends."""
    http_port, grpc_port, triton_http, triton_grpc, triton_metrics = find_free_ports(5)
    environment = os.environ | {
        "REPOSITORY": str(repository),
        "HTTP_PORT": str(http_port),
        "GRPC_PORT": str(grpc_port),
        "TRITON_HTTP_PORT": str(triton_http),
        "TRITON_GRPC_PORT": str(triton_grpc),
        "TRITON_METRICS_PORT": str(triton_metrics),
        **(variables or {}),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "serve.py"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", trust_env=False, timeout=60) as client:
            wait_until(lambda: is_ready(client, process, log), seconds=START_S, log=log)
            yield Stack(client, http_port, grpc_port, triton_http, triton_grpc, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        finally:
            process.kill()


def run_program(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `serve.py` or `demo.py` to its end."""
    return subprocess.run(
        [sys.executable, name],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def is_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the transformer says that it is ready."""
    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    try:
        return client.get("/v2/health/ready").is_success
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], *, seconds: float, log: Path) -> None:
    """Return once the condition holds; fail with the log when it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s:\n{log.read_text(errors='replace')[-3000:]}")
