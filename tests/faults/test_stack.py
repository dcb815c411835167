"""The local stack as processes: restart, giving up, the order of stopping, nothing left behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_of
from tests.support.ports import is_open
from tests.support.processes import ended, words_of
from tests.support.stack import (
    PATIENCE_S,
    PORTS,
    ROOT,
    VERBOSE,
    Stack,
    free_ports,
    is_ready,
    run_program,
    start_stack,
    stop_while_models_load,
    wait_until,
    wait_until_announced,
)
from tests.support.triton import start_triton

SEVEN = (ROOT / "loadtest" / "pictures" / "seven.png").read_bytes()
MODELS = ROOT / "model_repository"


@dataclass(frozen=True)
class Logs:
    """A stack of its own ports, and the folder that its parts log to."""

    variables: dict[str, str]
    folder: Path


@pytest.fixture
def logs() -> Iterator[Logs]:
    ports = free_ports()
    folder = ROOT / "output" / f"serve-{ports['HTTP_PORT']}"
    yield Logs(ports, folder)
    shutil.rmtree(folder, ignore_errors=True)


def log_of(stack: Stack) -> str:
    return stack.log.read_text(errors="replace")


def serves(stack: Stack) -> bool:
    return stack.http.post("/predict/digits", files={"image": SEVEN}).is_success


def test_stack_survives_its_parts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_stack(MODELS, tmp_path / "log") as stack:
        wait_until_announced(stack.log)
        assert serves(stack)
        stack.part("tritonserver").send_signal(signal.SIGKILL)
        response = stack.http.post("/predict/digits", files={"image": SEVEN})
        assert code_of(response) is ErrorCode.PREDICTOR_UNAVAILABLE
        assert stack.http.get("/v2/health/live").is_success
        assert stack.http.get("/v2/health/ready").status_code == 503
        wait_until(lambda: serves(stack), log=stack.log)

        stack.part("transformer").send_signal(signal.SIGKILL)
        wait_until(lambda: _transformer_is_back(stack), log=stack.log)
        everything = psutil.Process(stack.process.pid).children(recursive=True)
        assert len(everything) >= 3
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(60) == 0
        assert not [process for process in everything if process.is_running()]
    log = log_of(stack)
    assert re.search(r"try: +curl .*/predict/digit-finder", log)
    assert log.index("stopped: transformer") < log.index("stopped: triton")
    assert "stopped: transformer (exit status 0)" in log


def test_processes_of_a_killed_triton_are_ended(tmp_path: Path) -> None:
    with start_stack(MODELS, tmp_path / "log") as stack:
        triton = stack.part("tritonserver")
        models = stack.http.get("/v2/models").json()["models"]
        # The candidates, whose golden outputs were verified before the versions served, are unloaded meanwhile.
        wait_until(lambda: len(triton.children()) == len(models), log=stack.log)
        stubs = triton.children()
        memory = Path("/proc", str(stubs[-1].pid), "root", "dev", "shm")  # as they see it: it may be theirs alone
        regions = [memory / word for stub in stubs for word in words_of(stub) if "_shm_region_" in word]
        assert len(regions) == len(stubs) > 0
        assert all(region.exists() for region in regions)
        # Like a stub that waits for a lock of Triton.
        stubs[0].suspend()
        triton.kill()
        _, alive = psutil.wait_procs(stubs, timeout=60)
        assert not alive
        wait_until(lambda: not any(region.exists() for region in regions), log=stack.log)
        wait_until(lambda: serves(stack), log=stack.log)


@pytest.mark.parametrize("word", ["stack", "make"])
def test_killing_the_parent_ends_every_part(tmp_path: Path, word: str) -> None:
    ports = free_ports()
    variables = ports | {"MIRROR": str(tmp_path / "mirror")}
    words = [f"{name}={value}" for name, value in variables.items()]
    command = [sys.executable, "-m", "stack"] if word == "stack" else ["make", "serve", *words]
    with (tmp_path / "log").open("wb") as output:
        parent = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables | VERBOSE, stdout=output, stderr=output)
    log = tmp_path / "log"
    everything: list[psutil.Process] = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{ports['HTTP_PORT']}", trust_env=False) as client:
            wait_until(lambda: is_ready(client, parent, log), log=log)
        everything = psutil.Process(parent.pid).children(recursive=True)
        assert len(everything) >= 3
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(everything, timeout=60)
    for process in alive:
        process.kill()
    assert not alive, log.read_text(errors="replace")[-2000:]


def test_stop_while_the_models_load_leaves_nothing_behind() -> None:
    assert not stop_while_models_load("stack")


def test_stack_gives_up_on_a_part_that_dies_at_once(logs: Logs) -> None:
    done = run_program("stack", **logs.variables, PREDICTOR_VENV="/none")
    assert done.returncode == 1
    assert f"the last lines of {logs.folder.relative_to(ROOT)}/triton.log:\n  error: /none is missing" in done.stderr
    assert "error: triton died again and again within seconds of its start" in done.stderr
    assert "error: /none is missing" in (logs.folder / "triton.log").read_text()


def test_terminal_lists_models_and_logs_are_in_files(logs: Logs, tmp_path: Path) -> None:
    terminal = tmp_path / "terminal"
    with terminal.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack"], cwd=ROOT,
            env=os.environ | logs.variables | {"MIRROR": str(tmp_path / "mirror"), "REPOSITORY": str(MODELS)},
            stdout=output, stderr=output,
        )  # fmt: skip
    url = f"http://127.0.0.1:{logs.variables['HTTP_PORT']}"
    with ended(process, patience_s=PATIENCE_S):
        wait_until_announced(terminal)
        response = httpx.post(f"{url}/predict/digits", files={"image": SEVEN}, trust_env=False)
        assert response.is_success
        request_id = response.headers["x-request-id"]
        requests = logs.folder / "transformer.log"
        wait_until(lambda: request_id in requests.read_text(), log=requests)
        (transformer,) = [each for each in psutil.Process(process.pid).children() if "transformer" in words_of(each)]
        transformer.kill()
        wait_until(lambda: "transformer ended unexpectedly and is started again" in terminal.read_text(), log=terminal)
    words = terminal.read_text()
    assert str(logs.folder.relative_to(ROOT)) in words
    assert len(words.splitlines()) < 45  # 20 of them the last words
    assert "model_lifecycle.cc" not in words
    assert words.rstrip().endswith("stopped")
    for log, what in (
        ("triton", "successfully loaded"),
        ("synchroniser", "serves"),
        ("supervisor", "exited: transformer"),
    ):
        assert what in (logs.folder / f"{log}.log").read_text()
        assert (logs.folder / f"{log}.log").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TRANSFORMER_THREADS": "none"}, "TRANSFORMER_THREADS: got 'none'"),
        ({"TRANSFORMER_THREDS": "2"}, "TRANSFORMER_THREDS: no such variable; did you mean TRANSFORMER_THREADS?"),
        ({"TRANSFORMER_API_KEYS_FILE": "/none"}, "TRANSFORMER_API_KEYS_FILE: /none"),
        ({"PREDICTOR_CPUS": "-1"}, "PREDICTOR_CPUS: got '-1'"),
        ({"PREDICTOR_PINS": "digits"}, 'error parsing value for field "pins"'),
        ({"PROFILE": "fasst"}, "PROFILE: got 'fasst', expected one of auto, fast, "),
        ({"REPOSITORY": "s3://models", "AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "AWS_ENDPOINT_URL: got '127.0.0.1:9000'"),
        ({"REPOSITORY": "gs://models"}, "repository: got 'gs://models', expected s3://"),
    ],
)
def test_wrong_setting_is_found_before_any_part_is_started(variables: dict[str, str], says: str) -> None:
    done = run_program("stack", **free_ports(), **variables)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert says in done.stderr


def test_stack_gives_up_on_a_wrong_setting_that_is_found_late(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keys = tmp_path / "keys"
    subprocess.run([sys.executable, "-m", "transformer.auth", "alice", keys], cwd=ROOT, check=True, capture_output=True)
    environment = os.environ | free_ports()
    environment |= VERBOSE | {"TRANSFORMER_API_KEYS_FILE": str(keys), "MIRROR": str(tmp_path / "mirror")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        # Longer than supervisor's startsecs: to it the part has started well.
        part = find_part(process, log)
        part.suspend()
        keys.unlink()
        wait_until(lambda: "success: transformer" in log.read_text(), log=log)
        part.resume()
        assert process.wait(60) == 1
    finally:
        process.terminate()
    text = log.read_text()
    assert "exited: transformer (exit status 2; expected)" in text
    assert text.count(f"error: {keys}") == 1
    assert "error: transformer cannot run as it is set up; its last words are above" in text


def find_part(parent: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    """The transformer, as soon as it is there."""
    found: list[psutil.Process] = []

    def seen() -> bool:
        assert parent.poll() is None, log.read_text()
        children = psutil.Process(parent.pid).children()
        found.extend(child for child in children if words_of(child)[1:3] == ["-m", "transformer"])
        return bool(found)

    wait_until(seen, log=log)
    return found[0]


@pytest.mark.parametrize("variable", PORTS)
def test_taken_port_is_named(variable: str) -> None:
    ports = free_ports()
    with socket.create_server(("127.0.0.1", int(ports[variable]))):
        done = run_program("stack", **ports)
    assert done.returncode == 1
    assert f"error: {variable}: port {ports[variable]} is taken" in done.stderr


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"REPOSITORY": "no-such-folder"}, "error: REPOSITORY: no-such-folder is no folder"),
        ({"HTTP_PORT": "99999"}, "error: HTTP_PORT: got '99999'"),
        ({"HTTP_PORT": "http"}, "error: HTTP_PORT: got 'http'"),
        ({"HTTP_PORT": "8123", "TRITON_HTTP_PORT": "8123"}, "error: HTTP_PORT: port 8123 is also TRITON_HTTP_PORT"),
        ({"TRITON_URL": "http://triton:8000"}, "error: TRITON_URL: got http://triton:8000, expected host:port"),
    ],
)
def test_wrong_variable_is_named(variables: dict[str, str], says: str) -> None:
    done = run_program("stack", **variables)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_rejected_model_is_unavailable_and_the_others_serve(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(MODELS / "digits", repository / "digits")
    shutil.copytree(MODELS / "iris", repository / "broken")
    for graph in (repository / "broken").glob("[0-9]*/model.onnx"):
        graph.write_bytes(b"no model")
    config = repository / "broken" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "iris"', 'name: "broken"'))
    with start_stack(repository, tmp_path / "log") as stack:
        wait_until_announced(stack.log)
        assert serves(stack)
        response = stack.http.post("/predict/broken", json=[1, 2, 3, 4])
        assert (response.status_code, "Retry-After" in response.headers) == (503, False)
        assert "no model.onnx" not in response.text
        state = r"broken \d+ (refused|incomplete): model.onnx: got 8 bytes, expected \d+"  # codespell:ignore refused
        assert re.search(state, log_of(stack))


def test_request_during_a_swap_is_repeated_and_is_no_client_error(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(MODELS / "digits", repository / "digits")
    with start_stack(repository, tmp_path / "log", variables={"POLL_S": "0.5"}) as stack:

        def send() -> dict[str, Any]:
            response = stack.http.post("/predict/digits", files={"image": SEVEN})
            assert response.status_code == 200, response.text
            model: dict[str, Any] = response.json()["model"]
            return model

        assert send()["task"] == "classify"
        # The same name, another task, interface and size; the transformer still has the old description.
        shutil.copytree(next((MODELS / "digit-finder").glob("[0-9]*")), repository / "digits" / "9")
        wait_until(lambda: send() == {"name": "digits", "version": "9", "task": "detect"}, log=stack.log)


def test_mirror_belongs_to_one_stack(tmp_path: Path) -> None:
    with start_stack(MODELS, tmp_path / "log"):
        done = run_program("stack", MIRROR=str(tmp_path / "log-mirror"), **free_ports())
    assert done.returncode == 1
    assert "belongs to another stack that runs; next: stop it, or MIRROR=" in done.stderr


def test_stack_uses_a_triton_that_runs_elsewhere(tmp_path: Path) -> None:
    with (
        start_triton(MODELS, tmp_path / "triton.log") as triton,
        start_stack(MODELS, tmp_path / "log", variables={"TRITON_URL": f"127.0.0.1:{triton.grpc_port}"}) as stack,
    ):
        assert serves(stack)
        with pytest.raises(LookupError):
            stack.part("tritonserver")


def _transformer_is_back(stack: Stack) -> bool:
    time.sleep(0.1)
    return is_open(stack.http_port) and serves(stack)
