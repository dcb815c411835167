"""The command `publish`: upload a version, and wait until it serves."""

import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from export.errors import FAILURES, ExportError
from export.publish import upload
from export.publish.interface_changes import check_same
from export.publish.listing import Model, read_model, read_own_config
from export.publish.resigning import check_place, read_signed
from export.publish.server_client import ExampleResponse, Server, States, connect_all
from export.publish.signing import Signer, open_signer, temporary_folder, write_signature
from export.publish.states import read_states
from export.publish.watch import Watch
from export.writer.config import read_config
from export.writer.manifest import check_model_name, read
from registry.errors import VersionRejected
from registry.layout import CONFIG, MANIFEST
from registry.storage.address import is_same_place
from registry.storage.writing import WritableStorage, open_to_write


def publish(args: Namespace, console: Console) -> None:
    """Upload a version of a local repository; with servers, wait until it serves there."""
    model = check_model_name(args.model)
    source = upload.find_source(args.source, model, args.version)
    storage = open_to_write(args.repository)
    with connect_all(args.wait) as servers, temporary_folder() as folder:
        signer = open_signer(args, Path(folder))
        earlier = [server.try_example(model) for server in servers]
        before = read_model(storage, model)
        same = None if args.force else upload.find_same(before, source)
        if not (same or args.force):
            _check_contract(storage, before, source, states=read_states(servers, model) or {})
        number = same or _upload(storage, source, before, signer, console)
        watches = [Watch(server, model, number, uploaded=not same) for server in servers]
        if same:
            console.print(f"{model}: there already as version {same} in {storage.url}", soft_wrap=True)
            if signer is not None:
                _sign_again(storage, source, same, signer, console)
        else:
            console.print(upload.update_config(storage, source, before), soft_wrap=True)
        # The wait for each server begins now: one after the other would add up.
        deadline = time.monotonic() + args.timeout
        for watch, response in zip(watches, earlier, strict=True):
            _warn_of_other_repository(watch.server, storage, console)
            timeout_s = max(deadline - time.monotonic(), 0) if servers[1:] else args.timeout
            _wait(watch, console, timeout_s=timeout_s, before=response)


def _wait(watch: Watch, console: Console, *, timeout_s: float, before: ExampleResponse) -> None:
    """Wait until a version serves, and print the response to the example before and now, and where it serves.

    Raises:
        ExportError: it does not serve, or fails where the version before did not.
    """
    name, server = f"{watch.model} {watch.number}", watch.server
    with console.status(f"waiting for {server.url} to serve {name}"):
        served = watch.until_serving(timeout_s)
        now = server.try_example(watch.model)
    _show_responses(name, server, console, before=before, now=now)
    after = f", {served.seconds:.1f} s after the upload" if watch.uploaded else ""
    console.print(f"{name} serves at {server.url}{after}: {served.describe()}", soft_wrap=True)


def _show_responses(
    name: str, server: Server, console: Console, *, before: ExampleResponse, now: ExampleResponse
) -> None:
    """What a server returns for the same request, before and now.

    Raises:
        ExportError: the request fails now.
    """
    table = Table("", "version", "response", "ms")
    for when, response in (("before", before), ("now", now)):
        table.add_row(when, response.version, escape(response.summary), response.ms)
    console.print(table)
    if now.failed and now.summary != before.summary:
        raise ExportError(
            f"{name} serves at {server.url}, and its request fails: {now.summary}; next: make rollback, and export it "
            "again"
        )
    if now.failed:  # as with the version before: the request of this command does not suit the model
        console.print("[yellow]warning:[/] this request does not suit the model: see the table", soft_wrap=True)


def _check_contract(storage: WritableStorage, before: Model, source: upload.Source, *, states: States) -> None:
    """Compare the version with the newest one that serves and that the repository has."""
    serving = {number for number, state in states.items() if state["state"] == "serving"} or before.wanted
    found = sorted(serving & before.versions.keys())
    if found:
        number = found[-1]
        now = read_own_config(storage, source.manifest["model"], number) or before.config
        check_same(now, read_config(source.folder / CONFIG), serves=number)


def _sign_again(storage: WritableStorage, source: upload.Source, number: int, signer: Signer, console: Console) -> None:
    """Sign a version that is published already, where its manifest says what the local one does.

    Raises:
        ExportError: it says something else.
    """
    model, local = source.manifest["model"], source.manifest
    folder = f"{model}/{number}"
    manifest = read_signed(storage, folder)[1] or b""
    present = read(manifest) or {}
    differing = {key for key in local.keys() | present.keys() if local.get(key) != present.get(key)}
    if other := sorted(differing - {"version", "created", "tools"}):
        raise ExportError(
            f"{folder}: {other[0]} of its {MANIFEST} differs from that of {source.folder}, expected the same to "
            "sign it; next: make publish FORCE=1, under a new number"
        )
    try:
        check_place(present, model, number)
    except VersionRejected as exc:
        raise ExportError(f"{folder}: {exc}") from exc
    write_signature(storage, folder, signer.sign(manifest))
    console.print(f"{storage.url}/{folder} is signed", soft_wrap=True)


def _upload(
    storage: WritableStorage, source: upload.Source, before: Model, signer: Signer | None, console: Console
) -> int:
    model = source.manifest["model"]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"upload {model}", total=source.size_bytes)
        number = upload.upload(
            storage,
            source,
            above=max(before.versions, default=0),
            signer=signer,
            sent=lambda size: progress.advance(task, size),
            warn=lambda words: console.print(f"[yellow]warning:[/] {escape(words)}", soft_wrap=True),
        )
    is_signed = "" if signer is None else ", signed"
    console.print(f"{source.folder} is published as {storage.url}/{model}/{number}{is_signed}", soft_wrap=True)
    return number


def _warn_of_other_repository(server: Server, storage: WritableStorage, console: Console) -> None:
    with suppress(*FAILURES):  # unreachable, which the wait reports, or an address of another kind
        mirrored = str((server.status() or {"repository": storage.url}).get("repository"))
        if not is_same_place(mirrored, storage.url):
            console.print(f"[yellow]warning:[/] {server.url} mirrors {escape(mirrored)}, not this", soft_wrap=True)
