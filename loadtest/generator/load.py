"""Load from a process of its own, while the caller does something else."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path

from loadtest.generator import requests
from loadtest.generator.loops import Schedule
from loadtest.generator.responses import Response, Result

_ROOT = Path(__file__).parents[2]
_POLL_S = 0.25  # the caller must not disturb what it measures: responses carry their own times

KINDS = ("predict", "v2", "grpc")


@dataclass(frozen=True)
class Plan(Schedule):
    """The requests of a load, and their schedule.

    Attributes:
        model: name.
        row: of a table model; empty for an image.
        image_path: absolute; empty for a row.
        version: to infer with; empty: the server's choice. Only v2 and gRPC can name one.
        kinds: in turn, on each connection.
        is_parsed: responses are parsed; otherwise they have no version, class and labels.
    """

    model: str
    _: KW_ONLY
    row: Sequence[float] = ()
    image_path: str = ""
    version: str = ""
    kinds: Sequence[str] = KINDS
    is_parsed: bool = True

    def requests(self) -> list[requests.Request]:
        """The requests of the kinds, ready to be sent.

        Raises:
            OSError: the image cannot be read.
        """
        if self.image_path:
            image = Path(self.image_path).read_bytes()
            tensor, predict = requests.image_tensor(image), requests.predict_image(self.model, image)
        else:
            tensor, predict = requests.row_tensor(self.row), requests.predict_rows(self.model, self.row)
        ready = {
            "predict": predict,
            "v2": requests.v2_binary(self.model, tensor, self.version),
            "grpc": requests.grpc_raw(self.model, tensor, self.version),
        }
        chosen = [ready[kind] for kind in self.kinds]
        return chosen if self.is_parsed else [request._replace(read=None) for request in chosen]


class Load:
    """Load that runs until the block ends; the process never outlives its parent."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._responses: list[Response] = []
        self._offset = 0
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __enter__(self) -> "Load":
        self._file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.generator"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=self._file
        )
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(json.dumps(asdict(self.plan)).encode() + b"\n")
        self.process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._file.close()

    def stop(self) -> Result:
        """End it; requests in progress are waited for.

        Raises:
            RuntimeError: the process failed; its stderr says why.
        """
        try:
            self.process.communicate(timeout=self.plan.timeout_s + 5)  # closes its stdin
        finally:
            self.process.kill()
        if self.process.returncode:
            raise RuntimeError(f"load generator: exit status {self.process.returncode}, expected 0; see its stderr")
        return self.result()

    def result(self) -> Result:
        """All responses so far that were not dropped."""
        self._read()
        return Result(list(self._responses))

    def _read(self) -> None:
        while block := os.pread(self._file.fileno(), 1 << 22, self._offset):
            lines = block[: block.rfind(b"\n") + 1]
            if not lines:
                break
            self._offset += len(lines)
            for line in lines.splitlines():
                *fields, names = json.loads(line)
                labels = tuple(names)
                self._responses.append(Response._make([*fields, self._known.setdefault(labels, labels)]))

    def drop(self, before: float) -> None:
        """Forget responses that ended before this moment of `time.monotonic()`."""
        self._responses = [response for response in self.result().responses if response.ended >= before]

    def wait_for(self, wanted: Callable[[Response], bool], *, seconds: float) -> Response | None:
        """The first response that is wanted, or None where there is none in time."""
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            self._read()
            if found := next((response for response in self._responses[seen:] if wanted(response)), None):
                return found
            if time.monotonic() > deadline or self.process.poll() is not None:
                return None
            seen = len(self._responses)
            time.sleep(_POLL_S)

    def wait_for_version(self, version: str, *, seconds: float) -> Response | None:
        """The first successful response of a version, or None where there is none in time."""
        return self.wait_for(lambda response: response.version == version and not response.error, seconds=seconds)
