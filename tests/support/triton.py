"""The embedded Triton on free ports."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import find_free_ports
from tests.support.processes import ended
from tests.support.stack import PATIENCE_S

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Triton:
    """A running server.

    Attributes:
        process: `tritonserver` itself.
        log: its output.
    """

    http_port: int
    grpc_port: int
    metrics_port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def start_triton(
    repository: Path, log: Path, *, ports: Sequence[int] = (), prefix: Sequence[str] = ()
) -> Iterator[Triton]:
    """Serve a repository until the block ends; when it begins, every model is loaded or has failed to load.

    Args:
        repository: of models.
        log: file for its output.
        ports: HTTP, gRPC and metrics; free ones by default.
        prefix: command that starts it, such as `setpriv` with its options.
    """
    http_port, grpc_port, metrics_port = ports or find_free_ports(3)
    env = os.environ | {
        "PREDICTOR_REPOSITORY": str(repository),
        "PREDICTOR_HTTP_PORT": str(http_port),
        "PREDICTOR_GRPC_PORT": str(grpc_port),
        "PREDICTOR_METRICS_PORT": str(metrics_port),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "predictor", "triton"], cwd=PROJECT, env=env, stdout=output, stderr=output
        )
    with ended(process, patience_s=PATIENCE_S):
        _wait_until_live(process, http_port, log)
        yield Triton(http_port, grpc_port, metrics_port, process, log)


def _wait_until_live(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the HTTP port responds: Triton opens it once the models are loaded."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v2/health/live").is_success:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"Triton did not respond within {PATIENCE_S} s:\n{log.read_text()}")
