"""Trials run alone while one of them may have ended a process."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import pytest

from predictor.synchroniser.isolation import Isolation


def meet(isolation: Isolation, barrier: Barrier) -> bool:
    """Whether two trials are in progress at once."""
    with isolation.trial():
        try:
            barrier.wait()
        except BrokenBarrierError:
            return False
        return True


@pytest.mark.parametrize(("suspects", "together"), [([], True), (["a"], False)])
def test_trials_run_alone_while_there_are_suspects(suspects: list[str], together: bool) -> None:
    isolation = Isolation()
    isolation.suspect("rows", suspects)
    barrier = Barrier(2, timeout=0.5 if suspects else 30)
    with ThreadPoolExecutor(2) as threads:
        met = [threads.submit(meet, isolation, barrier) for _ in range(2)]
    assert [each.result() for each in met] == [together, together]


def test_trials_run_together_once_the_suspects_are_cleared() -> None:
    isolation = Isolation()
    isolation.suspect("rows", ["a", "b"])
    isolation.clear("rows", ["a", "b"])
    isolation.clear("rows", ["unknown"])
    barrier = Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as threads:
        met = [threads.submit(meet, isolation, barrier) for _ in range(2)]
    assert all(each.result() for each in met)
