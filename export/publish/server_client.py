"""The transformer that serves a repository, over HTTP; behind one URL there may be several instances of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from environment import api_key
from environment.example_request import find_image, make_row
from export.errors import ExportError
from export.publish.instances import Endpoint

# Consecutive connections, for each known instance, that must lead to those alone: where a balancer chooses at random, a
# further instance is missed once in 250 times at most, however many there are.
_CONSECUTIVE = 8
_MOST_CONSECUTIVE = 512

# State of each version by its number: {"state": ..., "reason": ...}
States = dict[int, Mapping[str, Any]]
# /status of each instance by its name; "" where it has none, None where no synchroniser is behind the server.
Statuses = dict[str, Mapping[str, Any] | None]

T = TypeVar("T")


@dataclass(frozen=True)
class ExampleResponse:
    """What a model returns for the image or row of this command; "-" where no version serves.

    Attributes:
        version: that served it.
        summary: of its result, or the error.
        ms: how long the server took.
        failed: whether the response was an error.
    """

    version: str = "-"
    summary: str = "-"
    ms: str = "-"
    failed: bool = False


class Unreachable(ExportError):
    """No connection to the server, or to one of its addresses."""


class Server:
    """The transformer at a URL.

    Attributes:
        silent: addresses of its host name that did not respond beside others that did.
    """

    def __init__(self, url: str, client: httpx.Client, endpoint: Endpoint) -> None:
        self.url = url
        self.silent: list[str] = []
        self._client = client
        self._endpoint = endpoint

    def each(self, inspect: Callable[["Server"], T]) -> list[T]:
        """What `inspect` finds over a new connection to each address of the host name.

        Raises:
            Unreachable: none of them responds.
        """
        found: dict[str, T] = {}
        silent: dict[str, Unreachable] = {}
        for address in self._endpoint.addresses():
            try:
                with self._endpoint.open(address) as client:
                    found[address] = inspect(Server(self.url, client, self._endpoint))
            except Unreachable as exc:
                silent[address] = exc
        if not found:
            raise next(iter(silent.values()))
        self.silent = sorted(self._endpoint.exclude(found.keys(), silent.keys()))
        return list(found.values())

    def survey(self) -> Statuses:
        """`status` of each instance, over new connections until those lead to no further instance.

        Raises:
            ExportError: as `status`.
        """
        found: Statuses = {}
        consecutive = 0
        while consecutive < consecutive_connections(len(found)):
            for status in self.each(Server.status):
                name = instance(status)
                consecutive = consecutive + 1 if name in found else 1
                found.setdefault(name, status)
                if not name:  # several could not be distinguished
                    return found
        return found

    def status(self) -> Mapping[str, Any] | None:
        """/status, or None where no synchroniser is behind the server.

        Raises:
            ExportError: the server does not respond, or not as expected.
        """
        response = self._request("GET", "/status")
        if response.status_code == 404:
            return None
        content = _json(response)
        if response.is_error or "models" not in content:
            raise ExportError(f"{self.url}/status: {response.status_code} {content.get('error', 'is no status')}")
        return content

    def describe(self, model: str) -> Mapping[str, Any] | None:
        """/v2/models/<model>, or None where it does not serve.

        Raises:
            ExportError: the server does not respond.
        """
        response = self._request("GET", f"/v2/models/{model}")
        content = _json(response)
        return content if response.is_success and "versions" in content else None

    def states(self, model: str, status: Mapping[str, Any] | None) -> States:
        """The state of each version; without a status, of those that serve."""
        if status is not None:
            versions = status["models"].get(model, {}).get("versions", {})
            return {int(number): state for number, state in versions.items()}
        described = self.describe(model)
        return {int(number): {"state": "serving"} for number in (described["versions"] if described else ())}

    def try_example(self, model: str) -> ExampleResponse:
        """Send a request that a model of its kind takes: a shipped image, or a row."""
        described = self.describe(model)
        if described is None:
            return ExampleResponse()
        version = ", ".join(described["versions"])
        if not described.get("parameters", {}).get("task"):
            return ExampleResponse(version, "its config names no task")
        image = find_image(described)
        request = {"files": {"image": image.read_bytes()}} if image else {"json": make_row(described)}
        # The first request of a version pays for what later ones find ready: sent twice, shown once.
        self._request("POST", f"/predict/{model}", **request)
        response = self._request("POST", f"/predict/{model}", **request)
        content = _json(response)
        if response.is_error or "predictions" not in content:
            return ExampleResponse(version, f"{response.status_code} {content.get('error', '')}", failed=True)
        return ExampleResponse(content["model"]["version"], _summary(content), f"{content['timing_ms']['total']:.1f}")

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **content)
        except httpx.HTTPError as exc:
            kind = Unreachable if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout) else ExportError
            raise kind(f"{self.url}: {str(exc) or type(exc).__name__}; next: make serve, or correct the URL") from exc
        try:
            api_key.check(self.url, response.status_code, response.text)
        except api_key.AccessError as exc:
            raise ExportError(str(exc)) from exc
        return response


@contextmanager
def connect(url: str | None) -> Iterator[Server | None]:
    """The transformer at a URL, None without one; nothing is sent yet.

    Where NEREID_API_KEY is set it is sent, in a header that httpx removes where a redirect leads elsewhere.

    Raises:
        ExportError: the URL or the key is invalid.
    """
    if not url:
        yield None
        return
    endpoint = Endpoint(url)
    with endpoint.open() as client:
        yield Server(url.rstrip("/"), client, endpoint)


@contextmanager
def connect_all(urls: str | None) -> Iterator[list[Server]]:
    """The transformers at several URLs, with blanks or commas between.

    Raises:
        ExportError: as `connect`.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(connect(url)) for url in (urls or "").replace(",", " ").split()]
        yield [server for server in servers if server is not None]


def instance(status: Mapping[str, Any] | None) -> str:
    """The name of an instance, as its /status has it; empty where it has none."""
    return str((status or {}).get("instance") or "")


def consecutive_connections(instances: int) -> int:
    """How many consecutive connections must lead to known instances alone."""
    return min(_CONSECUTIVE * max(instances, 1), _MOST_CONSECUTIVE)


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _summary(response: Mapping[str, Any]) -> str:
    predictions = response["predictions"]
    if not predictions:
        return "nothing found"
    best = predictions[0]
    label = " ".join(
        f"{best[key]:.4g}" if key == "value" else str(best[key]) for key in ("class", "value") if key in best
    )
    if "confidence" in best:
        label += f" {best['confidence']:.3f}"
    return f"{len(predictions)} detections, the best {label}" if "limits_reached" in response else label
