"""The request to the transformer."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from environment import api_key
from environment.error_codes import ErrorCode
from worker.errors import Away, Failed, Undeliverable
from worker.messages import Job

# What another try of the same message cannot change. Other rejections are about the worker, the server or a proxy.
_ABOUT_THE_MESSAGE = {
    ErrorCode.INVALID_REQUEST,
    ErrorCode.INVALID_IMAGE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA,
    ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.VERSION_NOT_FOUND,
}
_TOO_LARGE = {413, 414, 431}  # also of a proxy in front
_ELSEWHERE = {404, 405, 421, 429}  # of another server, or a proxy: WORKER_URL is wrong, or there is too much at once
_CONNECT_S = 5.0


class Transformer:
    """A client of the server; threads may share it."""

    def __init__(self, url: str, *, timeout_s: float, together: int) -> None:
        """Nothing is sent yet.

        Args:
            url: of the server.
            timeout_s: of a response.
            together: how many requests may be in progress.

        Raises:
            AccessError: NEREID_API_KEY is invalid.
        """
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers=api_key.headers(),
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=together, max_keepalive_connections=together),
            trust_env=False,
        )
        self._url = url

    def is_ready(self) -> bool:
        """Whether the server is ready to respond."""
        try:
            return self._client.get("/v2/health/ready").is_success
        except httpx.TransportError:
            return False

    def predict(self, job: Job, image: bytes, *, request_id: str) -> dict[str, Any]:
        """The response to an image, as of `POST /predict/<model>`.

        Args:
            job: model and parameters.
            image: encoded.
            request_id: for the logs of the server.

        Raises:
            Undeliverable: the server will not take it another time either.
            Away: the server is away or busy.
            Failed: it failed at this image.
        """
        headers = {"Content-Type": "application/octet-stream", "X-Request-Id": request_id}
        document: dict[str, Any] = self._post(f"/predict/{quote(job.model)}?{job.query}", image, headers)
        return document

    def predict_rows(self, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The response to rows of a table, as of `POST /predict/<model>`; raises as `predict` does.

        Args:
            model: its name.
            rows: values by column; one that JSON does not have, such as a date, is sent as a word.
        """
        headers, content = {"Content-Type": "application/json"}, json.dumps(rows, default=str).encode()
        document: dict[str, Any] = self._post(f"/predict/{quote(model)}", content, headers)
        return document

    def describe(self, model: str) -> dict[str, Any]:
        """The metadata of a model, as of `GET /v2/models/<model>`; raises as `predict` does."""
        document: dict[str, Any] = self._send("GET", f"/v2/models/{quote(model)}")
        return document

    def describe_server(self) -> dict[str, Any]:
        """What the server responds with, in OpenAPI; raises as `predict` does.

        Raises:
            Undeliverable: the server has no such document (TRANSFORMER_DOCS).
        """
        document: dict[str, Any] = self._send("GET", "/openapi.json", about={ErrorCode.ROUTE_NOT_FOUND})
        return document

    def _post(self, path: str, content: bytes, headers: Mapping[str, str]) -> Any:
        return self._send("POST", path, content=content, headers=headers)

    def _send(
        self, method: str, path: str, *, about: Collection[str] = frozenset(_ABOUT_THE_MESSAGE), **request: Any
    ) -> Any:
        try:
            response = self._client.request(method, path, **request)
        except httpx.ReadTimeout as exc:
            raise Failed(f"{self._url}: no response within {self._client.timeout.read} s") from exc
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise Away(f"{self._url}: {exc or type(exc).__name__}") from exc
        except httpx.TransportError as exc:  # in the middle: it may have died of this very image
            raise self._blame(f"{self._url}: {exc or type(exc).__name__}") from exc
        if not response.is_success:
            raise self._error_of(response, about)
        try:
            return response.json()
        except ValueError as exc:
            raise Away(f"{self._url}: expected JSON, got {response.text[:80]!r}") from exc

    def _error_of(self, response: httpx.Response, about: Collection[str]) -> Exception:
        """What a rejection says: of the request where its code is one of `about`, else of the server."""
        code, text = _read_error(response)
        if code in about or response.status_code in _TOO_LARGE:
            return Undeliverable(code, text)
        where = f"{self._url}: {response.status_code} {text}"
        if "retry-after" in response.headers:
            return Away(where, _read_seconds(response.headers["retry-after"]))
        if response.status_code in {401, 403}:
            return Away(f"{where}; {api_key.NEXT}")
        if response.status_code in _ELSEWHERE or (response.status_code == 503 and code.startswith("http_")):
            return Away(where)
        return self._blame(where) if response.is_server_error else Failed(where)

    def _blame(self, reason: str) -> Exception:
        """What a failure in the middle of a request says: of the image where the server is well."""
        return Failed(reason) if self.is_ready() else Away(reason)


def _read_error(response: httpx.Response) -> tuple[str, str]:
    try:
        document = response.json()
        return str(document["code"]), str(document["error"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):  # of a proxy in front
        return f"http_{response.status_code}", f"{response.status_code} {response.text[:200]}"


def _read_seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
