"""A short run of the fuzzers; the long ones are `make fuzz` and `make fuzz-bucket`."""

from pathlib import Path

from tests.fuzz import bucket
from tests.fuzz.run import fuzz
from tests.support.stack import Stack, start_stack

COUNT = 1000
LEAST_REASONS = 5


def test_broken_inputs_get_a_result_or_a_client_error(stack: Stack) -> None:
    report = fuzz(stack.http_port, stack.grpc_port, pid=stack.part("transformer").pid, count=COUNT, seed=1, warm_up=0)
    assert set(report.routes) == {"image", "multipart", "v1", "v2 binary", "grpc"}
    # Inputs pass the first check, and others are rejected for many reasons.
    assert all({200, 400} <= set(route.statuses) for route in report.routes.values())
    assert min(len(route.reasons) for route in report.routes.values()) >= LEAST_REASONS
    assert "Traceback" not in stack.log.read_text(errors="replace")


def test_mutated_versions_are_judged() -> None:
    report = bucket.fuzz(count=COUNT, seed=1)
    reasons = {name: len(kind.reasons) for name, kind in report.kinds.items()}
    assert min(count for name, count in reasons.items() if name not in {"listing", "wire"}) >= LEAST_REASONS
    assert all({"good", "refused"} <= report.kinds[name].verdicts.keys() for name in ("manifest", "model.onnx"))


def test_fresh_stack_serves_the_version_before_a_mutated_one(tmp_path: Path) -> None:
    names = bucket.spoil(tmp_path / "repository", count=12, seed=1)
    variables = {"POLL_S": "0.5", "SETTLE_S": "0.5"}
    with start_stack(tmp_path / "repository", tmp_path / "log", variables=variables) as stack:  # until it is ready
        status = stack.http.get("/status").raise_for_status().json()["models"]
        for name in names:
            (version,) = status[name]["serving"]
            assert version in {"1", "2"}
            stack.http.post(f"/predict/{name}", json=[1.0] * 4).raise_for_status()
