"""Prometheus metrics of the transformer."""

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import simplejpeg
from prometheus_client import Counter, Gauge, Histogram, Info

from transformer import __version__
from transformer.triton.model import Model

if TYPE_CHECKING:
    from transformer.observability.stage_timer import Stage

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS_PIXELS = (1e4, 5e4, 1e5, 3e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7)
_BUCKETS_COUNT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

REQUESTS = Counter("nereid_requests_total", "Requests answered", ["route", "model", "version", "status"])
REQUEST_SECONDS = Histogram("nereid_request_seconds", "Whole requests", ["route"], buckets=_BUCKETS_S)
ITEMS = Counter("nereid_items_total", "Pictures, and requests for rows or tensors, answered", ["model", "version"])
STAGE_SECONDS = Histogram("nereid_stage_seconds", "Stages of an item", ["model", "stage"], buckets=_BUCKETS_S)
IMAGE_PIXELS = Histogram("nereid_image_pixels", "Width x height of a picture", ["model"], buckets=_BUCKETS_PIXELS)
DETECTIONS = Histogram("nereid_detections", "Detections in a picture", ["model"], buckets=_BUCKETS_COUNT)
IN_FLIGHT = Gauge("nereid_in_flight", "Requests that are worked at")
WAITING = Gauge("nereid_waiting", "Requests that wait for their turn")
REFUSED = Counter("nereid_refused_total", "Requests that were not worked at, by the reason", ["reason"])
KEY_REQUESTS = Counter(
    "nereid_key_requests_total",
    "Requests for which a key is asked, by its name and what became of that",
    ["key", "result"],
)
REQUESTS_BY_KEY = Counter(
    "nereid_requests_by_key_total",
    "Requests answered where a key is required, by its name, or an empty one without a good key, model and status",
    ["key", "model", "status"],
)
PREDICTOR_READY = Gauge("nereid_predictor_ready", "Whether Triton said that it is ready, when it was last asked")
BUILD = Info("nereid_build", "Versions; simplejpeg is libjpeg-turbo, which names none of its own")
BUILD.info(
    {
        "version": __version__,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "simplejpeg": simplejpeg.__version__,
    }
)

Reason = Literal["line full", "bodies full", "deadline", "slow body", "client gone"]
for _reason in get_args(Reason):
    REFUSED.labels(_reason)  # a rate needs the zero before the first

KeyResult = Literal["accepted", "no key", "unknown key"]

# Names of models that were found: of any other, which a client may make up at will, no series is made.
MODELS: set[str] = set()


def refuse(reason: Reason) -> None:
    """Count a request that was turned away, or given up."""
    REFUSED.labels(reason).inc()


def count_key(name: str, result: KeyResult) -> None:
    """Count a request for which a key is asked; the name is one of the file of keys, or "" where it has no good one."""
    _key(name, result).inc()


def expect_keys(names: Iterable[str]) -> None:
    """Have the series of these keys, and of refusals, begin at zero: a rate needs the zero before the first."""
    for name in names:
        _key(name, "accepted")
    _key("", "no key")
    _key("", "unknown key")


def count_request(route: str, model: str, version: str, status: int | str, seconds: float) -> None:
    """Count a request, whatever became of it; `status` is HTTP's or the name of gRPC's."""
    requests, request_seconds = _request(route, _known(model), version, status)
    requests.inc()
    request_seconds.observe(seconds)


def count_unreadable(status: int) -> None:
    """Count what was refused before it was a request; it has no route, and its time says nothing."""
    _unreadable(status).inc()


def count_request_by_key(key: str, model: str, status: int | str) -> None:
    """Count the same where keys are required; the name is one of the file of keys, or "" without a good one."""
    _by_key(key, _known(model), status).inc()


def _known(model: str) -> str:
    return model if model in MODELS else ""


def count_item(name: str, version: str, stage_ms: Mapping["Stage", float]) -> None:
    """Count an answered picture, or a request for rows or tensors."""
    items, stages = _item(name, version, tuple(stage_ms))
    items.inc()
    for stage, ms in zip(stages, stage_ms.values(), strict=True):
        stage.observe(ms / 1000)


def count_image(model: Model, stage_ms: Mapping["Stage", float], *, pixels: int, detections: int | None) -> None:
    """Count an answered picture; `detections` is None of a classifier."""
    count_item(model.name, model.version, stage_ms)
    image_pixels, image_detections = _image(model.name)
    image_pixels.observe(pixels)
    if detections is not None:
        image_detections.observe(detections)


# labels() costs more than to count; what it gives is kept. Clients choose none of the arguments.
@cache
def _request(route: str, model: str, version: str, status: int | str) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(route, model, version, status), REQUEST_SECONDS.labels(route)


@cache
def _key(name: str, result: KeyResult) -> Counter:
    return KEY_REQUESTS.labels(name, result)


@cache
def _unreadable(status: int) -> Counter:
    return REQUESTS.labels("other", "", "", status)


@cache
def _by_key(name: str, model: str, status: int | str) -> Counter:
    return REQUESTS_BY_KEY.labels(name, model, status)


@cache
def _item(name: str, version: str, stages: tuple[str, ...]) -> tuple[Counter, list[Histogram]]:
    return ITEMS.labels(name, version), [STAGE_SECONDS.labels(name, stage) for stage in stages]


@cache
def _image(name: str) -> tuple[Histogram, Histogram]:
    return IMAGE_PIXELS.labels(name), DETECTIONS.labels(name)
