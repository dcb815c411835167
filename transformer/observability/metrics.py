"""Prometheus metrics of the transformer."""

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, get_args

import cv2
import simplejpeg
from prometheus_client import Counter, Gauge, Histogram, Info

from environment import __version__
from transformer.observability.stage_timer import Stage

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BUCKETS_PIXELS = (1e4, 5e4, 1e5, 3e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7)
_BUCKETS_COUNT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

REQUESTS = Counter("nereid_requests_total", "Requests with a response", ["route", "model", "version", "status"])
REQUEST_SECONDS = Histogram("nereid_request_seconds", "Whole requests", ["route"], buckets=_BUCKETS_S)
ITEMS = Counter("nereid_items_total", "Images, and requests of rows or tensors, with a result", ["model", "version"])
STAGE_SECONDS = Histogram("nereid_stage_seconds", "Stages of an item", ["model", "stage"], buckets=_BUCKETS_S)
IMAGE_PIXELS = Histogram("nereid_image_pixels", "Width x height of an image", ["model"], buckets=_BUCKETS_PIXELS)
DETECTIONS = Histogram("nereid_detections", "Detections in an image", ["model"], buckets=_BUCKETS_COUNT)
IN_FLIGHT = Gauge("nereid_in_flight", "Requests in progress")
WAITING = Gauge("nereid_waiting", "Requests in the queue")
REJECTED = Counter("nereid_refused_total", "Requests that were rejected or abandoned, by reason", ["reason"])
KEY_REQUESTS = Counter(
    "nereid_key_requests_total",
    "Requests that need an API key, by its name and result",
    ["key", "result"],
)
REQUESTS_BY_KEY = Counter(
    "nereid_requests_by_key_total",
    "Requests with a response where API keys are required, by key (empty without a valid one), model and status",
    ["key", "model", "status"],
)
PREDICTOR_READY = Gauge("nereid_predictor_ready", "Whether Triton was ready at the last check")
BUILD = Info("nereid_build", "Versions; simplejpeg contains libjpeg-turbo, which does not report its own")
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
    REJECTED.labels(_reason)  # a rate needs the zero before the first

KeyResult = Literal["accepted", "no key", "unknown key"]

# Unknown names share the empty label, so that clients cannot add series at will.
KNOWN_MODELS: set[str] = set()


def count_rejected(reason: Reason) -> None:
    """Count a request that was rejected or abandoned."""
    REJECTED.labels(reason).inc()


def count_key(name: str, result: KeyResult) -> None:
    """Count a request that needs a key; `name` is one of the file of keys, or "" without a valid key."""
    _key(name, result).inc()


def expect_keys(names: Iterable[str]) -> None:
    """Start the series of these keys, and of rejections, at zero: a rate needs the zero before the first."""
    for name in names:
        _key(name, "accepted")
    _key("", "no key")
    _key("", "unknown key")


def count_request(route: str, model: str, version: str, status: int | str, seconds: float) -> None:
    """Count a finished request; `status` is HTTP's or the name of gRPC's."""
    requests, request_seconds = _request(route, _known(model), version, status)
    requests.inc()
    request_seconds.observe(seconds)


def count_unreadable(status: int) -> None:
    """Count what could not be parsed as a request: it has no route and no meaningful duration."""
    _unreadable(status).inc()


def count_request_by_key(key: str, model: str, status: int | str) -> None:
    """Count a finished request where keys are required; `key` is one of the file of keys, or "" without a valid key."""
    _by_key(key, _known(model), status).inc()


def _known(model: str) -> str:
    return model if model in KNOWN_MODELS else ""


def count_item(name: str, version: str, stage_ms: Mapping[Stage, float], *, items: int = 1) -> None:
    """Count an image, a request of rows or tensors, or the crops of a request, that has a result."""
    counter, stages = _item(name, version, tuple(stage_ms))
    counter.inc(items)
    for stage, ms in zip(stages, stage_ms.values(), strict=True):
        stage.observe(ms / 1000)


def count_image(
    name: str, version: str, stage_ms: Mapping[Stage, float], *, pixels: int, detections: int | None
) -> None:
    """Count an image that has a result; `detections` is None where its task finds no objects."""
    count_item(name, version, stage_ms)
    image_pixels, image_detections = _image(name)
    image_pixels.observe(pixels)
    if detections is not None:
        image_detections.observe(detections)


# labels() costs more than counting, so its results are kept. Clients choose none of the arguments.
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
