"""Faults during requests over four connections, HTTP and gRPC in turn: their effect on clients and on health.

Each test prints a line of figures (`pytest -rP`). A full disk is in test_synchroniser_faults.py; parts that cannot be
kept alive are in test_stack.py.
"""

import re
import resource
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.generator.load import Load, Plan
from loadtest.generator.responses import Response, Result
from tests.support.health_watch import LIVE, READY, Watch
from tests.support.ports import find_free_ports
from tests.support.processes import words_of
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack, wait_until
from tests.support.transformer import DIGITS, gauge, start_transformer, suspended
from tests.support.triton import start_triton

SEVEN = ROOT / "loadtest" / "pictures" / "seven.png"
MODELS = ROOT / "model_repository"
TIMEOUT_S = 3
# The result for a client whose connection ends: the status of gRPC, and none of http.client.
AWAY = {"503", "UNAVAILABLE", ""}
# gRPC cancels calls that it has not handed to its server when that stops; a server cannot change the status.
STOPPED = AWAY | {"CANCELLED"}
LATE = {"504", "DEADLINE_EXCEEDED"}
BOMB = 7000  # pixels of a side: just within the limit, 150 MB as RGB


@dataclass
class Faulty:
    """A stack that things happen to."""

    stack: Stack
    repository: Path

    @contextmanager
    def load(self, model: str = "digits", **changes: object) -> Iterator[Load]:
        """Requests over four connections; all is well when the block begins."""
        http, grpc_url = (f"127.0.0.1:{port}" for port in (self.stack.http_port, self.stack.grpc_port))
        plan = {"image_path": str(SEVEN), "pause_s": 0.02} | changes
        with Load(Plan(http, grpc_url, model, **plan)) as load:  # type: ignore[arg-type]
            assert load.wait_for(lambda response: not response.error, seconds=PATIENCE_S)
            yield load

    def watch(self) -> Watch:
        return Watch(self.stack.http_port, self.stack.grpc_port)

    @property
    def secret(self) -> tuple[str, str]:
        """What Triton requires of a client that loads and unloads."""
        (rule,) = (word for word in self.stack.part("tritonserver").cmdline() if word.startswith("--grpc-restricted"))
        return "triton-grpc-protocol-nereid", rule.rpartition("=")[2]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    folder = tmp_path_factory.mktemp("faults")
    repository = folder / "models"
    for model in ("digits", "iris"):
        shutil.copytree(MODELS / model, repository / model)
    variables = {
        "POLL_S": "0.5",
        "TRANSFORMER_REQUEST_TIMEOUT_S": str(TIMEOUT_S),
        "TRANSFORMER_MAX_IN_FLIGHT": "4",
        "TRANSFORMER_MAX_WAITING": "8",
    }
    with start_stack(repository, folder / "log", variables=variables) as stack:
        yield Faulty(stack, repository)
        log = stack.log.read_text(errors="replace")
        # Triton waits half a minute for a model whose process was killed before it ends: its stop is tried on its own.
        stack.part("tritonserver").kill()
    # Exceptions of requests whose client had disconnected; where memory was short there may be other tracebacks.
    assert "never retrieved" not in log


@pytest.fixture(autouse=True)
def whole(faulty: Faulty) -> Iterator[None]:
    """Everything that a test breaks works again before the next test, and no request is left in progress."""
    yield
    stack = faulty.stack
    wait_until(lambda: send(stack.http).is_success, log=stack.log)
    wait_until(lambda: gauge(stack, "nereid_in_flight") == 0, log=stack.log)


def send(http: httpx.Client, model: str = "digits") -> httpx.Response:
    try:
        return http.post(f"/predict/{model}", content=SEVEN.read_bytes(), headers={"Content-Type": "image/png"})
    except httpx.TransportError:
        return httpx.Response(0)


def wait_for_good(load: Load, since: float) -> None:
    """Wait until each connection has had a successful response to each kind of request that was sent since."""
    wanted = {(number, kind) for number in range(load.plan.connections) for kind in load.plan.kinds}

    def seen() -> set[tuple[int, str]]:
        return {(a.connection, a.kind) for a in load.result().responses if a.started >= since and not a.error}

    deadline = time.monotonic() + PATIENCE_S
    while missing := wanted - seen():
        assert time.monotonic() < deadline, f"no successful response to {sorted(missing)}"
        time.sleep(0.1)


def judge(name: str, result: Result, *, since: float, allowed: set[str], figures: str = "") -> list[Response]:
    """Print what was seen; fail where a client saw anything but these statuses."""
    failures = result.failures
    recovered_s = max((response.ended for response in failures), default=since) - since
    statuses = Counter(
        f"{response.kind} {response.status or response.error.partition(':')[0]}" for response in failures
    )
    print(f"\n{name}: {len(failures)} of {len(result.responses)} failed, the last {recovered_s:.2f} s after; {figures}")
    print(dict(statuses))
    strange = [response for response in failures if response.status not in allowed]
    assert not strange, strange[:3]
    return failures


def check_alive(watch: Watch, since: float) -> None:
    """The transformer reported all the time that it is live."""
    for probe in LIVE:
        responses = watch.responses(probe, since=since)
        assert len(responses) > 2
        assert all(each.healthy for each in responses), probe


def test_triton_killed(faulty: Faulty) -> None:
    with faulty.load() as load, faulty.watch() as watch:
        watch.wait_for(True, since=time.monotonic(), seconds=PATIENCE_S)
        killed = time.monotonic()
        faulty.stack.part("tritonserver").kill()
        noticed_s = watch.wait_for(False, since=killed, seconds=PATIENCE_S)
        back_s = wait_for_triton(faulty.stack, killed)
        ready_s = watch.wait_for(True, since=killed + noticed_s, seconds=PATIENCE_S) + noticed_s
        wait_for_good(load, time.monotonic())
        check_alive(watch, killed)
        figures = f"not ready {noticed_s:.2f} s after, Triton back {back_s:.2f} s after, ready {ready_s:.2f} s after"
        assert judge("Triton killed", load.stop(), since=killed, allowed=AWAY, figures=figures)


def wait_for_triton(stack: Stack, since: float) -> float:
    """Seconds until Triton itself says that it is ready."""
    with grpc.insecure_channel(
        f"127.0.0.1:{stack.triton_grpc_port}", options=[("grpc.max_reconnect_backoff_ms", 100)]
    ) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=PATIENCE_S, wait_for_ready=True).ready
    return time.monotonic() - since


def test_hung_triton_recovers(faulty: Faulty) -> None:
    with faulty.load() as load, faulty.watch() as watch:
        watch.wait_for(True, since=time.monotonic(), seconds=PATIENCE_S)
        hung, begun = time.monotonic(), faulty.stack.log.stat().st_size
        with suspended(faulty.stack), ThreadPoolExecutor(32) as threads:
            noticed_s = watch.wait_for(False, since=hung, seconds=PATIENCE_S)
            more = [threads.submit(send, faulty.stack.http) for _ in range(32)]
            seen = Counter(response.result().status_code for response in more)
            leave(faulty.stack, 3)
            time.sleep(2 * TIMEOUT_S)
            assert gauge(faulty.stack, "nereid_waiting") <= 8
        back = time.monotonic()
        ready_s = watch.wait_for(True, since=back, seconds=PATIENCE_S)
        wait_for_good(load, back)
        check_alive(watch, hung)
        result = load.stop()
    print(f"32 more at once: {dict(seen)}")
    # The line is bounded, and who waits in it hears at the deadline.
    assert set(seen) == {429, 504}
    figures = f"not ready {noticed_s:.2f} s after, ready {ready_s:.2f} s after it was back"
    allowed = LATE | {"429", "RESOURCE_EXHAUSTED"}
    if "is not healthy" in faulty.stack.log.read_text(errors="replace")[begun:]:
        # Triton gives a model's process some tenths of a second to show that it lives, from when it goes on: where
        # others have both cores all the time that may not be enough, and the model is loaded again.
        allowed |= AWAY | {"502", "INTERNAL"}
    failures = judge("Triton hung", result, since=back, allowed=allowed, figures=figures)
    check_ends(result)
    late = [response for response in failures if response.status in LATE]
    assert {response.kind for response in late} == {"predict", "v2", "grpc"}
    print(f"late ones took {min(a.seconds for a in late):.2f} to {max(a.seconds for a in late):.2f} s")
    assert max(response.seconds for response in late) < 2 * TIMEOUT_S


def leave(stack: Stack, count: int) -> None:
    """Clients that disconnect before they get a response."""
    fields = f"Host: localhost\r\nContent-Type: image/png\r\nContent-Length: {SEVEN.stat().st_size}"
    head = f"POST /predict/digits HTTP/1.1\r\n{fields}\r\n\r\n"
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", stack.http_port)) as client:
            client.sendall(head.encode() + SEVEN.read_bytes())
            time.sleep(0.05)


def test_requests_to_a_hung_triton_end_at_their_deadlines(stack: Stack, tmp_path: Path) -> None:
    log = tmp_path / "log"
    limits = {"TRANSFORMER_MAX_IN_FLIGHT": "2"}
    hurry = {"X-Request-Timeout-Ms": "500"}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", log, variables=limits) as transformer:
        transformer.http.post("/predict/digit-finder", files={"image": DIGITS}).raise_for_status()
        with suspended(stack), ThreadPoolExecutor(1) as threads:
            # The first requests for these models: Triton would have to describe them.
            strange = [
                transformer.http.post("/predict/digits", files={"image": DIGITS}, headers=hurry),
                transformer.http.post("/v2/models/digits/infer", content=DIGITS, headers=hurry | RAW),
                transformer.http.post("/v2/models/iris/infer", json=ROWS, headers=hurry),
            ]
            # Its images are all that may be in memory at once.
            large = threads.submit(
                transformer.http.post, "/predict/digit-finder", files=[("image", DIGITS)] * 8, headers=OF_TEN_SECONDS
            )
            wait_until(lambda: gauge(transformer, "nereid_in_flight") == 1, log=log)
            time.sleep(0.5)  # they are decoded, which nothing tells
            behind = transformer.http.post("/predict/digit-finder", files={"image": DIGITS}, headers=hurry)
            assert not large.done()
            assert not transformer.http.get("/v2/health/ready").is_success
            request = time.monotonic()
            assert not transformer.http.get("/v2/health/ready").is_success
            assert time.monotonic() - request < 8
        large.result()
        for response in (*strange, behind):
            assert response.status_code == 504
            assert response.elapsed.total_seconds() < 8, response.text
        assert transformer.http.post("/predict/digits", files={"image": DIGITS}).is_success
    assert "Traceback" not in log.read_text()


ROWS = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
RAW = {"Inference-Header-Content-Length": "0"}
OF_TEN_SECONDS = {"X-Request-Timeout-Ms": "10000"}


def test_transformer_killed(faulty: Faulty) -> None:
    with faulty.load() as load, faulty.watch() as watch:
        watch.wait_for(True, since=time.monotonic(), seconds=PATIENCE_S)
        killed = time.monotonic()
        faulty.stack.part("transformer").kill()
        gone_s = watch.wait_for(None, since=killed, seconds=PATIENCE_S)
        ready_s = watch.wait_for(True, since=killed + gone_s, seconds=PATIENCE_S) + gone_s
        wait_for_good(load, time.monotonic())
        figures = f"no response {gone_s:.2f} s after, ready {ready_s:.2f} s after"
        assert judge("transformer killed", load.stop(), since=killed, allowed=AWAY, figures=figures)


def test_triton_started_after_the_transformer(tmp_path: Path) -> None:
    ports = find_free_ports(3)
    url = f"127.0.0.1:{ports[1]}"
    with start_transformer(url, tmp_path / "log") as transformer:
        plan = Plan(
            f"127.0.0.1:{transformer.http_port}", f"127.0.0.1:{transformer.grpc_port}", "digits", image_path=str(SEVEN),
            pause_s=0.02,
        )  # fmt: skip
        with Load(plan) as load, Watch(transformer.http_port, transformer.grpc_port) as watch:
            began = time.monotonic()
            watch.wait_for(False, since=began, seconds=PATIENCE_S)
            assert load.wait_for(lambda response: bool(response.error), seconds=PATIENCE_S)
            with start_triton(MODELS, tmp_path / "triton.log", ports=ports):
                started = time.monotonic()
                ready_s = watch.wait_for(True, since=started, seconds=PATIENCE_S)
                wait_for_good(load, started)
                result = load.stop()
            check_alive(watch, began)
    assert judge("Triton late", result, since=started, allowed=AWAY, figures=f"ready {ready_s:.2f} s after Triton")


def test_model_unloaded_by_hand_is_loaded_again(faulty: Faulty) -> None:
    with faulty.load("iris", image_path="", row=[1.0] * 4) as load, faulty.load() as other, faulty.watch() as watch:
        with grpc.insecure_channel(f"127.0.0.1:{faulty.stack.triton_grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            unload = service_pb2.RepositoryModelUnloadRequest(model_name="iris")
            since = time.monotonic()
            stub.RepositoryModelUnload(unload, metadata=[faulty.secret], timeout=PATIENCE_S)
        assert load.wait_for(lambda response: bool(response.error), seconds=PATIENCE_S)
        wait_for_good(load, time.monotonic())
        assert all(each.healthy for probe in READY for each in watch.responses(probe, since=since))
        assert not other.stop().failures
        assert judge("model unloaded", load.stop(), since=since, allowed={"503", "UNAVAILABLE"})


def test_model_whose_folder_goes_is_unknown_and_comes_back(faulty: Faulty, tmp_path: Path) -> None:
    with faulty.load("iris", image_path="", row=[1.0] * 4) as load, faulty.load() as other, faulty.watch() as watch:
        since = time.monotonic()
        shutil.move(faulty.repository / "iris", tmp_path / "iris")
        assert load.wait_for(lambda response: response.status == "404", seconds=PATIENCE_S)
        assert load.wait_for(lambda response: response.status == "NOT_FOUND", seconds=PATIENCE_S)
        back = time.monotonic()
        shutil.move(tmp_path / "iris", faulty.repository / "iris")
        wait_for_good(load, back)
        assert all(each.healthy for probe in READY for each in watch.responses(probe, since=since))
        assert not other.stop().failures
        gone = {"404", "NOT_FOUND", "503", "UNAVAILABLE"}
        assert judge("folder removed", load.stop(), since=back, allowed=gone)


def find_stub(triton: psutil.Process, model: str = "digits") -> psutil.Process:
    """The process that runs a model."""
    # Dead processes have no command line any more.
    (stub,) = (child for child in triton.children() if any(f"/{model}/" in word for word in words_of(child)))
    return stub


def test_stub_that_was_suspended_ends_itself(tmp_path: Path) -> None:
    with (
        start_triton(MODELS, tmp_path / "log") as triton,
        grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel,
    ):
        client = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        large = infer_large()
        process = psutil.Process(triton.process.pid)
        stub = find_stub(process, "digit-finder")
        # Seconds of work, in which it is stopped for longer than Triton waits.
        response = client.ModelInfer.future(large, timeout=PATIENCE_S)
        before_s = sum(stub.cpu_times()[:2])
        wait_until(lambda: sum(stub.cpu_times()[:2]) - before_s > 0.5, log=triton.log)
        stub.suspend()
        with pytest.raises(grpc.RpcError, match="not healthy"):
            response.result()
        stub.resume()
        # Its late response would have ended Triton, or been taken for that of the next request.
        wait_until(lambda: not stub.is_running() or stub.status() == psutil.STATUS_ZOMBIE, log=triton.log)
        with pytest.raises(grpc.RpcError, match="not healthy"):
            client.ModelInfer(large, timeout=PATIENCE_S)
        assert triton.process.poll() is None
        assert client.ModelReady(service_pb2.ModelReadyRequest(name="iris"), timeout=PATIENCE_S).ready
        # Triton would wait for the dead process for half a minute.
        triton.process.kill()
        triton.process.wait()


def infer_large() -> Any:
    """Images that take seconds."""
    shape = [4, 1280, 1280, 3]
    request = service_pb2.ModelInferRequest(model_name="digit-finder")
    request.inputs.add(name="image", datatype="UINT8", shape=shape)
    request.raw_input_contents.append(bytes(np.prod(shape)))
    return request


def test_stub_killed(faulty: Faulty) -> None:
    with faulty.load() as load, faulty.watch() as watch:
        stub = find_stub(faulty.stack.part("tritonserver"))
        since = time.monotonic()
        stub.kill()
        assert load.wait_for(lambda response: bool(response.error), seconds=PATIENCE_S)
        wait_for_good(load, time.monotonic())
        check_alive(watch, since)
        allowed = AWAY | LATE | {"502", "INTERNAL"}
        assert judge("stub killed", load.stop(), since=since, allowed=allowed)


def bomb() -> bytes:
    """An image of a few bytes that decodes to many."""
    _, data = cv2.imencode(".png", np.zeros((BOMB, BOMB, 3), np.uint8))
    return data.tobytes()


def throw(faulty: Faulty, count: int) -> Counter[str]:
    """Send bombs, all at once."""
    data = bomb()

    def one(_: int) -> str:
        try:
            url = f"http://127.0.0.1:{faulty.stack.http_port}/predict/digits"
            headers = {"Content-Type": "image/png"}
            post = httpx.post(url, content=data, headers=headers, timeout=30, trust_env=False)
        except httpx.TransportError as exc:
            return type(exc).__name__
        return str(post.status_code)

    with ThreadPoolExecutor(count) as threads:
        return Counter(threads.map(one, range(count)))


@contextmanager
def address_space(process: psutil.Process) -> Iterator[None]:
    """A limit of address space little above that of the process."""
    before = resource.prlimit(process.pid, resource.RLIMIT_AS)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (process.memory_info().vms + 100_000_000, before[1]))
    yield
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_AS, before)


@contextmanager
def control_group(process: psutil.Process) -> Iterator[None]:
    """A control group with little more memory than the process has, of version 2 or 1."""
    limit = process.memory_info().rss + 100_000_000
    group = Path("/sys/fs/cgroup/nereid-faults")
    name = "memory.max"
    if Path("/sys/fs/cgroup/memory").is_dir():
        group, name = Path("/sys/fs/cgroup/memory/nereid-faults"), "memory.limit_in_bytes"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"{group}: {exc.strerror}; a memory limit needs a control group of its own")
    try:
        if not (group / name).exists():
            pytest.skip(f"{group / name} is absent; a memory limit needs this controller")
        (group / name).write_text(str(limit))
        (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        deadline = time.monotonic() + PATIENCE_S
        for pid in (group / "cgroup.procs").read_text().split():  # it lives: back to where it came from
            (group.parent / "cgroup.procs").write_text(pid)
        while group.is_dir() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.1)


@pytest.mark.parametrize("limited", [address_space, control_group])
def test_decompression_bombs_with_little_memory(
    faulty: Faulty, limited: Callable[[psutil.Process], AbstractContextManager[None]]
) -> None:
    transformer = faulty.stack.part("transformer")
    with limited(transformer), faulty.load() as load, faulty.watch() as watch:
        since = time.monotonic()
        seen = throw(faulty, 8)
        wait_for_good(load, time.monotonic())
        ready_s = watch.wait_for(True, since=time.monotonic(), seconds=PATIENCE_S)
        survived = faulty.stack.part("transformer").pid == transformer.pid
        figures = f"bombs {dict(seen)}, {'survived' if survived else 'started again'}, ready in {ready_s:.2f} s"
        allowed = AWAY | LATE | {"429", "RESOURCE_EXHAUSTED"}
        judge(f"bombs, {limited.__name__}", load.stop(), since=since, allowed=allowed, figures=figures)
    assert sum(seen.values()) == 8


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_jump_of_the_clock_has_no_effect(stack: Stack, tmp_path: Path, jump_s: int) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is absent: the clock of one process cannot be moved (apt-get install libfaketime)")
    clock, log = tmp_path / "clock", tmp_path / "log"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", log, variables=faked) as transformer:
        http, grpc_url = f"127.0.0.1:{transformer.http_port}", f"127.0.0.1:{transformer.grpc_port}"
        plan = Plan(http, grpc_url, "digits", image_path=str(SEVEN), pause_s=0.02)
        with Load(plan) as load, Watch(transformer.http_port, transformer.grpc_port) as watch:
            wait_for_good(load, time.monotonic())
            before = date_of(transformer.http)
            jumped = time.monotonic()
            clock.write_text(f"{jump_s:+d}")
            wait_until(lambda: abs(date_of(transformer.http) - before) > 80_000, log=log)
            moved = time.monotonic()
            wait_for_good(load, moved)
            assert all(each.healthy for probe in (*READY, *LIVE) for each in watch.responses(probe, since=moved))
            # gRPC reads the clock twice while a call begins: a jump that falls between ends that call.
            failures = judge("clock", load.stop(), since=jumped, allowed=LATE, figures=f"{jump_s:+d} s")
            assert not [response for response in failures if response.started >= moved]


def date_of(http: httpx.Client) -> float:
    """The time of day as the process sees it."""
    return parsedate_to_datetime(http.get("/v2/health/live").headers["Date"]).timestamp()


def test_sigterm_to_the_transformer(faulty: Faulty) -> None:
    with faulty.load() as load, faulty.watch() as watch:
        watch.wait_for(True, since=time.monotonic(), seconds=PATIENCE_S)
        terminated, begun = time.monotonic(), faulty.stack.log.stat().st_size
        transformer = faulty.stack.part("transformer")
        transformer.terminate()
        gone_s = watch.wait_for(None, since=terminated, seconds=PATIENCE_S)
        ready_s = watch.wait_for(True, since=terminated + gone_s, seconds=PATIENCE_S) + gone_s
        wait_for_good(load, time.monotonic())
        result = load.stop()
    judge(
        "SIGTERM to the transformer", result, since=terminated, allowed=STOPPED, figures=f"ready {ready_s:.2f} s after"
    )
    log = faulty.stack.log.read_text(errors="replace")
    assert "exited: transformer (exit status 0; not expected)" in log
    check_ends(result)
    check_accepted(log[begun:])


def check_ends(result: Result) -> None:
    """A client without a response had no connection, or lost one that was idle for the server."""
    cut = [response for response in result.failures if not response.status]
    rejected = ("ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError")
    assert all(response.error.startswith(rejected) for response in cut), cut[:3]


def check_accepted(log: str) -> None:
    """The server rejected new calls, and cancelled none that it had accepted."""
    ends = re.findall(r"gRPC ModelInfer (\w+) ", log)
    assert "OK" in ends
    assert set(ends) <= {"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}


def test_sigterm_to_the_stack(tmp_path: Path) -> None:
    with start_stack(MODELS, tmp_path / "log") as stack:
        faulty = Faulty(stack, MODELS)
        with faulty.load() as load, ThreadPoolExecutor(1) as threads:
            accepted = threads.submit(stack.http.post, "/predict/digit-finder", files=[("image", DIGITS)] * 24)
            wait_until(lambda: gauge(stack, "nereid_in_flight") >= 1, log=stack.log)
            time.sleep(0.3)
            terminated = time.monotonic()
            stack.process.send_signal(signal.SIGTERM)
            assert accepted.result().status_code == 200
            assert stack.process.wait(PATIENCE_S) == 0
            ended_s = time.monotonic() - terminated
            result = load.stop()
    judge("SIGTERM to the stack", result, since=terminated, allowed=STOPPED, figures=f"ended {ended_s:.2f} s after")
    check_ends(result)
    log = (tmp_path / "log").read_text(errors="replace")
    check_accepted(log)
    assert "Traceback" not in log
