"""What a server of the repository says of itself, over HTTP."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

import access
from export.errors import ExportError

_PICTURES = Path(__file__).parents[2] / "loadtest" / "pictures"
_TIMEOUT_S = 10
_POLL_S = 0.5

# State of each version by its number: {"state": ..., "reason": ...}
States = dict[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a model says of a picture or row, "-" where nothing answers.

    Attributes:
        failed: the response was an error.
    """

    version: str = "-"
    says: str = "-"
    ms: str = "-"
    failed: bool = False


class Server:
    """The transformer at a URL."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self._client = client

    def status(self) -> Mapping[str, Any] | None:
        """/status, or None where no synchroniser is behind the server.

        Raises:
            ExportError: nothing answers, or not as expected.
        """
        reply = self._request("GET", "/status")
        if reply.status_code == 404:
            return None
        content = _json(reply)
        if reply.is_error or "models" not in content:
            raise ExportError(f"{self.url}/status: {reply.status_code} {content.get('error', 'is no status')}")
        return content

    def describe(self, model: str) -> Mapping[str, Any] | None:
        """/v2/models/<model>, or None where it does not serve.

        Raises:
            ExportError: nothing answers.
        """
        reply = self._request("GET", f"/v2/models/{model}")
        content = _json(reply)
        return content if reply.is_success and "versions" in content else None

    def states(self, model: str, status: Mapping[str, Any] | None) -> States:
        """What becomes of each version; without a status, of those that serve."""
        if status is not None:
            versions = status["models"].get(model, {}).get("versions", {})
            return {int(number): state for number, state in versions.items()}
        described = self.describe(model)
        return {int(number): {"state": "serving"} for number in (described["versions"] if described else ())}

    def ask(self, model: str) -> Answer:
        """Send a request that a model of its kind takes: a shipped picture, or a row as `_row` makes it."""
        described = self.describe(model)
        if described is None:
            return Answer()
        version = ", ".join(described["versions"])
        task = described.get("parameters", {}).get("task")
        if not task:
            return Answer(version, "its config names no task")
        if task == "tabular":
            request: dict[str, Any] = {"json": _row(described)}
        else:
            picture = _PICTURES / ("seven.png" if task == "classify" else "digits.jpg")
            request = {"files": {"image": picture.read_bytes()}}
        # The first request of a version pays for what later ones find ready: sent twice, shown once.
        self._request("POST", f"/predict/{model}", **request)
        reply = self._request("POST", f"/predict/{model}", **request)
        content = _json(reply)
        if reply.is_error or "predictions" not in content:
            return Answer(version, f"{reply.status_code} {content.get('error', '')}", failed=True)
        return Answer(content["model"]["version"], _summary(content), f"{content['timing_ms']['total']:.1f}")

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            reply = self._client.request(method, path, **content)
        except httpx.HTTPError as exc:
            raise ExportError(
                f"{self.url}: {str(exc) or type(exc).__name__}; next: make serve, or correct the URL"
            ) from exc
        try:
            access.check(self.url, reply.status_code, reply.text)
        except access.AccessError as exc:
            raise ExportError(str(exc)) from exc
        return reply


@contextmanager
def connect(url: str | None) -> Iterator[Server | None]:
    """The transformer at a URL, None without one; nothing is asked yet.

    Where NEREID_API_KEY is set it is shown, in a header that httpx takes away where a redirect leads elsewhere.

    Raises:
        ExportError: it is no URL, or no key.
    """
    if not url:
        yield None
        return
    if not url.lower().startswith(("http://", "https://")):
        raise ExportError(f"URL: got {url!r}, expected such as http://localhost:8080")
    try:
        headers = access.headers()
    except access.AccessError as exc:
        raise ExportError(str(exc)) from exc
    try:
        client = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True)
    except httpx.InvalidURL as exc:
        raise ExportError(f"URL: got {url!r} ({exc}), expected such as http://localhost:8080") from exc
    with client:
        yield Server(url.rstrip("/"), client)


class NotServed(ExportError):
    """The server will not serve the version; waiting longer does not help."""


class Watch:
    """Waits until a version serves.

    What the server says of a number may be of a version that had it before and was deleted: it counts from the next
    listing on, from the one after that where the number was known.
    """

    def __init__(self, server: Server, model: str, number: int, *, uploaded: bool) -> None:
        """Begin, with the upload complete.

        Args:
            server: to look at.
            model: its name.
            number: of the version.
            uploaded: just now; False where the version was there already.
        """
        self._server, self._model, self._number = server, model, number
        self._began = time.monotonic()
        self._listings: set[str | None] = set()
        self._stale = int(uploaded)
        if uploaded:
            with suppress(ExportError):  # it may come back while we wait
                status = server.status()
                if status is not None:
                    self._listings.add(_listing(status).get("at"))
                    self._stale += number in server.states(model, status)

    def until_serving(self, timeout_s: float) -> float:
        """Wait; the seconds since the beginning.

        Raises:
            NotServed: the version is refused, or not asked for.
            ExportError: it takes too long.
        """
        while True:
            try:
                state = self._look()
            except NotServed:
                raise
            except ExportError as exc:
                state = str(exc)
            elapsed_s = time.monotonic() - self._began
            if state == "serving":
                return elapsed_s
            if elapsed_s > timeout_s:
                raise ExportError(
                    f"{self._name}: does not serve after {timeout_s:g} s, expected it to; the last that is known: "
                    f"{state}; next: make versions URL=..., or a longer TIMEOUT_S"
                )
            time.sleep(_POLL_S)

    @property
    def _name(self) -> str:
        return f"{self._model} {self._number} at {self._server.url}"

    def _look(self) -> str:
        status = self._server.status()
        answers = str(self._number) in (self._server.describe(self._model) or {"versions": ()})["versions"]
        if status is None:
            return "serving" if answers else "not among the versions that serve"
        listing = _listing(status)
        self._listings.add(listing.get("at"))
        about = status["models"].get(self._model, {})
        state = about.get("versions", {}).get(str(self._number), {"state": "not listed yet"})
        if len(self._listings) > self._stale:
            if state["state"] == "serving" and answers:
                return "serving"
            if state["state"] == "refused":
                raise NotServed(
                    f"{self._name}: refused: {state.get('reason')}; what served before goes on; next: correct it, and "
                    "publish again"
                )
            policy = str(about.get("policy"))
            if state["state"] == "available" and policy.startswith("specific"):
                undo = "change that setting of the server" if policy.endswith("(setting)") else "make unpin"
                raise NotServed(f"{self._name}: not asked for: the policy is {policy}, expected latest; next: {undo}")
        return describe_state(state) + "".join(
            f"; {what}" for what in (about.get("error"), describe_listing(status)) if what
        )


def describe_state(state: Mapping[str, Any]) -> str:
    """A version's state, and the reason where there is one."""
    return f"{state['state']}: {state['reason']}" if state.get("reason") else str(state["state"])


def describe_listing(status: Mapping[str, Any]) -> str:
    """How the server sees the repository."""
    listing = _listing(status)
    if not listing.get("ok"):
        return f"listing fails since {listing.get('failing_since')}: {listing.get('error')}"
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(listing["at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return "not listed yet"
    return f"listed {max(age, 0):.0f} s ago"


def _listing(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return status.get("listing") or {}


def _row(described: Mapping[str, Any]) -> list[Any]:
    """A row that a table model takes: the first category of a column where it lists them, else 1 as number or text."""
    datatypes = [each["datatype"] for each in described["inputs"] for _ in range(max(each["shape"][-1], 1))]
    row: list[Any] = ["1" if datatype == "BYTES" else 1.0 for datatype in datatypes]
    parameters = described["parameters"]
    for name, categories in parameters.get("categories", {}).items():
        row[parameters["features"].index(name)] = categories[0]
    return row


def _json(reply: httpx.Response) -> Mapping[str, Any]:
    try:
        content = reply.json()
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _summary(reply: Mapping[str, Any]) -> str:
    predictions = reply["predictions"]
    if not predictions:
        return "nothing found"
    best = predictions[0]
    label = f"{best['class']} {best['confidence']:.3f}" if "class" in best else f"{best['value']:.4g}"
    return f"{len(predictions)} detections, the best {label}" if reply["model"]["task"] == "detect" else label
