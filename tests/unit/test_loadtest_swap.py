"""The arithmetic of swaps."""

from loadtest.swap import Swap, summarize


def swap(index: int, *, seconds: float | None = 2.0) -> Swap:
    memory = {"synchroniser": 1000 + 3 * index, "transformer": 5000 if index < 2 else 7000}
    return Swap(str(index), seconds, 100, index % 2, 20.0, 10.0, memory, "")


def test_slope_is_that_of_the_last_four_fifths() -> None:
    summary = summarize([swap(index) for index in range(10)])
    assert summary["memory"]["synchroniser"] == {"first_kib": 1006, "last_kib": 1027, "slope_kib_per_swap": 3.0}
    assert summary["memory"]["transformer"]["slope_kib_per_swap"] == 0.0
    assert (summary["failures"], summary["requests"], summary["p999_ratio_median"]) == (5, 1000, 2.0)


def test_version_that_never_served_is_counted() -> None:
    summary = summarize([swap(0, seconds=None), swap(1, seconds=4.0)])
    assert (summary["never_served"], summary["seconds_median"]) == (1, 4.0)
    assert summarize([swap(0, seconds=None)])["seconds_median"] is None
