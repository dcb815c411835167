"""What `python -m export publish`, `fetch`, `versions`, `rollback`, `unpin` and `prune` do."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from export.errors import FAILURES, ExportError
from export.publish import fetch as fetching
from export.publish import upload as publishing
from export.publish.contract import check_same
from export.publish.listing import Model, Version, edit_config, read_model, read_models, read_own_config
from export.publish.serving import (
    Answer,
    Server,
    States,
    Statuses,
    Watch,
    connect_all,
    describe_listing,
    describe_state,
    states_of,
    survey,
)
from export.writer.config import parse
from export.writer.manifest import check_known_name, check_model_name
from export.writer.versions import difference
from registry.errors import printable
from registry.layout import CONFIG, MANIFEST
from registry.storage.address import is_same_place
from registry.storage.writing import Storage, open_storage

_LEFT_OVER = timedelta(hours=1)  # longer than an upload takes
_REQUESTS = 8  # at once


def publish(args: Namespace, console: Console) -> None:
    """Upload a version of a local repository; with servers, wait until it serves there."""
    model = check_model_name(args.model)
    source = publishing.find_source(args.source, model, args.version)
    storage = open_storage(args.repository)
    with connect_all(args.wait) as servers:
        earlier = [server.ask(model) for server in servers]
        before = read_model(storage, model)
        same = None if args.force else publishing.find_same(before, source)
        if not (same or args.force):
            _check_contract(storage, before, source, states=_states(servers, model) or {})
        number = same or _upload(storage, source, before, console)
        watches = [Watch(server, model, number, uploaded=not same) for server in servers]
        if same:
            console.print(f"{model}: there already as version {same} in {storage.address}", soft_wrap=True)
        else:
            console.print(publishing.update_config(storage, source, before), soft_wrap=True)
        deadline = time.monotonic() + args.timeout
        for server, watch, answer in zip(servers, watches, earlier, strict=True):
            _warn_of_other_repository(server, storage, console)
            with console.status(f"waiting for {server.url} to serve {model} {number}"):
                # That of another server began at the same time.
                served = watch.until_serving(max(deadline - time.monotonic(), 0) if servers[1:] else args.timeout)
                now = server.ask(model)
            _show_answers(f"{model} {number}", server, console, before=answer, now=now)
            after = "" if same else f", {served.seconds:.1f} s after the upload"
            console.print(f"{model} {number} serves at {server.url}{after}: {served.describe()}", soft_wrap=True)


def _show_answers(name: str, server: Server, console: Console, *, before: Answer, now: Answer) -> None:
    """What a server says to the same request, before and now.

    Raises:
        ExportError: the request fails now.
    """
    table = Table("", "version", "answer", "ms")
    for when, answer in (("before", before), ("now", now)):
        table.add_row(when, answer.version, escape(answer.says), answer.ms)
    console.print(table)
    if now.failed and now.says != before.says:
        raise ExportError(
            f"{name} serves at {server.url}, and its request fails: {now.says}; next: make rollback, and export it "
            "again"
        )
    if now.failed:  # as with the version before: the request of this command does not suit the model
        console.print("[yellow]warning:[/] this request does not suit the model: see the table", soft_wrap=True)


def fetch(args: Namespace, console: Console) -> None:
    """Copy a version from a repository to a local one."""
    model = check_known_name(args.model)
    storage = open_storage(args.repository)
    found = read_model(storage, model)
    wanted = [number for number in found.complete if args.version in {None, "", str(number)}]
    if not wanted:
        got = ", ".join(map(str, found.complete)) or "none"
        where = f"{storage.address}: {model} {args.version or ''}".rstrip()
        raise ExportError(f"{where}: got complete versions {got}, expected it among them; next: make versions")
    version = found.versions[wanted[-1]]
    total = sum(item.size for item in version.files.values())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{model} {version.number}", total=total)
        folder = fetching.fetch(storage, model, version, args.to, tell=partial(progress.advance, task))
    console.print(f"{model} {version.number} from {storage.address} is in {folder}", soft_wrap=True)


def versions(args: Namespace, console: Console) -> None:
    """Print what a repository holds and, with a server, what serves."""
    only = check_known_name(args.model) if args.model else None
    storage = open_storage(args.repository)
    models = read_models(storage, only)
    rows = [(name, version) for name, found in models.items() for version in found.versions.values()]
    if not models:
        where = f"{storage.address}/{only or ''}"
        raise ExportError(f"{where}: got no version, expected <model>/<version>/model.onnx; next: make publish")
    with connect_all(args.url) as servers:
        statuses = survey(servers)
        status = _combine(statuses)
        served = models.keys() | (status["models"].keys() if status and not only else ())
        states = {name: states_of(servers, name, statuses) for name in sorted(served)} if servers else None
    table = Table("model", "version", "created (UTC)", "MB", "digest", "difference from the source", "state")
    with ThreadPoolExecutor(_REQUESTS) as pool:
        differences = pool.map(lambda row: _difference(storage, *row), rows)
        for (name, version), apart in zip(rows, differences, strict=True):
            if states is not None:
                more = status is not None and status["models"].get(name, {}).get("more_versions")
                unknown = {"state": "not shown" if more else "not listed yet"}
                state = describe_state(states[name].get(version.number, unknown))
            elif version.complete:
                state = "wanted" if version.number in models[name].wanted else "-"
            else:
                state = "incomplete"
            digest = (version.digest or "-")[:12]
            table.add_row(name, *_facts(version), digest, escape(apart), escape(state))
    for name, why in _without_version(models, status, all_of_it=not only).items():
        table.add_row(escape(name), *["-"] * 5, escape(why))
    console.print(table)
    for name, found in models.items():
        if found.error:
            console.print(f"[red]{escape(printable(found.error))}[/]", soft_wrap=True)
        elif found.versions:
            console.print(f"{name}: policy {found.policy}")
    if servers and states is not None:
        where = ", ".join(server.url for server in servers)
        for line in (_serving_line(where, states), *_instance_lines(statuses)):
            console.print(escape(printable(line)), soft_wrap=True)


def rollback(args: Namespace, console: Console) -> None:
    """Pin the version before the one that serves."""
    model = check_known_name(args.model)
    storage = open_storage(args.repository)
    found = _known(storage, model)
    with connect_all(args.url) as servers:
        states = _states(servers, model)
    serving = sorted(found.wanted) if states is None else [n for n, s in states.items() if s["state"] == "serving"]
    if not serving:
        raise ExportError(f"{model}: no version of it serves, expected one to roll back from; next: make versions")
    lower = [
        number for number in found.complete if number < max(serving) and not _is_refused((states or {}).get(number, {}))
    ]
    if not lower:
        raise ExportError(
            f"{model}: no complete version below {max(serving)}, which serves; expected one; next: make versions"
        )
    number = lower[-1]

    def pin(present: Any | None) -> Any:
        config = present if present is not None else read_own_config(storage, model, number)
        if config is None:
            raise ExportError(f"{model}: no {CONFIG} to pin version {number} in; next: delete {model}/{max(serving)}/")
        config.version_policy.Clear()
        config.version_policy.specific.versions.append(number)
        return config

    edit_config(storage, model, pin)
    console.print(f"{model}: version {number} is pinned in {storage.address}/{model}/{CONFIG}", soft_wrap=True)
    if states is None:
        console.print(f"no server was asked; {max(serving)} is what the policy asked for until now")
    console.print(f"undo: make unpin MODEL={model} REPOSITORY={storage.address}", soft_wrap=True)


def unpin(args: Namespace, console: Console) -> None:
    """Take the pin out of a model's policy."""
    model = check_known_name(args.model)
    storage = open_storage(args.repository)
    found = _known(storage, model)

    def free(present: Any | None) -> Any | None:
        if present is None or not present.version_policy.HasField("specific"):
            return None
        present.ClearField("version_policy")
        return present

    if edit_config(storage, model, free):
        newest = f", which is {found.complete[-1]}" if found.complete else ""
        console.print(f"{model}: {found.policy} is no more: the policy asks for the newest version{newest}")
    else:
        console.print(f"{model}: nothing to do: the policy is {found.policy}, no pin")


def prune(args: Namespace, console: Console) -> None:
    """Delete old versions that nothing asks for, after asking."""
    model = check_known_name(args.model)
    if args.keep < 1:
        raise ExportError(f"KEEP: got {args.keep}, expected 1 or more")
    storage = open_storage(args.repository)
    found = _known(storage, model)
    if found.error:
        raise ExportError(f"what the policy asks for is not known: {found.error}")
    with connect_all(args.url) as servers:
        states = _states(servers, model)
    going = _superfluous(found, states or {}, keep=args.keep)
    if not going:
        console.print(f"{model}: nothing to delete beyond the newest {args.keep} and what the policy asks for")
        return
    table = Table("model", "version", "created (UTC)", "MB", "", title="To be deleted")
    for version in going:
        table.add_row(model, *_facts(version), "" if version.complete else "incomplete")
    console.print(table)
    if states is None:
        console.print("no server was asked what serves; URL=... does")
    if not args.yes and not _agreed(f"delete {len(going)} of {len(found.versions)} versions of {model}? [y/N] "):
        console.print("nothing is deleted")
        return
    for version in going:
        # The manifest first: nothing takes what is left for a complete version.
        keys = [item.key for item in version.files.values()]
        for key in (*sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")), *version.foreign):
            storage.delete(key)
        console.print(f"deleted {storage.address}/{model}/{version.number}", soft_wrap=True)


def _states(servers: Sequence[Server], model: str) -> States | None:
    """What all instances of the servers say of a model's versions; None where none is asked."""
    return states_of(servers, model, survey(servers)) if servers else None


def _is_refused(state: Mapping[str, Any]) -> bool:
    """Whether any instance refuses a version."""
    return state.get("state") == "refused" or bool(state.get("refused"))


def _combine(statuses: Statuses) -> Mapping[str, Any] | None:
    """The models of all instances, each as the first that knows it has it; None where none has a /status."""
    known = [status for status in statuses.values() if status is not None]
    models = {name: about for status in reversed(known) for name, about in status["models"].items()}
    return {**known[0], "models": models} if known else None


def _known(storage: Storage, model: str) -> Model:
    found = read_model(storage, model)
    if not found.versions:
        raise ExportError(f"{storage.address}/{model}: got no version, expected a model; next: make versions")
    return found


def _check_contract(storage: Storage, before: Model, source: publishing.Source, *, states: States) -> None:
    """Compare the version with the newest one that serves and that the repository has."""
    serving = {number for number, state in states.items() if state["state"] == "serving"} or before.wanted
    found = sorted(serving & before.versions.keys())
    if found:
        number = found[-1]
        now = read_own_config(storage, source.manifest["model"], number) or before.config
        check_same(now, parse((source.folder / CONFIG).read_text(encoding="utf-8")), serves=number)


def _upload(storage: Storage, source: publishing.Source, before: Model, console: Console) -> int:
    model = source.manifest["model"]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"upload {model}", total=source.size_bytes)
        number = publishing.upload(
            storage,
            source,
            above=max(before.versions, default=0),
            sent=lambda size: progress.advance(task, size),
            warn=lambda words: console.print(f"[yellow]warning:[/] {escape(words)}", soft_wrap=True),
        )
    console.print(f"{source.folder} is published as {storage.address}/{model}/{number}", soft_wrap=True)
    return number


def _warn_of_other_repository(server: Server, storage: Storage, console: Console) -> None:
    with suppress(*FAILURES):  # away, which the waiting says, or an address of another kind
        mirrored = str((server.status() or {"repository": storage.address}).get("repository"))
        if not is_same_place(mirrored, storage.address):
            console.print(f"[yellow]warning:[/] {server.url} mirrors {escape(mirrored)}, not this", soft_wrap=True)


def _superfluous(found: Model, states: States, *, keep: int) -> list[Version]:
    stay = {number for number, state in states.items() if state["state"] in {"serving", "staged"}}
    stay |= {*found.policy.ask(found.complete), *(found.policy.specific or ()), *found.complete[-keep:]}
    newest = max(found.complete, default=0)
    limit = datetime.now(UTC) - _LEFT_OVER
    return [
        version
        for number, version in found.versions.items()
        if number not in stay and (version.complete or (number < newest and version.modified < limit))
    ]


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ExportError("nobody is there to agree (no terminal), nothing is deleted; next: YES=1")
    return input(question).strip().lower() in {"y", "yes"}


def _facts(version: Version) -> tuple[str, str, str]:
    size_bytes = sum(item.size for item in version.files.values())
    created = version.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return str(version.number), created, f"{size_bytes / 1e6:.1f}"


def _difference(storage: Storage, model: str, version: Version) -> str:
    content = storage.get(f"{model}/{version.number}/parity.json") if "parity.json" in version.files else None
    try:
        return difference(json.loads(content.data)) if content else "-"
    except (ValueError, AttributeError):  # no JSON, no object
        return "parity.json is broken"


def _without_version(
    models: Mapping[str, Model], status: Mapping[str, Any] | None, *, all_of_it: bool
) -> dict[str, str]:
    """What is known of folders of the repository, or of the server's, that have no version, by name."""
    known = {name: f"refused: {found.error or 'no version'}" for name, found in models.items() if not found.versions}
    for name, about in (status or {"models": {}})["models"].items():
        if name in known or (all_of_it and name not in models and not about.get("versions")):
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
    """What each instance says of itself; of several with its name."""
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
