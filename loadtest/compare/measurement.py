"""One candidate, measured: its load, its CPU time and memory, and what other processes took meanwhile."""

from typing import Any

import httpx
import numpy as np
import psutil

from loadtest.compare.candidates import Running
from loadtest.errors import LoadTestError
from loadtest.generator.loops import Outcome, Schedule, measure
from loadtest.generator.requests import Request

_HOST = "127.0.0.1"
_TIMEOUT_S = 60.0
_WARM_UP_S = 2.0
_PERCENTS = (50, 95, 99)


def infer(port: int, request: Request) -> tuple[Any, int]:
    """Send a request once.

    Returns:
        The JSON of the response, and the size of its body in bytes.

    Raises:
        LoadTestError: it failed.
    """
    try:
        response = httpx.post(
            f"http://{_HOST}:{port}{request.path}",
            content=request.body, headers=dict(request.headers), timeout=_TIMEOUT_S, trust_env=False,
        )  # fmt: skip
        if response.is_error:
            raise LoadTestError(f"{request.path}: {response.status_code} {response.text[:300]}")
        return response.json(), len(response.content)
    except (httpx.HTTPError, ValueError) as exc:
        raise LoadTestError(f"{request.path}: {type(exc).__name__} {exc}") from exc


def drive(port: int, request: Request, *, connections: int, seconds: float) -> Outcome:
    """A closed loop; requests that are in progress at its end are waited for.

    Raises:
        LoadTestError: no response came at all.
    """
    schedule = Schedule(f"{_HOST}:{port}", "", connections=connections, timeout_s=_TIMEOUT_S, limit_s=seconds)
    outcome = measure([request], schedule)
    if not any(response.status for response in outcome.result.responses):
        raise LoadTestError(f"{request.path}: {outcome.result.failures[0].error}")
    return outcome


def measure_candidate(running: Running, request: Request, *, connections: int, seconds: float) -> dict[str, Any]:
    """Figures of one measurement, after a warm-up with the same number of connections."""
    _, size_bytes = infer(running.port, request)
    request = request._replace(read=None, min_bytes=size_bytes // 2)
    drive(running.port, request, connections=connections, seconds=min(_WARM_UP_S, seconds))
    cpu_s, busy_s = running.group.cpu_s(), machine_cpu_s()
    outcome = drive(running.port, request, connections=connections, seconds=seconds)
    cpu_s, busy_s = running.group.cpu_s() - cpu_s, machine_cpu_s() - busy_s
    successes, failures = len(outcome.result.successes), outcome.result.failures
    return {
        **speed(outcome, seconds),
        "cpu_s_per_request": cpu_s / successes if successes else None,
        "pss_mib": running.group.pss_mib(),
        "generator_cpu": outcome.cpu_s / outcome.seconds,
        "others_cpu": max(0.0, busy_s - cpu_s - outcome.cpu_s) / outcome.seconds,
        "failures": len(failures),
        "failure": failures[0].error if failures else "",
    }


def speed(outcome: Outcome, seconds: float) -> dict[str, float | None]:
    """Requests/s and percentiles of successful responses that ended in time; no percentiles where there are none."""
    counted = outcome.result.ended_before(outcome.began + seconds)
    times_ms = [response.seconds * 1000 for response in counted.successes]
    values = map(float, np.percentile(times_ms, _PERCENTS)) if times_ms else [None] * len(_PERCENTS)
    percentiles = zip((f"p{percent}_ms" for percent in _PERCENTS), values, strict=True)
    return {"requests_per_s": counted.per_second, **dict(percentiles)}


def machine_cpu_s() -> float:
    """CPU seconds of all processes of this machine."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)
