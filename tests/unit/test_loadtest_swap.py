import pytest

from loadtest.load import Answer, Result
from loadtest.swap import Swap, summarize


def swap(index: int, *, seconds: float | None = 2.0) -> Swap:
    memory = {"synchroniser": 1000 + 3 * index, "transformer": 5000 if index < 2 else 7000}
    return Swap(str(index), seconds, 100, index % 2, 20.0, 10.0, memory, "")


def test_slope_is_that_of_the_last_four_fifths() -> None:
    summary = summarize([swap(index) for index in range(10)])
    assert summary["memory"]["synchroniser"] == {"first_kib": 1006, "last_kib": 1027, "slope_kib_per_swap": 3.0}
    assert summary["memory"]["transformer"]["slope_kib_per_swap"] == 0.0
    assert (summary["failures"], summary["requests"], summary["p999_ratio_median"]) == (5, 1000, 2.0)


def test_answer_of_a_replaced_version_is_stale_where_it_was_asked_afterwards() -> None:
    # The second was under way when the version was replaced, and was read after the first answer of the new one.
    spans = [("1", 0.0, 1.0), ("2", 1.0, 2.0), ("1", 0.5, 2.5), ("2", 3.0, 3.5), ("3", 4.0, 4.5), ("2", 4.6, 4.8)]
    answers = [Answer(0, "v2", started, ended - started, "200", "", name) for name, started, ended in spans]
    result = Result(answers)
    assert result.versions == ["1", "2", "3"]
    assert result.stale == [answers[-1]]


def test_version_that_never_served_is_counted() -> None:
    summary = summarize([swap(0, seconds=None), swap(1, seconds=4.0)])
    assert (summary["never_served"], summary["seconds_median"]) == (1, 4.0)
    assert summarize([swap(0, seconds=None)])["seconds_median"] is None


def test_result_of_a_load() -> None:
    answers = [Answer(0, "v2", float(at), 0.5, "200", "", "1" if at < 5 else "2") for at in range(10)]
    answers[3] = answers[3]._replace(error="HTTP 503", version="", seconds=2.0)
    result = Result(answers)
    assert result.versions == ["1", "2"]
    assert result.failures == [answers[3]]
    assert (result.percentile(50), result.percentile(99.9)) == (0.5, 2.0)
    assert [answer.started for answer in result.between(2, 5).answers] == [2.0, 3.0, 4.0]
    assert result.per_second == pytest.approx(9 / 9.5)
