"""The command `prune`: delete old versions that no policy selects and no server serves."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from export.errors import ExportError
from export.publish.listing import Model, Version, read_known_model
from export.publish.server_client import States, connect_all
from export.publish.states import read_states
from export.publish.version_table import describe_version
from export.writer.manifest import check_known_name
from registry.layout import MANIFEST
from registry.storage.writing import WritableStorage, open_to_write

_LEFTOVER = timedelta(hours=1)  # longer than an upload takes


def prune(args: Namespace, console: Console) -> None:
    """Delete old versions, after a prompt."""
    model = check_known_name(args.model)
    if args.keep < 1:
        raise ExportError(f"KEEP: got {args.keep}, expected 1 or more")
    storage = open_to_write(args.repository)
    found = read_known_model(storage, model)
    if found.error:
        raise ExportError(f"which versions the policy selects is not known: {found.error}")
    with connect_all(args.url) as servers:
        states = read_states(servers, model)
    superfluous = _find_superfluous(found, states or {}, keep=args.keep)
    if not superfluous:
        console.print(f"{model}: nothing to delete beyond the newest {args.keep} and what the policy selects")
        return
    _show(model, superfluous, console)
    if states is None:
        console.print("no server was queried for what serves; URL=... does")
    if not args.yes and not _confirm(f"delete {len(superfluous)} of {len(found.versions)} versions of {model}? [y/N] "):
        console.print("nothing is deleted")
        return
    for version in superfluous:
        _delete(storage, version)
        console.print(f"deleted {storage.url}/{model}/{version.number}", soft_wrap=True)


def _find_superfluous(found: Model, states: States, *, keep: int) -> list[Version]:
    """Complete versions that nothing needs, and what failed uploads have left behind."""
    stay = {number for number, state in states.items() if state["state"] in {"serving", "staged"}}
    stay |= {*found.policy.match(found.complete), *(found.policy.specific or ()), *found.complete[-keep:]}
    newest = max(found.complete, default=0)
    limit = datetime.now(UTC) - _LEFTOVER
    return [
        version
        for number, version in found.versions.items()
        if number not in stay and (version.complete or (number < newest and version.modified < limit))
    ]


def _show(model: str, versions: Sequence[Version], console: Console) -> None:
    table = Table("model", "version", "created (UTC)", "MB", "", title="To be deleted")
    for version in versions:
        table.add_row(model, *describe_version(version), "" if version.complete else "incomplete")
    console.print(table)


def _confirm(prompt: str) -> bool:
    if not sys.stdin.isatty():
        raise ExportError("got no terminal to confirm at, nothing is deleted; next: YES=1")
    return input(prompt).strip().lower() in {"y", "yes"}


def _delete(storage: WritableStorage, version: Version) -> None:
    """The manifest first: what is left is no complete version to any reader."""
    keys = [item.key for item in (*version.files.values(), version.signature) if item is not None]
    for key in (*sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")), *version.foreign):
        storage.delete(key)
