"""A client of Nereid for labelling tools: an image in, the response of `/predict` out, errors in words."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

URL = "http://localhost:8080"
# Of these statuses the API says that the same request may soon succeed, where it says when.
_RETRIED = frozenset({429, 503})
_NEXT = {
    401: "set NEREID_API_KEY to one of the server's keys",
    403: "set NEREID_API_KEY to one of the server's keys",
    404: "GET /v2/models lists the models",
    429: "the server has more work than it can do: send less at once, add a replica",
    503: "GET /status says what the server waits for",
}


class NereidError(Exception):
    """A request failed; the message says what, and what to do next.

    Attributes:
        status: of HTTP; 0 where there was no response.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Model:
    """What a model finds.

    Attributes:
        name, version, task: of the version that serves.
        classes: names by class_id.
        keypoints: names of keypoints by class_id; of the task pose.
    """

    name: str
    version: str
    task: str
    classes: dict[int, str]
    keypoints: dict[int, list[str]] = field(default_factory=dict)

    def expect(self, *tasks: str) -> "Model":
        """Itself.

        Raises:
            NereidError: the model has another task.
        """
        if self.task not in tasks:
            raise NereidError(
                f"model {self.name}: the task is {self.task or 'unknown'}, expected {', '.join(tasks)}; "
                "next: name another model, GET /v2/models lists them"
            )
        return self


class Nereid:
    """One model of a server. An API key is sent to that server alone: redirects are not followed."""

    def __init__(  # noqa: PLR0913
        self,
        model: str,
        url: str = "",
        api_key: str = "",
        *,
        timeout_s: float = 60.0,
        patience_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            model: its name.
            url: of the server; without it NEREID_URL, else http://localhost:8080.
            api_key: without it NEREID_API_KEY, else none.
            timeout_s: of one request.
            patience_s: how long 429 and 503 are retried, in all, where the server says when.
            sleep: what waits.
        """
        self.model, self.url = model, (url or os.environ.get("NEREID_URL", "") or URL).rstrip("/")
        key = api_key or os.environ.get("NEREID_API_KEY", "")
        self._patience_s, self._sleep = patience_s, sleep
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise NereidError(f"invalid URL or API key for {self.url}: {error}") from error

    def metadata(self) -> Model:
        """Task and names of the model.

        Raises:
            NereidError: as of `predict`.
        """
        metadata = self._send("GET", f"/v2/models/{self.model}")
        said = metadata.get("parameters") or {}
        names = said.get("names") or []
        classes = dict(zip(said.get("class_ids") or range(len(names)), names, strict=True))
        keypoints = {int(index): list(each) for index, each in (said.get("kpt_names") or {}).items()}
        count = (said.get("kpt_shape") or [0])[0]
        keypoints = {index: keypoints.get(index) or [str(each) for each in range(count)] for index in classes}
        version = max(metadata.get("versions") or ["0"], key=int)
        return Model(self.model, version, str(said.get("task", "")), classes, keypoints if count else {})

    def predict(self, image: bytes, **parameters: str | float | list[str] | None) -> dict[str, Any]:
        """The response of `POST /predict/<model>`; its coordinates are pixels of the image after EXIF rotation.

        Args:
            image: an encoded image.
            parameters: of the query; those that are None are left out.

        Raises:
            NereidError: no connection, no response in time, or an error of the server.
        """
        query = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Content-Type": "application/octet-stream"}
        return self._send("POST", f"/predict/{self.model}", params=query, content=image, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        waited_s = 0.0
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TimeoutException as error:
                raise NereidError(f"no response of {self.url} in time ({type(error).__name__})") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise NereidError(f"no server at {self.url}: {error}; next: start it, or set NEREID_URL") from error
            pause_s = _pause_s(response)
            if pause_s is None or waited_s + pause_s > self._patience_s:
                return self._read(response)
            self._sleep(pause_s)
            waited_s += pause_s

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.status_code == httpx.codes.OK and isinstance(body, dict):
            return body
        said = body.get("error") if isinstance(body, dict) else None
        step = _NEXT.get(response.status_code)
        message = f"model {self.model} of {self.url}: {response.status_code}, {said or 'not a response of Nereid'}"
        raise NereidError(f"{message}; next: {step}" if step else message, response.status_code)


def _pause_s(response: httpx.Response) -> float | None:
    """Seconds until the same request is worth another try; None where it is not."""
    said = response.headers.get("Retry-After", "")
    return max(0.1, float(said)) if response.status_code in _RETRIED and said.isdecimal() else None


def decode_mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """`(height, width)` of the image, from `rle` of a prediction."""
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask.astype(bool)
