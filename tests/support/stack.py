"""The whole stack as `make serve` starts it, on free ports."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import psutil

from tests.support.error_codes import event_hooks
from tests.support.ports import find_free_ports
from tests.support.processes import ended

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")
# Timeout of waits that must succeed: it costs nothing in a passing test, and machines are slow and shared. Tests of a
# duration have their own limit.
PATIENCE_S = 120.0
# The log of a stack in tests is the output of all of its parts.
VERBOSE = {"VERBOSE": "1"}


@dataclass(frozen=True)
class Stack:
    """A stack that is ready.

    Attributes:
        http: client of the transformer.
        http_port, grpc_port: of the transformer.
        triton_http_port: Triton's own HTTP port.
        triton_grpc_port: Triton's own gRPC port.
        triton_metrics_port: of its metrics.
        sync: URL of the synchroniser.
        process: supervisor, the parent of every part.
        log: output of all parts.
    """

    http: httpx.Client
    http_port: int
    grpc_port: int
    triton_http_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    sync: str
    process: subprocess.Popen[bytes]
    log: Path

    def part(self, word: str) -> psutil.Process:
        """The process with this word in its command line."""
        for child in psutil.Process(self.process.pid).children():
            # Orphans of a killed Triton are children too; a part leads its own process group.
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(child.pid) == child.pid and any(word in argument for argument in child.cmdline()):
                    return child
        raise LookupError(word)


def free_ports() -> dict[str, str]:
    """Variables with free ports for a stack."""
    return {name: str(port) for name, port in zip(PORTS, find_free_ports(len(PORTS)), strict=True)}


@contextmanager
def start_stack(
    repository: Path | str,
    log: Path,
    *,
    variables: Mapping[str, str] | None = None,
    program: Sequence[str] = ("stack",),
) -> Iterator[Stack]:
    """Serve a repository until the block ends.

    Args:
        repository: a folder, or the address of a bucket.
        log: file for the output of all parts.
        variables: of its environment.
        program: the module that runs it, and its arguments.
    """
    ports = free_ports() | {name: port for name, port in (variables or {}).items() if name in PORTS}
    ports["SAGEMAKER_BIND_TO_PORT"] = ports["HTTP_PORT"]
    url = f"http://127.0.0.1:{ports['HTTP_PORT']}"
    # Under `auto` a model might be swapped while a test looks at it.
    mirror = {"MIRROR": str(log.with_name(f"{log.name}-mirror")), "PROFILE": "fp32"}
    environment = os.environ | VERBOSE | {"REPOSITORY": str(repository), **mirror, **ports, **(variables or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *program], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    with (
        ended(process, patience_s=PATIENCE_S),
        httpx.Client(base_url=url, trust_env=False, timeout=60, event_hooks=event_hooks(url)) as client,
    ):
        wait_until(lambda: is_ready(client, process, log), log=log)
        http, grpc, triton_http, triton_grpc, metrics, sync = (int(ports[name]) for name in PORTS)
        status = f"http://127.0.0.1:{sync}"
        yield Stack(client, http, grpc, triton_http, triton_grpc, metrics, status, process, log)


@contextmanager
def start_shipped(folder: Path, *models: str, variables: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Serve some of the shipped models until the block ends; logs and mirror are in the folder too."""
    for model in models:
        shutil.copytree(ROOT / "model_repository" / model, folder / "repository" / model)
    with start_stack(folder / "repository", folder / "log", variables=variables) as stack:
        yield stack


def run_program(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `stack` or `stack.demo` to its end; a stack with a mirror of its own, for another test may run one."""
    with tempfile.TemporaryDirectory() as folder:
        mirror = {"MIRROR": folder} if name == "stack" else {}  # the demo's is its own
        return subprocess.run(
            [sys.executable, "-m", name],
            cwd=ROOT,
            env=os.environ | mirror | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


def stop_while_models_load(program: str) -> list[psutil.Process]:
    """Interrupt `stack` or `stack.demo` while Triton loads its models; kill what outlives it by a second.

    Returns:
        The processes that outlived it.
    """
    mark = uuid4().hex
    mirror = tempfile.TemporaryDirectory()
    marks = free_ports() | VERBOSE | {"LC_MARK": mark, "MIRROR": mirror.name}  # a variable that every part inherits

    def started() -> list[psutil.Process]:
        processes = psutil.process_iter(["name", "environ"])
        return [process for process in processes if (process.info["environ"] or {}).get("LC_MARK") == mark]

    parent = subprocess.Popen(
        [sys.executable, "-m", program],
        cwd=ROOT,
        env=os.environ | marks,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not any(process.info["name"] == "triton_python_backend_stub" for process in started()):
        assert time.monotonic() < deadline, f"{program} loaded no model within {PATIENCE_S} s"
        time.sleep(0.05)
    # The first model's process runs. At about this time such processes were left behind most often.
    time.sleep(1.2)
    parent.send_signal(signal.SIGINT)
    parent.wait(PATIENCE_S)
    # Without a parent they end by themselves, some only after seconds.
    _, alive = psutil.wait_procs(started(), timeout=1)
    for process in alive:
        process.kill()
    mirror.cleanup()
    return alive


def is_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the transformer reports that it is ready."""
    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    try:
        return client.get("/v2/health/ready").is_success
    except httpx.TransportError:
        return False


def wait_until_announced(log: Path) -> None:
    """Wait until the stack has printed what it serves and how to stop it: its last lines, once it is ready."""
    wait_until(lambda: "stop:  Ctrl-C" in log.read_text(errors="replace"), log=log)


def wait_until(condition: Callable[[], bool], *, log: Path, seconds: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail with the log when it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s:\n{log.read_text(errors='replace')[-3000:]}")
