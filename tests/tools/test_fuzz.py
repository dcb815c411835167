"""A short run of the fuzzer; the long one is `make fuzz`."""

from tests.fuzz.run import fuzz
from tests.support.stack import Stack

COUNT = 1000
LEAST_REASONS = 5


def test_broken_inputs_are_answered(stack: Stack) -> None:
    report = fuzz(stack.http_port, pid=stack.part("transformer").pid, count=COUNT, seed=1, warm_up=0)
    assert set(report.routes) == {"picture", "multipart", "v2 binary"}
    # It reaches what is behind the first check, and what is refused is refused for many reasons.
    assert all({200, 400} <= set(route.statuses) for route in report.routes.values())
    assert min(len(route.reasons) for route in report.routes.values()) >= LEAST_REASONS
    assert "Traceback" not in stack.log.read_text(errors="replace")
