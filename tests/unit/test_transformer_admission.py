from transformer.admission import Deadline


def test_shorter_timeout_counts_from_the_arrival_of_the_request() -> None:
    began = Deadline(at_s=130.0, timeout_s=30.0)
    assert began.sooner(0.5) == Deadline(at_s=100.5, timeout_s=0.5)
    assert began.sooner(31) is began
