"""Asks a running server one question: alone, as often as it can, or more often than it can."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx

from environment import api_key
from loadtest.flood.generator import Outcome, Plan, read_outcome

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 40.0
_GRACE_S = 60


class FloodError(Exception):
    """Nothing can be measured; the message says what and what to do."""


class Meter:
    """Asks one server one question."""

    def __init__(self, client: httpx.Client, model: str, picture: Path) -> None:
        self._client = client
        self._path = f"/predict/{model}"
        self._body = picture.read_bytes()
        self.url = str(client.base_url).rstrip("/")

    def ask_alone(self) -> float:
        """Milliseconds of one request.

        Raises:
            FloodError: it is no good answer.
            AccessError: the server wants a key, or another one.
        """
        began = time.perf_counter()
        response = self._client.post(self._path, content=self._body, headers={"Content-Type": "image/jpeg"})
        api_key.check(self.url, response.status_code, response.text)
        if response.is_error:
            raise FloodError(f"{self._path}: {response.status_code} {response.text[:200]}")
        return (time.perf_counter() - began) * 1000

    def capacity(self, connections: int, seconds: float) -> float:
        """Good answers in a second, each connection asking again when it is answered."""
        end = time.monotonic() + seconds

        def ask_on() -> int:
            count = 0
            while time.monotonic() < end:
                self.ask_alone()
                count += 1
            return count

        began = time.monotonic()
        with ThreadPoolExecutor(connections) as threads:
            answered = sum(threads.map(lambda _: ask_on(), range(connections)))
        return answered / (time.monotonic() - began)

    def generate(self, rate: float, seconds: float) -> Outcome:
        """Begin so many requests in a second, answered or not, from another process.

        Raises:
            FloodError: it failed.
        """
        with self.generating(rate, seconds) as generation:
            return generation.result()

    @contextmanager
    def generating(self, rate: float, seconds: float) -> Iterator["Generation"]:
        """As `generate`, beside what the caller does meanwhile; the requests end with it at the latest."""
        url = urlsplit(str(self._client.base_url))
        with (
            tempfile.NamedTemporaryFile() as body,
            tempfile.TemporaryFile("w+") as output,
            tempfile.TemporaryFile("w+") as errors,
        ):
            body.write(self._body)
            body.flush()
            plan = Plan(
                url.hostname or "127.0.0.1", url.port or 80, url.netloc.rpartition("@")[2],
                self._path, body.name, "image/jpeg", rate, seconds, _TIMEOUT_S,
            )  # fmt: skip
            generation = Generation(plan, output, errors)
            try:
                yield generation
            finally:
                generation.stop()


class Generation:
    """Requests that are begun by another process."""

    def __init__(self, plan: Plan, output: IO[str], errors: IO[str]) -> None:
        self._output, self._errors = output, errors
        self._late = time.monotonic() + plan.seconds + plan.timeout_s + _GRACE_S
        command = [sys.executable, "-m", "loadtest.flood.generator"]
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=output, stderr=errors, text=True
        )
        assert self._process.stdin is not None, "a pipe"  # noqa: S101
        with self._process.stdin as stdin:
            json.dump(asdict(plan), stdin)

    @property
    def is_over(self) -> bool:
        """Whether `result` has not to be waited for."""
        return self._process.poll() is not None or time.monotonic() > self._late

    def result(self) -> Outcome:
        """What became of the requests, once they are over.

        Raises:
            FloodError: it failed.
        """
        try:
            status = self._process.wait(max(self._late - time.monotonic(), 0))
        except subprocess.TimeoutExpired as exc:
            raise FloodError("the generator does not end") from exc
        for file in (self._output, self._errors):
            file.seek(0)
        if status:
            raise FloodError(f"the generator failed: {self._errors.read().strip()[-500:]}")
        return read_outcome(self._output.read())

    def stop(self) -> None:
        """End it, and the requests with it."""
        self._process.kill()
        self._process.wait()
