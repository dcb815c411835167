"""Load on a running stack from a light process of its own, with every answer written down.

`Load` starts the process (`python -m loadtest.load`), which asks the same question over each connection in a loop, by
`/predict`, v2 with a binary tensor and gRPC in turn, until its standard input is closed: it never outlives its parent.
"""

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment import api_key

_ROOT = Path(__file__).parents[1]
_AFTER_FAILURE_S = 0.05  # else a server that is away would be asked in a tight loop
_STEP_S = 0.25  # whoever measures must not be what is measured: the answers say when they came

KINDS = ("predict", "v2", "grpc")


@dataclass(frozen=True)
class Plan:
    """What is asked, and how.

    Attributes:
        http, grpc: host:port of the transformer.
        model: name.
        row: of a table model; empty for a picture.
        picture: absolute path.
        version: asked for; the server's choice where empty (only v2 and gRPC can name one).
        kinds: in turn, on each connection.
        connections: of each protocol; so many requests are under way at a time.
        pause_s: of each connection after an answer.
        timeout_s: for one request.
        limit_s: the process ends by itself after this.
    """

    http: str
    grpc: str
    model: str
    row: Sequence[float] = ()
    picture: str = ""
    version: str = ""
    kinds: Sequence[str] = KINDS
    connections: int = 4
    pause_s: float = 0.0
    timeout_s: float = 10.0
    limit_s: float = 3600.0


class Answer(NamedTuple):
    """One request.

    Attributes:
        connection: number of the connection.
        kind: one of `KINDS`.
        started: `time.monotonic()`, the same clock in every process of a machine.
        seconds: until the answer was read.
        status: of HTTP, or the name of gRPC's code; empty where no answer came.
        error: what went wrong; empty for a good answer.
        version: of the model that answered.
        top: the class of the first prediction; empty where nothing was found.
        confidence: of it.
        labels: every class that the answer names, in its order.
    """

    connection: int
    kind: str
    started: float
    seconds: float
    status: str
    error: str
    version: str = ""
    top: str = ""
    confidence: float = 0.0
    labels: tuple[str, ...] = ()

    @property
    def ended(self) -> float:
        """When the answer was read."""
        return self.started + self.seconds


@dataclass(frozen=True)
class Result:
    """Answers, in the order in which they ended."""

    answers: Sequence[Answer]

    @cached_property
    def failures(self) -> list[Answer]:
        """Whatever was no good answer."""
        return [answer for answer in self.answers if answer.error]

    @cached_property
    def versions(self) -> list[str]:
        """Which versions answered, each where it answered first."""
        return list(dict.fromkeys(answer.version for answer in self.answers if not answer.error))

    @cached_property
    def stale(self) -> list[Answer]:
        """Good answers of a version that had been replaced when they were asked: another had answered since.

        An answer that was under way during a swap may be read late: the order in which answers end says nothing.
        """
        first_read: dict[str, float] = {}
        for answer in self.answers:
            if not answer.error:
                first_read.setdefault(answer.version, answer.ended)
        moments = list(first_read.items())
        replaced = {version: ended for (version, _), (_, ended) in itertools.pairwise(moments)}
        return [a for a in self.answers if not a.error and a.started > replaced.get(a.version, float("inf"))]

    @property
    def per_second(self) -> float:
        """Good answers."""
        if len(self.answers) < 2:
            return 0.0
        span = self.answers[-1].ended - min(answer.started for answer in self.answers)
        return (len(self.answers) - len(self.failures)) / span

    def between(self, since: float, until: float) -> "Result":
        """Those that were asked in this span of `time.monotonic()`."""
        return Result([answer for answer in self.answers if since <= answer.started < until])

    def percentile(self, percent: float) -> float:
        """Seconds that so many of all requests took at most, failed ones too; NaN where there are none."""
        if not self.answers:
            return float("nan")
        return float(np.percentile([answer.seconds for answer in self.answers], percent, method="higher"))


class Load:
    """Load that runs until the block ends."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._answers: list[Answer] = []
        self._offset = 0
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __enter__(self) -> "Load":
        self._file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.load"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=self._file
        )
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(json.dumps(asdict(self.plan)).encode() + b"\n")
        self.process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._file.close()

    def stop(self) -> Result:
        """End it; requests under way are waited for.

        Raises:
            RuntimeError: the process failed; its words are on stderr.
        """
        try:
            self.process.communicate(timeout=self.plan.timeout_s + 5)  # closes its stdin
        finally:
            self.process.kill()
        if self.process.returncode:
            raise RuntimeError(f"load generator: exit status {self.process.returncode}, expected 0; see its stderr")
        return self.result()

    def result(self) -> Result:
        """All answers so far that were not dropped."""
        self._read()
        return Result(list(self._answers))

    def _read(self) -> None:
        while block := os.pread(self._file.fileno(), 1 << 22, self._offset):
            lines = block[: block.rfind(b"\n") + 1]
            if not lines:
                break
            self._offset += len(lines)
            for line in lines.splitlines():
                *fields, names = json.loads(line)
                labels = tuple(names)
                self._answers.append(Answer._make([*fields, self._known.setdefault(labels, labels)]))

    def drop(self, before: float) -> None:
        """Forget what ended before this moment of `time.monotonic()`."""
        self._answers = [answer for answer in self.result().answers if answer.ended >= before]

    def wait_for(self, wanted: Callable[[Answer], bool], *, seconds: float) -> Answer | None:
        """The first answer that is wanted, or None where there is none in time."""
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            self._read()
            if found := next((answer for answer in self._answers[seen:] if wanted(answer)), None):
                return found
            if time.monotonic() > deadline or self.process.poll() is not None:
                return None
            seen = len(self._answers)
            time.sleep(_STEP_S)

    def wait_for_version(self, version: str, *, seconds: float) -> Answer | None:
        """The first good answer of a version, or None where there is none in time."""
        return self.wait_for(lambda answer: answer.version == version and not answer.error, seconds=seconds)


# status, version that answered, what it says
Reply = tuple[str, str, Mapping[str, Any]]
Ask = Callable[[], Reply]


class _Refused(Exception):
    """An answer that is none.

    Attributes:
        status: as in `Answer`.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def _connect(plan: Plan) -> Iterator[dict[str, Ask]]:
    """The question of a plan over one connection of each protocol."""
    name, datatype, shape, content = _tensor(plan)
    key = api_key.headers()
    connection = http.client.HTTPConnection(plan.http, timeout=plan.timeout_s)
    # Of its own: gRPC would put the channels of one process on one connection.
    channel = grpc.insecure_channel(plan.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    message = service_pb2.ModelInferRequest(model_name=plan.model, model_version=plan.version)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(content)
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(content)}}]
    head = json.dumps({"inputs": inputs}).encode()

    def post(path: str, body: bytes, headers: dict[str, str]) -> tuple[str, Any]:
        try:
            connection.request("POST", path, body, headers | key)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise
        if response.status != http.client.OK:
            raise _Refused(str(response.status), answer[:300].decode(errors="replace"))
        return str(response.status), json.loads(answer)

    def predict() -> Reply:
        kind = "application/octet-stream" if plan.picture else "application/json"
        body = Path(plan.picture).read_bytes() if plan.picture else json.dumps(list(plan.row)).encode()
        status, reply = post(f"/predict/{plan.model}", body, {"Content-Type": kind})
        return status, reply["model"]["version"], reply

    def v2() -> Reply:
        version = f"/versions/{plan.version}" if plan.version else ""
        headers = {"Inference-Header-Content-Length": str(len(head))}
        status, reply = post(f"/v2/models/{plan.model}{version}/infer", head + content, headers)
        return status, reply["model_version"], _first_element(json.loads(reply["outputs"][0]["data"][0]))

    def over_grpc() -> Reply:
        reply = stub.ModelInfer(message, timeout=plan.timeout_s, metadata=tuple(key.items()))
        return "OK", reply.model_version, _first_element(json.loads(reply.raw_output_contents[0][4:]))

    try:
        yield dict(zip(KINDS, (predict, v2, over_grpc), strict=True))
    finally:
        connection.close()
        channel.close()


def _tensor(plan: Plan) -> tuple[str, str, list[int], bytes]:
    """Name, datatype, shape and content of the question."""
    if plan.picture:
        picture = Path(plan.picture).read_bytes()
        return "image", "BYTES", [1], len(picture).to_bytes(4, "little") + picture
    return "features", "FP32", [1, len(plan.row)], np.array([plan.row], "<f4").tobytes()


def _first_element(element: Mapping[str, Any]) -> Mapping[str, Any]:
    """What v2 says of a picture is a reply of `/predict`; of a row it is one prediction."""
    return element if "predictions" in element else {"predictions": [element]}


def _ask(connection: int, kind: str, ask: Ask) -> Answer:
    started = time.monotonic()
    try:
        status, version, reply = ask()
    except _Refused as exc:
        return Answer(connection, kind, started, time.monotonic() - started, exc.status, str(exc) or "no text")
    except grpc.RpcError as exc:
        return Answer(
            connection, kind, started, time.monotonic() - started, exc.code().name, f"{exc.code().name} {exc.details()}"
        )
    except (OSError, http.client.HTTPException, ValueError, LookupError) as exc:
        return Answer(connection, kind, started, time.monotonic() - started, "", f"{type(exc).__name__}: {exc}")
    seconds = time.monotonic() - started
    predictions = reply["predictions"]
    top = predictions[0] if predictions else {}
    labels = top.get("probabilities") or [prediction.get("class", "") for prediction in predictions]
    return Answer(
        connection, kind, started, seconds, status, "", version, top.get("class", ""), top.get("confidence", 0.0),
        tuple(labels),
    )  # fmt: skip


def _run(connection: int, plan: Plan, stopped: threading.Event) -> None:
    # Connections begin at different kinds, so that all are under way at any moment.
    kinds = [plan.kinds[(connection + index) % len(plan.kinds)] for index in range(len(plan.kinds))]
    with _connect(plan) as asks:
        for kind in itertools.cycle(kinds):
            answer = _ask(connection, kind, asks[kind])
            os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
            if stopped.wait(max(plan.pause_s, _AFTER_FAILURE_S) if answer.error else plan.pause_s):
                return


def main() -> int:
    """Load as the plan in the first line of standard input says, until that is closed."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    stopped = threading.Event()
    threads = [
        threading.Thread(target=_run, args=(number, plan, stopped), daemon=True) for number in range(plan.connections)
    ]
    for thread in threads:
        thread.start()
    reader = threading.Thread(target=sys.stdin.read, daemon=True)
    reader.start()
    reader.join(plan.limit_s)
    stopped.set()
    for thread in threads:
        thread.join(plan.timeout_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
