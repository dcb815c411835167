"""The command `versions`: what a repository holds and, with a server, what serves."""

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from environment.log_lines import printable
from export.errors import ExportError
from export.publish.listing import Model, Version, read_models
from export.publish.resigning import read_signed
from export.publish.server_client import States, Statuses, connect_all
from export.publish.signing import read_signers
from export.publish.states import describe_listing, describe_state, states_of, survey
from export.writer.manifest import check_known_name
from export.writer.versions import difference
from registry.errors import Unsigned
from registry.signatures.judgement import judge_signature, read_claim
from registry.signatures.trust import Trust
from registry.storage.writing import TooLarge, WritableStorage, open_to_write

_REQUESTS = 8  # at once


def versions(args: Namespace, console: Console) -> None:
    """Print what a repository holds and, with a server, what serves."""
    only = check_known_name(args.model) if args.model else None
    trust = read_signers(args.signed_by)
    storage = open_to_write(args.repository)
    models = read_models(storage, only)
    if not models:
        where = f"{storage.url}/{only or ''}"
        raise ExportError(f"{where}: got no version, expected <model>/<version>/model.onnx; next: make publish")
    with connect_all(args.url) as servers:
        statuses = survey(servers)
        status = _combine(statuses)
        served = models.keys() | (status["models"].keys() if status and not only else ())
        states = {name: states_of(servers, name, statuses) for name in sorted(served)} if servers else None
    signed = trust is not None or any(each.signature for model in models.values() for each in model.versions.values())
    columns = ("model", "version", "created (UTC)", "MB", "digest", "difference from the source")
    table = Table(*columns, *(["signed by"] if signed else []), "state")
    for *row, state in _rows(storage, models, states, status):
        signer = [_describe_signer(storage, row[0], models[row[0]].versions[int(row[1])], trust)] if signed else []
        table.add_row(*row, *signer, state)
    for name, why in _without_version(models, status, complete=not only).items():
        table.add_row(escape(name), *["-"] * (6 if signed else 5), escape(why))
    console.print(table)
    _print_policies(models, console)
    if states is not None:
        where = ", ".join(server.url for server in servers)
        for line in (_serving_line(where, states), *_instance_lines(statuses)):
            console.print(escape(printable(line)), soft_wrap=True)


def describe_version(version: Version) -> tuple[str, str, str]:
    """Number, time of its making, and size in MB, as tables show them."""
    size_bytes = sum(item.size for item in version.files.values())
    created = version.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return str(version.number), created, f"{size_bytes / 1e6:.1f}"


def _rows(
    storage: WritableStorage,
    models: Mapping[str, Model],
    states: Mapping[str, States] | None,
    status: Mapping[str, Any] | None,
) -> Iterator[tuple[str, ...]]:
    found = [(name, version) for name, model in models.items() for version in model.versions.values()]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        differences = pool.map(lambda row: _difference(storage, *row), found)
        for (name, version), apart in zip(found, differences, strict=True):
            if states is None:
                state = _state_of_files(models[name], version)
            else:
                more = status is not None and status["models"].get(name, {}).get("more_versions")
                unknown = {"state": "not shown" if more else "not listed yet"}
                state = describe_state(states[name].get(version.number, unknown))
            digest = (version.digest or "-")[:12]
            yield (name, *describe_version(version), digest, escape(apart), escape(state))


def _describe_signer(storage: WritableStorage, model: str, version: Version, trust: Trust | None) -> str:
    """Who signed a version; without keys who the signature says it is by."""
    if version.signature is None and (trust is None or version.manifest is None):
        return "-"
    try:
        signed = read_signed(storage, f"{model}/{version.number}")
        if trust is not None:
            return escape(printable(judge_signature(signed, trust, model=model, version=version.number)))
        return f"{escape(printable(read_claim(signed[0] or b'')))}, not verified"
    except (Unsigned, TooLarge) as exc:
        return f"[red]{escape(printable(str(exc)))}[/]"


def _state_of_files(model: Model, version: Version) -> str:
    """The state of a version as far as the repository alone shows it."""
    if not version.complete:
        return "incomplete"
    return "wanted" if version.number in model.wanted else "-"


def _difference(storage: WritableStorage, model: str, version: Version) -> str:
    content = storage.get(f"{model}/{version.number}/parity.json") if "parity.json" in version.files else None
    try:
        return difference(json.loads(content.data)) if content else "-"
    except (ValueError, AttributeError):  # no JSON, no object
        return "parity.json is broken"


def _print_policies(models: Mapping[str, Model], console: Console) -> None:
    for name, found in models.items():
        if found.error:
            console.print(f"[red]{escape(printable(found.error))}[/]", soft_wrap=True)
        elif found.versions:
            console.print(f"{name}: policy {found.policy}")


def _combine(statuses: Statuses) -> Mapping[str, Any] | None:
    """The models of all instances, each from the first that knows it; None where no instance has a /status."""
    known = [status for status in statuses.values() if status is not None]
    models = {name: about for status in reversed(known) for name, about in status["models"].items()}
    return {**known[0], "models": models} if known else None


def _without_version(
    models: Mapping[str, Model], status: Mapping[str, Any] | None, *, complete: bool
) -> dict[str, str]:
    """The state of folders without a version, by name.

    Args:
        models: of the repository.
        status: of the server.
        complete: whether `models` are all that the repository has.
    """
    known = {name: f"refused: {found.error or 'no version'}" for name, found in models.items() if not found.versions}
    for name, about in (status or {"models": {}})["models"].items():
        if name in known or (complete and name not in models and not about.get("versions")):
            known[name] = f"{about.get('state', 'refused')}: {about.get('error') or 'no version'}"
    return {printable(name): printable(why) for name, why in sorted(known.items())}


def _serving_line(where: str, states: Mapping[str, States]) -> str:
    serving = [
        f"{name} {number}{f' ({why})' if (why := state.get('reason')) else ''}"
        for name in states
        for number, state in states[name].items()
        if state["state"] == "serving"
    ]
    return f"{where} serves {', '.join(serving) or 'nothing'}"


def _instance_lines(statuses: Statuses) -> list[str]:
    """What each instance reports; of several with its name."""
    if len(statuses) == 1:
        return _status_lines(*statuses.values())
    known = f"{len(statuses)} instances were seen: {', '.join(sorted(statuses))}"
    return [known, *(f"{name}: {line}" for name, status in statuses.items() for line in _status_lines(status))]


def _status_lines(status: Mapping[str, Any] | None) -> list[str]:
    if status is None:
        return ["it mirrors no repository (no /status), so other states are not known"]
    triton = status.get("triton") or {}
    waiting_for = status.get("waiting_for")
    return [
        f"{describe_listing(status)}; Triton {'ready' if triton.get('ok') else 'away'} since {triton.get('since')}",
        *([f"not ready: waits for {waiting_for}"] if waiting_for else []),
        *(
            f"{name}: {about['error']}"
            for name, about in status["models"].items()
            if about.get("error") and about.get("versions")
        ),
        *(f"ignored: {key}: {reason}" for key, reason in (status.get("ignored") or {}).items()),
        *([f"{more} more folders are not shown"] if (more := status.get("more_models")) else []),
    ]
