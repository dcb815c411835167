"""Responses to requests, and figures over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Response(NamedTuple):
    """One request and its response.

    Attributes:
        connection: number of the connection.
        kind: of the request.
        started: `time.monotonic()`, the same clock in every process of a machine. In an open loop it is when the
            request was due, not when it was sent: a stall delays all requests that were due in it (G. Tene,
            "coordinated omission").
        seconds: from then until the response was read.
        status: of HTTP, or the name of gRPC's code; empty where no response came.
        error: what went wrong; empty for a successful response.
        version: of the model.
        top: class of the first prediction; empty where nothing was found.
        confidence: of the first prediction.
        labels: every class that the response names, in its order.
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
        """When the response was read."""
        return self.started + self.seconds


@dataclass(frozen=True)
class Result:
    """Responses, in the order in which they ended."""

    responses: Sequence[Response]

    @cached_property
    def failures(self) -> list[Response]:
        """All but the successful responses."""
        return [response for response in self.responses if response.error]

    @cached_property
    def successes(self) -> list[Response]:
        """The successful responses."""
        return [response for response in self.responses if not response.error]

    @property
    def per_second(self) -> float:
        """Successful responses per second, from the first request to the last response."""
        if not self.responses:
            return 0.0
        span_s = self.responses[-1].ended - min(response.started for response in self.responses)
        return len(self.successes) / span_s

    def between(self, since: float, until: float) -> "Result":
        """Responses to requests that started in this span of `time.monotonic()`."""
        return Result([response for response in self.responses if since <= response.started < until])

    def ended_before(self, moment: float) -> "Result":
        """Responses that were read before this moment of `time.monotonic()`."""
        return Result([response for response in self.responses if response.ended < moment])

    def percentile(self, percent: float) -> float:
        """Seconds that this percentage of all requests took at most, failed ones included; NaN where there are none."""
        if not self.responses:
            return float("nan")
        return float(np.percentile([response.seconds for response in self.responses], percent, method="higher"))
