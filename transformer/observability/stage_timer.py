"""Where the time of an item goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

from transformer.observability.request_record import current
from transformer.observability.trace_context import Trace

Stage = Literal["queue", "decode", "preprocess", "infer", "postprocess"]
STAGES: tuple[Stage, ...] = ("queue", "decode", "preprocess", "infer", "postprocess")


@dataclass
class Stages:
    """Where the time of an item went, in milliseconds.

    `queue` is the wait for admission and for a thread, `infer` the round trip to Triton. A stage is a span of the
    request's trace; that of `infer` is the predictor's, which passes it on.
    """

    ms: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    started: float = field(default_factory=time.perf_counter)
    trace: Trace = field(default_factory=lambda: current().trace)  # here: a thread has no current request

    def add(self, stage: Stage, since: float) -> None:
        """Count the time since then as spent in a stage."""
        self.ms[stage] += (time.perf_counter() - since) * 1000

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Count the time inside as spent in a stage."""
        since = time.perf_counter()
        with nullcontext() if stage == "infer" else self.trace.span(stage):
            yield
        self.add(stage, since)

    def total_ms(self) -> float:
        """Milliseconds since the item was accepted."""
        return (time.perf_counter() - self.started) * 1000
