"""Times the stages of an item, and makes each a span of the request's trace."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

from transformer.observability.trace_context import Trace

Stage = Literal["queue", "decode", "preprocess", "infer", "postprocess", "then"]
# Those of every item.
STAGES: tuple[Stage, ...] = ("queue", "decode", "preprocess", "infer", "postprocess")


@dataclass
class StageTimer:
    """Where the time of an item went.

    `queue` is the wait for a slot and for a thread, `infer` the round trip to Triton, `then` all of a second model.

    Attributes:
        trace: of the request; the span of `infer` is made by the Triton client, which passes it on.
        ms: milliseconds by stage.
        started: when the item was accepted, by `time.perf_counter()`.
    """

    trace: Trace
    ms: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    started: float = field(default_factory=time.perf_counter)

    def add(self, stage: Stage, since: float) -> None:
        """Add the time since then to a stage."""
        self.ms[stage] = self.ms.get(stage, 0.0) + (time.perf_counter() - since) * 1000

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        since = time.perf_counter()
        with nullcontext() if stage == "infer" else self.trace.span(stage):
            yield
        self.add(stage, since)

    def total_ms(self) -> float:
        """Milliseconds since the item was accepted."""
        return (time.perf_counter() - self.started) * 1000
