"""Counters of the servers over the same interval, from their Prometheus metrics."""

import math
from collections.abc import Mapping
from contextlib import suppress

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from environment import api_key

_PARTS = {
    "queue": "nv_inference_queue_duration_us",
    "compute input": "nv_inference_compute_input_duration_us",
    "compute infer": "nv_inference_compute_infer_duration_us",
    "compute output": "nv_inference_compute_output_duration_us",
}
_REQUESTS = "nv_inference_request_success"
_INFERENCES, _RUNS = "nv_inference_count", "nv_inference_exec_count"
_RESIDENT = "process_resident_memory_bytes"
_TIMEOUT_S = 5.0

Counters = Mapping[str, float]


def scrape(url: str, model: str) -> Counters | str:
    """Triton's counters of a model, all versions together; or the reason why there are none."""
    try:
        families = _read(url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        return f"{url}: {exc}"
    wanted = {*_PARTS.values(), _REQUESTS, _INFERENCES, _RUNS}
    counters: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            name = sample.name.removesuffix("_total")  # the parser adds it to counters that lack it
            if name in wanted and sample.labels.get("model") == model:
                counters[name] = counters.get(name, 0) + sample.value
    return counters or f"{url}: no counters of {model}"


def resident_mib(url: str) -> float:
    """Memory of the transformer, by its own metrics; NaN where they lack it."""
    with suppress(httpx.HTTPError, httpx.InvalidURL, ValueError):
        for family in _read(f"{url}/metrics", api_key.headers()):
            if family.name == _RESIDENT:
                return float(family.samples[0].value) / 2**20
    return math.nan


def _read(url: str, headers: Mapping[str, str] | None = None) -> list[Metric]:
    text = httpx.get(url, headers=headers, timeout=_TIMEOUT_S, trust_env=False).raise_for_status().text
    return list(text_string_to_metric_families(text))


def difference(before: Counters | str, after: Counters | str) -> dict[str, float] | str:
    """Mean time of a request in each part of Triton, or the reason why that is unknown.

    Returns:
        Milliseconds by part; beside them `requests`, and `batch`: items in each run of the model.
    """
    if isinstance(before, str) or isinstance(after, str):
        return before if isinstance(before, str) else str(after)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    requests = grown(_REQUESTS)
    if requests <= 0:
        return "no request reached Triton in this interval, or it was restarted"
    parts = {part: grown(name) / requests / 1000 for part, name in _PARTS.items()}
    return {"requests": requests, "batch": grown(_INFERENCES) / max(grown(_RUNS), 1), **parts}
