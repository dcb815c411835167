"""A short run of the fuzzer; the long one is `make fuzz`."""

from tests.fuzz.run import fuzz
from tests.support.stack import Stack

COUNT = 600


def test_broken_inputs_are_answered(stack: Stack) -> None:
    report = fuzz(stack.http_port, pid=stack.part("transformer").pid, count=COUNT, seed=1)
    assert set(report.routes) == {"picture", "multipart", "v2 binary"}
    statuses = {status for route in report.routes.values() for status in route.statuses}
    # It reaches what is behind the first check, and what is refused is refused for several reasons.
    assert {200, 400, 413} <= statuses
    assert "Traceback" not in stack.log.read_text(errors="replace")
