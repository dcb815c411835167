"""The states of versions at one or several instances of one or several servers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from export.publish.server_client import Server, States, Statuses

# Where instances differ, the first of these counts.
_RANK = ("serving", "staged", "refused", "available", "incomplete")
_SHOWN = 10  # names of instances


def survey(servers: Sequence[Server]) -> Statuses:
    """`Server.survey` of several servers; their URLs are part of the names then.

    Raises:
        ExportError: as there.
    """
    if len(servers) == 1:
        return servers[0].survey()
    return {f"{name} at {each.url}".lstrip(): status for each in servers for name, status in each.survey().items()}


def read_states(servers: Sequence[Server], model: str) -> States | None:
    """The state of each version of a model at all instances of the servers; None without a server."""
    return states_of(servers, model, survey(servers)) if servers else None


def states_of(servers: Sequence[Server], model: str, statuses: Statuses) -> States:
    """The state of each version of a model at all instances: see `merge`."""
    known = [status for status in statuses.values() if status is not None]
    by_instance = {name: servers[0].states(model, status) for name, status in statuses.items() if status is not None}
    if not known:
        by_instance = {server.url: server.states(model, None) for server in servers}
    return merge(by_instance)


def merge(by_instance: Mapping[str, States]) -> States:
    """One state for each version; where instances differ the first of `_RANK`, and the reason names them all.

    Beside it `refused` then says whether any of them rejects the version.
    """
    numbers = sorted({number for states in by_instance.values() for number in states})
    return {number: _merge_version(number, by_instance) for number in numbers}


def _merge_version(number: int, by_instance: Mapping[str, States]) -> Mapping[str, Any]:
    names: dict[str, list[str]] = {}  # of instances, by the description of their state
    states: dict[str, Mapping[str, Any]] = {}
    for name, own in by_instance.items():
        state = own.get(number, {"state": "not listed yet"})
        names.setdefault(describe_state(state), []).append(name)
        states.setdefault(describe_state(state), state)
    first = min(states.values(), key=lambda state: _rank(state["state"]))
    if len(names) == 1:
        return first
    reason = "; ".join(f"{described} on {list_names(each)}" for described, each in names.items())
    rejected = any(state["state"] == "refused" for state in states.values())
    return {"state": first["state"], "reason": reason, "refused": rejected}


def is_rejected(state: Mapping[str, Any]) -> bool:
    """Whether any instance rejects a version."""
    return state.get("state") == "refused" or bool(state.get("refused"))


def describe_state(state: Mapping[str, Any]) -> str:
    """A version's state, and the reason where there is one."""
    return f"{state['state']}: {state['reason']}" if state.get("reason") else str(state["state"])


def describe_listing(status: Mapping[str, Any]) -> str:
    """How the server sees the repository."""
    listing = listing_of(status)
    if not listing.get("ok"):
        return f"listing fails since {listing.get('failing_since')}: {listing.get('error')}"
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(listing["at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return "not listed yet"
    return f"listed {max(age, 0):.0f} s ago"


def listing_of(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a status says of the last listing of the repository."""
    return status.get("listing") or {}


def list_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _rank(state: str) -> int:
    return _RANK.index(state) if state in _RANK else len(_RANK)
