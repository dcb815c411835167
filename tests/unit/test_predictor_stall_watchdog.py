"""When a model's process counts as stalled."""

import time

from predictor.backends.stall_watchdog import StallDetector


class Clocks:
    """The time of day and the CPU time of a process, and its detector."""

    def __init__(self) -> None:
        self.now_s, self.cpu_s = 1_000_000.0, 5.0
        self.detector = StallDetector(lambda: self.now_s, lambda: self.cpu_s)

    def advance(self, seconds: float, *, cpu_s: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.cpu_s += cpu_s


def test_process_that_runs_or_computes_has_not_stalled() -> None:
    clocks = Clocks()
    began = time.monotonic()
    for _ in range(50):
        clocks.advance(0.1, cpu_s=0.0)
        clocks.detector.update()
    assert not clocks.detector.has_stalled(began)
    clocks.advance(5, cpu_s=4.5)  # a thread of Python's blocked the others
    assert not clocks.detector.has_stalled(began)


def test_process_that_did_nothing_for_a_while_has_stalled() -> None:
    clocks = Clocks()
    began = time.monotonic()
    clocks.advance(0.8, cpu_s=0.0)
    assert clocks.detector.has_stalled(began)
    # A request that came long after the stall is not affected.
    assert not clocks.detector.has_stalled(time.monotonic() + 10)


def test_clock_that_is_set_back_is_no_stall() -> None:
    clocks = Clocks()
    clocks.advance(-86_400, cpu_s=0.0)
    assert not clocks.detector.has_stalled(time.monotonic())
    clocks.advance(86_400, cpu_s=0.0)
    assert clocks.detector.has_stalled(time.monotonic())
