"""Waits until a published version serves at every instance that can be seen."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from export.errors import ExportError
from export.publish.server_client import Server, consecutive_connections, instance
from export.publish.states import describe_listing, describe_state, list_names, listing_of

_POLL_S = 0.5
_SHOWN = 10  # states of instances


@dataclass(frozen=True)
class Served:
    """A version that serves at every instance that was seen.

    Attributes:
        seconds: from the beginning until the version was first seen to serve.
        connections: consecutive ones, to these instances alone.
        instances: their names; empty where they have none.
        silent: addresses that did not respond.
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
                f"{count} instance{'s' * (count > 1)} seen over {over} in a row "
                f"({list_names(sorted(self.instances))}); one that is not ready, or that no connection led to, is not "
                "among them"
            )
        away = f"; no response from {list_names(self.silent)}" if self.silent else ""
        return words + away


class NotServed(ExportError):
    """The server will not serve the version; waiting longer does not help."""


@dataclass
class _Listings:
    """Listings of the repository that an instance was seen to have made.

    Attributes:
        stale: how many of them may be from before the upload.
        seen: their times.
    """

    stale: int
    seen: set[str | None] = field(default_factory=set)


class Watch:
    """Waits until a version serves at every instance that new connections lead to.

    What an instance reports for a number may be about a deleted version that had the number before: it counts from the
    instance's next listing on, from the one after that where the number was known.

    Attributes:
        server: to watch.
        model: its name.
        number: of the version.
        uploaded: just now; False where the version was there already.
    """

    def __init__(self, server: Server, model: str, number: int, *, uploaded: bool) -> None:
        """Begin, with the upload complete."""
        self.server, self.model, self.number = server, model, number
        self._began = time.monotonic()
        self.uploaded = uploaded
        self._listings: dict[str, _Listings] = {}
        if uploaded:
            with suppress(ExportError):  # the server may come back while this waits
                for name, status in server.survey().items():
                    if status is not None:
                        known = number in server.states(model, status)
                        self._listings[name] = _Listings(1 + known, {listing_of(status).get("at")})

    def until_serving(self, timeout_s: float) -> Served:
        """Wait.

        Raises:
            NotServed: the version is rejected, or the policy does not select it.
            ExportError: it takes too long.
        """
        consecutive, names, since = 0, dict[str, None](), 0.0
        states: dict[str, str] = {}
        while True:
            seen = self._inspect_all()
            elapsed_s = time.monotonic() - self._began
            states |= dict(seen)
            if any(state != "serving" for _, state in seen):
                consecutive, names = 0, {}
                self._check_time(elapsed_s, timeout_s, states)
                states.pop("", None)  # an error, of any instance
                time.sleep(_POLL_S)
                continue
            since = since if consecutive else elapsed_s
            consecutive += len(seen)
            names |= dict.fromkeys(name for name, _ in seen if name)
            if consecutive >= consecutive_connections(len(names)):
                return Served(since, consecutive, list(names), self.server.silent)

    def _inspect_all(self) -> list[tuple[str, str]]:
        """Instance and state for each address; one entry without a name where the server fails."""
        try:
            return self.server.each(self._inspect)
        except NotServed:
            raise
        except ExportError as exc:
            return [("", str(exc))]

    def _check_time(self, elapsed_s: float, timeout_s: float, states: Mapping[str, str]) -> None:
        if elapsed_s <= timeout_s:
            return
        waiting = [f"{state} at {name}" if name else state for name, state in states.items() if state != "serving"]
        raise ExportError(
            f"{self._name}: does not serve after {timeout_s:g} s, expected it to; last seen: "
            f"{'; '.join(waiting[:_SHOWN])}; next: make versions URL=..., or a longer TIMEOUT_S"
        )

    @property
    def _name(self) -> str:
        return f"{self.model} {self.number} at {self.server.url}"

    def _inspect(self, server: Server) -> tuple[str, str]:
        """Which instance a connection led to, and the state of the version there."""
        status = server.status()
        serves = str(self.number) in (server.describe(self.model) or {"versions": ()})["versions"]
        if status is None:
            return "", "serving" if serves else "not among the versions that serve"
        name = instance(status)
        listings = self._listings.setdefault(name, _Listings(int(self.uploaded)))
        listings.seen.add(listing_of(status).get("at"))
        about = status["models"].get(self.model, {})
        state = about.get("versions", {}).get(str(self.number), {"state": "not listed yet"})
        if len(listings.seen) > listings.stale:
            if state["state"] == "serving" and serves:
                return name, "serving"
            self._check_state(about, state, f"{self._name}{f' ({name})' if name else ''}")
        return name, describe_state(state) + "".join(
            f"; {what}" for what in (about.get("error"), describe_listing(status)) if what
        )

    def _check_state(self, about: Mapping[str, Any], state: Mapping[str, Any], where: str) -> None:
        """Raises: NotServed: the version will not serve, however long this waits."""
        if state["state"] == "refused":
            raise NotServed(
                f"{where}: refused: {state.get('reason')}; the version before goes on serving; next: correct it, and "
                "publish again"
            )
        policy = str(about.get("policy"))
        if state["state"] == "available" and policy.startswith("specific"):
            undo = "change that setting of the server" if policy.endswith("(setting)") else "make unpin"
            raise NotServed(f"{where}: not selected: the policy is {policy}, expected latest; next: {undo}")
