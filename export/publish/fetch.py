"""The command `fetch`: copies a whole version of a served repository into a local one."""

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from export.errors import ExportError
from export.publish.listing import Version, read_model
from export.publish.signing import read_signers
from export.writer.manifest import check_known_name
from export.writer.versions import judge, read_complete
from registry.layout import MANIFEST, SIGNATURE, TEXT_BYTES
from registry.signatures.judgement import judge_signature
from registry.signatures.trust import Trust
from registry.storage.folder_lock import lock_folder
from registry.storage.reading import download, read
from registry.storage.writing import WritableStorage, open_to_write

Count = Callable[[int], None]


def fetch(args: Namespace, console: Console) -> None:
    """Copy a version from a repository to a local one."""
    model, trust = check_known_name(args.model), read_signers(args.signed_by)
    storage = open_to_write(args.repository)
    found = read_model(storage, model)
    wanted = [number for number in found.complete if args.version in {None, "", str(number)}]
    if not wanted:
        got = ", ".join(map(str, found.complete)) or "none"
        where = f"{storage.url}: {model} {args.version or ''}".rstrip()
        raise ExportError(f"{where}: got complete versions {got}, expected it among them; next: make versions")
    version = found.versions[wanted[-1]]
    total = sum(item.size for item in version.files.values())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{model} {version.number}", total=total)
        count = partial(progress.advance, task)
        folder = copy_version(storage, model, version, args.to, count=count, trust=trust)
    console.print(f"{model} {version.number} from {storage.url} is in {folder}", soft_wrap=True)


def copy_version(  # noqa: PLR0913 - from where, what, to where, its keys, and a report
    storage: WritableStorage, model: str, version: Version, target: Path, *, count: Count, trust: Trust | None = None
) -> Path:
    """Copy a version, and return its folder.

    The writers of a bucket choose its keys. Only the files that the manifest lists are written, whose names the
    schema permits: one segment, with a suffix that no program runs. A version that is not whole leaves nothing behind.

    Args:
        storage: the repository.
        model: name of the model.
        version: complete.
        target: a local repository; a version of this number there is replaced.
        count: takes the bytes of each block that was copied.
        trust: whose signatures are required; None: signatures are not looked at.

    Raises:
        ExportError: there is no manifest that fits the schema, or the files are not those that it lists.
        VersionRejected: the signature is too large; Unsigned, which is one: it is not by a trusted key.
    """
    prefix = f"{model}/{version.number}"
    where = f"{storage.url}/{prefix}"
    if version.manifest is None:
        raise ExportError(f"{where}: got no {MANIFEST} that fits the schema, expected one; next: publish it again")
    with _replacing(target, target / prefix) as hidden:
        for name in (*version.manifest["files"], MANIFEST):
            download(storage, version.files[name], hidden / name, count=count)
        if read_complete(hidden) is None:
            raise ExportError(f"{where}: what came does not fit its {MANIFEST}; next: publish it again")
        signature = None if version.signature is None else read(storage, version.signature, limit=TEXT_BYTES)
        if trust is not None:
            signed = signature, (hidden / MANIFEST).read_bytes()
            judge_signature(signed, trust, model=model, version=version.number)
        if signature is not None:  # the same number of the same model: it stays valid
            (hidden / SIGNATURE).write_bytes(signature)
        judge(hidden, where=where)
    return target / prefix


@contextmanager
def _replacing(repository: Path, folder: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of another when the block ends without an error; removed otherwise."""
    for place in (folder, folder.parent):
        if place.is_symlink():
            raise ExportError(f"{place}: got a link, expected a folder: links in a repository are unused")
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}.{uuid4().hex}")
    replaced = hidden.with_name(f"{hidden.name}.replaced")
    hidden.mkdir()
    try:
        yield hidden
        with lock_folder(repository):
            if folder.exists():
                folder.rename(replaced)
            hidden.rename(folder)
    finally:
        for leftover in (hidden, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
