"""The commands `rollback` and `unpin`: the pin in a model's version policy."""

from argparse import Namespace
from typing import Any

from rich.console import Console

from export.errors import ExportError
from export.publish.listing import Model, edit_config, read_known_model, read_own_config
from export.publish.server_client import States, connect_all
from export.publish.states import is_rejected, read_states
from export.writer.manifest import check_known_name
from registry.layout import CONFIG
from registry.storage.writing import open_to_write


def rollback(args: Namespace, console: Console) -> None:
    """Pin the version before the one that serves."""
    model = check_known_name(args.model)
    storage = open_to_write(args.repository)
    found = read_known_model(storage, model)
    with connect_all(args.url) as servers:
        states = read_states(servers, model)
    serving = _find_serving(model, found, states)
    number = _find_before(model, serving, found, states or {})

    def pin(present: Any | None) -> Any:
        config = present if present is not None else read_own_config(storage, model, number)
        if config is None:
            raise ExportError(f"{model}: no {CONFIG} to pin version {number} in; next: delete {model}/{serving}/")
        config.version_policy.Clear()
        config.version_policy.specific.versions.append(number)
        return config

    edit_config(storage, model, pin)
    console.print(f"{model}: version {number} is pinned in {storage.url}/{model}/{CONFIG}", soft_wrap=True)
    if states is None:
        console.print(f"no server was queried (URL=...); {serving} is what the policy selected until now")
    console.print(f"undo: make unpin MODEL={model} REPOSITORY={storage.url}", soft_wrap=True)


def _find_serving(model: str, found: Model, states: States | None) -> int:
    """The newest version that serves; without a server, that the policy selects."""
    serving = found.wanted if states is None else {n for n, state in states.items() if state["state"] == "serving"}
    if not serving:
        raise ExportError(f"{model}: no version of it serves, expected one to roll back from; next: make versions")
    return max(serving)


def _find_before(model: str, serving: int, found: Model, states: States) -> int:
    """The newest complete version before another one that no instance rejects."""
    lower = [number for number in found.complete if number < serving and not is_rejected(states.get(number, {}))]
    if not lower:
        raise ExportError(
            f"{model}: no complete version below {serving}, which serves; expected one; next: make versions"
        )
    return lower[-1]


def unpin(args: Namespace, console: Console) -> None:
    """Remove the pin from a model's policy."""
    model = check_known_name(args.model)
    storage = open_to_write(args.repository)
    found = read_known_model(storage, model)

    def free(present: Any | None) -> Any | None:
        if present is None or not present.version_policy.HasField("specific"):
            return None
        present.ClearField("version_policy")
        return present

    if edit_config(storage, model, free):
        newest = f", which is {found.complete[-1]}" if found.complete else ""
        console.print(f"{model}: the policy was {found.policy}, and selects the newest version now{newest}")
    else:
        console.print(f"{model}: nothing to do: the policy is {found.policy}, no pin")
