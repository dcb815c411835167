"""Prometheus metrics of the transformer."""

from prometheus_client import Counter, Histogram

from transformer.model import Model
from transformer.stages import STAGES, Stages

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter("nereid_requests_total", "Requests answered", ["route", "status"])
REQUEST_SECONDS = Histogram("nereid_request_seconds", "Whole requests", ["route"], buckets=_BUCKETS_S)
ITEMS = Counter("nereid_items_total", "Pictures, and requests for rows or tensors, answered", ["model", "version"])
STAGE_SECONDS = Histogram("nereid_stage_seconds", "Stages of an item", ["model", "stage"], buckets=_BUCKETS_S)


def count_request(route: str, status: int | str, seconds: float) -> None:
    """Count a request, whatever became of it; `status` is HTTP's or the name of gRPC's."""
    REQUESTS.labels(route, status).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


def count_item(model: Model, stages: Stages) -> None:
    """Count an answered picture, or a request for rows."""
    ITEMS.labels(model.name, model.version).inc()
    for stage in STAGES:
        STAGE_SECONDS.labels(model.name, stage).observe(stages.ms[stage] / 1000)


def count_tensors(name: str, version: str, stages: Stages) -> None:
    """Count a request for the model's own tensors."""
    ITEMS.labels(name, version).inc()
    STAGE_SECONDS.labels(name, "infer").observe(stages.ms["infer"] / 1000)
