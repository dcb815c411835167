"""Requests to a server; while it is away or busy they are tried again, which is said in one line."""

import argparse
import ast
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import Any

import cv2
import httpx
import numpy as np

from integrations.track.report import TrackError, say
from integrations.track.source import Image

TASKS = ("detect", "segment", "pose", "obb")
_REQUEST_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _MAX_RETRY_AFTER_S = 0.5, 30.0, 300.0
_BUSY = {429, 503}  # whatever the image
_PASSING = {404, 408, 500, 502, 504} | _BUSY  # 404: a model that was there a moment ago, while a server starts again
_TRIES = 5  # of an image of a file that a server fails at
_LENGTHS = ("x", "y", "width", "height", "x1", "y1", "x2", "y2")
_REQUIRED, _CORNERS = itemgetter("class", "class_id", "confidence"), itemgetter("x1", "y1", "x2", "y2")
_POINTS = ("points", "polygons", "corners", "keypoints", "box", "rotated_box")


class Server:
    """Requests to one model, from several threads; what passes is waited for, and said once."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Read what the model is.

        Raises:
            TrackError: there is no server, no such model, or it finds no objects.
        """
        self._url, self._model = options.url.rstrip("/"), options.model
        key = os.environ.get("NEREID_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=options.in_flight, keepalive_expiry=60)
        self._client = httpx.Client(
            base_url=self._url, headers=headers, timeout=_REQUEST_S, limits=limits, trust_env=False
        )
        self._query: dict[str, Any] = {"confidence": options.confidence, "max_detections": options.max_detections}
        if options.classes:
            self._query["classes"] = options.classes
        self._quality = options.quality
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._is_stopped = False
        self._next_at, self._pause_s = 0.0, _FIRST_PAUSE_S
        self._longest_side = self._read_model(options.size)

    def stop(self) -> None:
        """Say nothing more: what is in flight is not waited for."""
        self._is_stopped = True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def is_away(self) -> bool:
        """Whether a request would only find what the last one found."""
        with self._lock:
            return self._away_since is not None and time.monotonic() < self._next_at

    def infer(self, image: Image, *, until: Callable[[], bool] | None) -> tuple[dict[str, Any], float] | None:
        """The response for an image, in its pixels, and the latency in ms; None where the server did not respond.

        Args:
            image: of any size.
            until: for frames that must not be lost: tried again until it is true.

        Raises:
            TrackError: the server rejects the request, and would reject the next one.
        """
        body, scale_xy = self._encode(image)
        for _ in range(_TRIES):
            began = time.monotonic()
            response = self._post_until(body, until)
            if response is None:
                return None
            if response.is_success:
                return self._read(response, image, scale_xy), (time.monotonic() - began) * 1000
            if until is None:
                return None
            self._wait(until)
        return None

    def _read(self, response: httpx.Response, image: Image, scale_xy: tuple[float, float]) -> dict[str, Any]:
        try:
            found = [rescale(each, scale_xy) for each in response.json()["predictions"]]
            for each in found:
                _REQUIRED(each), _CORNERS(each["box"])
        except (ValueError, LookupError, TypeError, AttributeError) as exc:
            raise self._not_nereid(response) from exc
        return {"image": {"width": image.shape[1], "height": image.shape[0]}, "predictions": found}

    def _not_nereid(self, response: httpx.Response) -> TrackError:
        got = response.text[:100].strip()
        return TrackError(f"{response.url}: got {got!r}, expected a response of Nereid; next: make serve, or --url")

    def _post_until(self, body: bytes, until: Callable[[], bool] | None) -> httpx.Response | None:
        """A response of a server that is neither away nor busy."""
        while True:
            response = self._post(body)
            if response is not None and response.status_code not in _BUSY:
                return response
            if until is None or until():
                return None
            self._wait(until)

    def _wait(self, until: Callable[[], bool]) -> None:
        """Until the next attempt is due, or there is none."""
        pause_s = 0.05
        while pause_s > 0 and not until():
            time.sleep(min(pause_s, 0.2))
            pause_s = self._next_at - time.monotonic()

    def _encode(self, image: Image) -> tuple[bytes, tuple[float, float]]:
        height, width = image.shape[:2]
        longest = self._longest_side
        if longest and max(height, width) > longest:
            factor = longest / max(height, width)
            size_wh = (max(round(width * factor), 1), max(round(height * factor), 1))
            image = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        assert done, "OpenCV encodes any image of 8 bits"  # noqa: S101
        return encoded.tobytes(), (width / image.shape[1], height / image.shape[0])

    def _post(self, body: bytes) -> httpx.Response | None:
        try:
            response = self._client.post(
                f"/predict/{self._model}", params=self._query, content=body, headers={"Content-Type": "image/jpeg"}
            )
        except httpx.HTTPError as exc:
            self._note(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)
            return None
        if response.is_success:
            self._note_success()
            return response
        if response.status_code in _PASSING:
            self._note(f"{response.status_code} {_error_of(response)}", response.headers.get("retry-after", ""))
            return response
        raise TrackError(f"{self._url}: {response.status_code} {_error_of(response)}")

    def _note(self, why: str, retry_after: str = "") -> None:
        """Say that the server is away, once for all requests that find it so before the next attempt."""
        with self._lock:
            now = time.monotonic()
            if self._is_stopped or (self._away_since is not None and now < self._next_at):
                return
            pause_s = self._pause_s
            with suppress(ValueError):
                pause_s = min(max(float(retry_after), pause_s), _MAX_RETRY_AFTER_S)
            self._away_since = self._away_since or now
            self._next_at, self._pause_s = now + pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
        say(f"server: {why}; next attempt in {pause_s:g} s")

    def _note_success(self) -> None:
        with self._lock:
            if self._away_since is None:
                return
            away_s, self._away_since = time.monotonic() - self._away_since, None
            self._next_at, self._pause_s = 0.0, _FIRST_PAUSE_S
        say(f"server: responds again after {away_s:.1f} s")

    def _read_model(self, size: str) -> int:
        """The longest side in pixels that is sent; 0 for any."""
        parameters = self._get(f"/v2/models/{self._model}").get("parameters") or {}
        if parameters.get("task") not in TASKS:
            got = parameters.get("task") or "a model without a task"
            raise TrackError(f"{self._model}: got {got}, expected a model that finds objects: {', '.join(TASKS)}")
        if size == "full":
            return 0
        if size != "model":
            return int(size)
        config = self._get(f"/v2/models/{self._model}/config")
        try:
            metadata = ast.literal_eval(config["parameters"]["metadata"]["string_value"])
            return int(max(metadata["imgsz"]))
        except (ValueError, LookupError, TypeError, SyntaxError) as exc:
            raise TrackError(f"{self._model}: its config names no size; next: --size full, or pixels") from exc

    def _get(self, path: str) -> dict[str, Any]:
        try:
            response = self._client.get(path)
            while response.status_code == 503:
                self._note(f"503 {_error_of(response)}", response.headers.get("retry-after", ""))
                time.sleep(max(self._next_at - time.monotonic(), 0))
                response = self._client.get(path)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise TrackError(f"{self._url}: {exc}; expected a server; next: make serve, or --url") from exc
        if response.status_code == 404:
            known = self._client.get("/v2/models")
            names = f"; expected one of {', '.join(known.json()['models'])}" if known.is_success else ""
            raise TrackError(f"{self._url}: {_error_of(response)}{names}")
        if response.status_code in {401, 403}:
            raise TrackError(f"{self._url}: {_error_of(response)}; next: NEREID_API_KEY=<key>")
        if response.is_error:
            raise TrackError(f"{self._url}: {response.status_code} {_error_of(response)}")
        self._note_success()
        with suppress(ValueError):
            document = response.json()
            if isinstance(document, dict):
                return document
        raise self._not_nereid(response)


def _error_of(response: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(response.json()["error"])
    return response.text[:200].strip() or response.reason_phrase


def rescale(prediction: dict[str, Any], scale_xy: tuple[float, float]) -> dict[str, Any]:
    """A prediction in pixels of the frame, from one in pixels of what was sent; both axes had the same factor."""

    def scaled(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {key: scaled(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [scaled(each, name) for each in value]
        if name not in _LENGTHS:
            return value
        return round(value * scale_xy[name[0] in "yh"], 3)

    return {name: scaled(value, name) if name in (*_LENGTHS, *_POINTS) else value for name, value in prediction.items()}
