"""What a server of the repository says of itself, over HTTP; behind one URL there may be several instances of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from environment import api_key
from export.errors import ExportError
from export.remote.entrance import Entrance

_PICTURES = Path(__file__).parents[2] / "loadtest" / "pictures"
_POLL_S = 0.5
# Connections in a row, for each instance that is known, that must lead to those alone: where a balancer chooses at
# random, a further one is missed once in 250 times at most, however many there are.
_IN_A_ROW = 8
_MOST_IN_A_ROW = 512
_SHOWN = 10  # names of instances

# State of each version by its number: {"state": ..., "reason": ...}
States = dict[int, Mapping[str, Any]]
# /status of each instance by its name; "" where it has none, None where no synchroniser is behind the server.
Statuses = dict[str, Mapping[str, Any] | None]
# From what decides to what does not, where instances differ.
_RANK = ("serving", "staged", "refused", "available", "incomplete")

T = TypeVar("T")


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


class Away(ExportError):
    """No connection to the server, or to one of its addresses."""


class Server:
    """The transformer at a URL.

    Attributes:
        silent: addresses of its name that did not answer beside others that did.
    """

    def __init__(self, url: str, client: httpx.Client, entrance: Entrance) -> None:
        self.url = url
        self.silent: list[str] = []
        self._client = client
        self._entrance = entrance

    def each(self, look: Callable[["Server"], T]) -> list[T]:
        """What `look` finds over a new connection to each address that the name has.

        Raises:
            Away: none of them answers.
        """
        found: dict[str, T] = {}
        silent: dict[str, Away] = {}
        for address in self._entrance.addresses():
            try:
                with self._entrance.open(address) as client:
                    found[address] = look(Server(self.url, client, self._entrance))
            except Away as exc:
                silent[address] = exc
        if not found:
            raise next(iter(silent.values()))
        self.silent = sorted(self._entrance.leave_out(found.keys(), silent.keys()))
        return list(found.values())

    def survey(self) -> Statuses:
        """`status` of each instance, over new connections, until those lead to no other one any more.

        Raises:
            ExportError: as `status`.
        """
        found: Statuses = {}
        in_a_row = 0
        while in_a_row < wanted_in_a_row(len(found)):
            for status in self.each(Server.status):
                name = instance(status)
                in_a_row = in_a_row + 1 if name in found else 1
                found.setdefault(name, status)
                if not name:  # several could not be distinguished
                    return found
        return found

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
            kind = Away if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout) else ExportError
            raise kind(f"{self.url}: {str(exc) or type(exc).__name__}; next: make serve, or correct the URL") from exc
        try:
            api_key.check(self.url, reply.status_code, reply.text)
        except api_key.AccessError as exc:
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
    entrance = Entrance(url)
    with entrance.open() as client:
        yield Server(url.rstrip("/"), client, entrance)


@contextmanager
def connect_all(urls: str | None) -> Iterator[list[Server]]:
    """The transformers at several URLs, with blanks or commas between.

    Raises:
        ExportError: as `connect`.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(connect(url)) for url in (urls or "").replace(",", " ").split()]
        yield [server for server in servers if server is not None]


def survey(servers: Sequence[Server]) -> Statuses:
    """`Server.survey` of several, which are in the names then.

    Raises:
        ExportError: as there.
    """
    if len(servers) == 1:
        return servers[0].survey()
    return {f"{name} at {each.url}".lstrip(): status for each in servers for name, status in each.survey().items()}


def states_of(servers: Sequence[Server], model: str, statuses: Statuses) -> States:
    """What becomes of each version of a model at all instances: see `merge`."""
    known = [status for status in statuses.values() if status is not None]
    by_instance = {name: servers[0].states(model, status) for name, status in statuses.items() if status is not None}
    if not known:
        by_instance = {server.url: server.states(model, None) for server in servers}
    return merge(by_instance)


def merge(by_instance: Mapping[str, States]) -> States:
    """One state for each version; where instances differ the first of `_RANK`, and the reason names them all.

    Beside it `refused` then says whether any of them refuses it.
    """
    merged: States = {}
    for number in sorted({number for states in by_instance.values() for number in states}):
        found: dict[str, list[str]] = {}  # names by what they say
        of_words: dict[str, Mapping[str, Any]] = {}
        for name, states in by_instance.items():
            state = states.get(number, {"state": "not listed yet"})
            found.setdefault(describe_state(state), []).append(name)
            of_words.setdefault(describe_state(state), state)
        first = min(of_words.values(), key=lambda state: _rank(state["state"]))
        if len(found) > 1:
            reason = "; ".join(f"{words} on {_list(names)}" for words, names in found.items())
            refused = any(state["state"] == "refused" for state in of_words.values())
            first = {"state": first["state"], "reason": reason, "refused": refused}
        merged[number] = first
    return merged


def instance(status: Mapping[str, Any] | None) -> str:
    """The name of an instance, as its /status has it; empty where none does."""
    return str((status or {}).get("instance") or "")


def wanted_in_a_row(instances: int) -> int:
    """How many connections in a row must lead to known instances alone."""
    return min(_IN_A_ROW * max(instances, 1), _MOST_IN_A_ROW)


def _rank(state: str) -> int:
    return _RANK.index(state) if state in _RANK else len(_RANK)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@dataclass(frozen=True)
class Served:
    """A version that serves at every instance that was seen.

    Attributes:
        seconds: from the beginning until it was first seen so.
        connections: in a row, to these alone.
        instances: their names; empty where they have none.
        silent: addresses that did not answer.
    """

    seconds: float
    connections: int
    instances: Sequence[str]
    silent: Sequence[str]

    def describe(self) -> str:
        """Where it serves, and what cannot be known."""
        over = f"{self.connections} connection{'s' * (self.connections > 1)}"
        if not self.instances:
            words = f"over {over} in a row; how many instances these led to is not known, for none names itself"
        else:
            count = len(self.instances)
            words = (
                f"{count} instance{'s' * (count > 1)} seen over {over} in a row ({_list(sorted(self.instances))}); "
                "one that is not ready, or that no connection led to, is not among them"
            )
        away = f"; no answer from {_list(self.silent)}" if self.silent else ""
        return words + away


class NotServed(ExportError):
    """The server will not serve the version; waiting longer does not help."""


@dataclass
class _Listings:
    """Those of the repository that an instance was seen to have made.

    Attributes:
        seen: their times.
        stale: how many of them may be from before the upload.
    """

    stale: int
    seen: set[str | None] = field(default_factory=set)


class Watch:
    """Waits until a version serves at every instance that new connections lead to.

    What an instance says of a number may be of a version that had it before and was deleted: it counts from its next
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
        self._uploaded = uploaded
        self._listings: dict[str, _Listings] = {}
        if uploaded:
            with suppress(ExportError):  # it may come back while we wait
                for name, status in server.survey().items():
                    if status is not None:
                        known = number in server.states(model, status)
                        self._listings[name] = _Listings(1 + known, {_listing(status).get("at")})

    def until_serving(self, timeout_s: float) -> Served:
        """Wait.

        Raises:
            NotServed: the version is refused, or not asked for.
            ExportError: it takes too long.
        """
        in_a_row, names, since = 0, dict[str, None](), 0.0
        states: dict[str, str] = {}
        while True:
            try:
                looks = self._server.each(self._look)
            except NotServed:
                raise
            except ExportError as exc:
                looks = [("", str(exc))]
            elapsed_s = time.monotonic() - self._began
            states |= dict(looks)
            if any(state != "serving" for _, state in looks):
                in_a_row, names = 0, {}
                self._check_time(elapsed_s, timeout_s, states)
                states.pop("", None)  # an error, of whichever it was
                time.sleep(_POLL_S)
                continue
            since = since if in_a_row else elapsed_s
            in_a_row += len(looks)
            names |= dict.fromkeys(name for name, _ in looks if name)
            if in_a_row >= wanted_in_a_row(len(names)):
                return Served(since, in_a_row, list(names), self._server.silent)

    def _check_time(self, elapsed_s: float, timeout_s: float, states: Mapping[str, str]) -> None:
        if elapsed_s <= timeout_s:
            return
        waiting = [f"{state} at {name}" if name else state for name, state in states.items() if state != "serving"]
        raise ExportError(
            f"{self._name}: does not serve after {timeout_s:g} s, expected it to; the last that is known: "
            f"{'; '.join(waiting[:_SHOWN])}; next: make versions URL=..., or a longer TIMEOUT_S"
        )

    @property
    def _name(self) -> str:
        return f"{self._model} {self._number} at {self._server.url}"

    def _look(self, server: Server) -> tuple[str, str]:
        """Which instance a connection led to, and what becomes of the version there."""
        status = server.status()
        answers = str(self._number) in (server.describe(self._model) or {"versions": ()})["versions"]
        if status is None:
            return "", "serving" if answers else "not among the versions that serve"
        name = instance(status)
        listings = self._listings.setdefault(name, _Listings(int(self._uploaded)))
        listings.seen.add(_listing(status).get("at"))
        about = status["models"].get(self._model, {})
        state = about.get("versions", {}).get(str(self._number), {"state": "not listed yet"})
        if len(listings.seen) > listings.stale:
            if state["state"] == "serving" and answers:
                return name, "serving"
            self._refuse(about, state, f"{self._name}{f' ({name})' if name else ''}")
        return name, describe_state(state) + "".join(
            f"; {what}" for what in (about.get("error"), describe_listing(status)) if what
        )

    def _refuse(self, about: Mapping[str, Any], state: Mapping[str, Any], where: str) -> None:
        if state["state"] == "refused":
            raise NotServed(
                f"{where}: refused: {state.get('reason')}; what served before goes on; next: correct it, and publish "
                "again"
            )
        policy = str(about.get("policy"))
        if state["state"] == "available" and policy.startswith("specific"):
            undo = "change that setting of the server" if policy.endswith("(setting)") else "make unpin"
            raise NotServed(f"{where}: not asked for: the policy is {policy}, expected latest; next: {undo}")


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
