"""When a model is reconciled again after failures, and what is said of them."""

from dataclasses import dataclass

from predictor.synchroniser.metrics import Metrics
from predictor.synchroniser.retries import Retries
from registry.errors import TransientError


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_pauses_grow_with_transient_failures_and_begin_again_after_a_success() -> None:
    clock, metrics = Clock(), Metrics()
    retries = Retries("rows", metrics=metrics, poll_s=10, clock=clock)
    pauses = []
    for _ in range(3):
        retries.fail(TransientError("disk full"))
        pauses.append((retries.due_at or 0) - clock.now_s)
    assert (pauses, retries.error, retries.has_defect) == ([10, 20, 40], "disk full; tried again in 40 s", False)
    assert metrics.registry.get_sample_value("nereid_sync_failures_total", {"model": "rows"}) == 3
    retries.succeed("the policy names version 7")
    assert (retries.failures, retries.error) == (0, "the policy names version 7")
    retries.fail(TransientError("disk full"))
    assert retries.due_at == 110


def test_retry_is_due_at_its_time() -> None:
    clock = Clock()
    retries = Retries("rows", metrics=Metrics(), poll_s=10, clock=clock)
    assert not retries.is_due
    retries.fail(TransientError("disk full"))
    assert not retries.is_due
    clock.now_s += 10
    assert retries.is_due


def test_defect_is_tried_again_after_a_minute() -> None:
    clock = Clock()
    retries = Retries("rows", metrics=Metrics(), poll_s=1, clock=clock)
    retries.fail(KeyError("x"))
    assert (retries.has_defect, retries.due_at) == (True, 160)
