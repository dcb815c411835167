"""When a model's process has stood still."""

import time

from predictor.backends.stall_watchdog import Pulse


class Clocks:
    """The time of day, and how long the process has worked."""

    def __init__(self) -> None:
        self.now_s, self.cpu_s = 1_000_000.0, 5.0
        self.pulse = Pulse(lambda: self.now_s, lambda: self.cpu_s)

    def pass_by(self, seconds: float, *, working: float) -> None:
        self.now_s += seconds
        self.cpu_s += working


def test_process_that_runs_or_works_has_not_stood_still() -> None:
    clocks = Clocks()
    began = time.monotonic()
    for _ in range(50):
        clocks.pass_by(0.1, working=0.0)
        clocks.pulse.beat()
    assert not clocks.pulse.stood_still(began)
    clocks.pass_by(5, working=4.5)  # a thread of Python's held the others up
    assert not clocks.pulse.stood_still(began)


def test_process_that_did_nothing_for_a_while_has_stood_still() -> None:
    clocks = Clocks()
    began = time.monotonic()
    clocks.pass_by(0.8, working=0.0)
    assert clocks.pulse.stood_still(began)
    # What came to it long after is not waited for in vain.
    assert not clocks.pulse.stood_still(time.monotonic() + 10)


def test_clock_that_jumps_counts_forth_and_not_back() -> None:
    clocks = Clocks()
    clocks.pass_by(-86_400, working=0.0)
    assert not clocks.pulse.stood_still(time.monotonic())
    clocks.pass_by(86_400, working=0.0)
    assert clocks.pulse.stood_still(time.monotonic())
