"""The command `sign`: signs versions of a repository that are published already."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from export.errors import ExportError
from export.publish.listing import read_models
from export.publish.signing import Signer, open_signer, read_signers, temporary_folder, write_signature
from export.writer.manifest import check_known_name
from registry.errors import VersionRejected
from registry.layout import MANIFEST, SIGNATURE
from registry.manifest import read_content
from registry.signatures.judgement import Signed, judge_signature
from registry.signatures.trust import Trust
from registry.storage.writing import WritableStorage, open_to_write


def sign(args: Namespace, console: Console) -> None:
    """Sign versions again: those that a key signed which is trusted so far, or the one that the user names."""
    only = check_known_name(args.model) if args.model else None
    trust = read_signers(args.signed_by)
    if trust is None and not (only and args.version):
        raise ExportError(
            "got no --signed-by, expected it, or a model and --version: what anyone may have written would be signed"
        )
    storage = open_to_write(args.repository)
    with temporary_folder() as folder:
        signer = open_signer(args, Path(folder))
        assert signer is not None, "--sign is required"  # noqa: S101
        chosen = list(_choose(storage, only, args.version))
        if not chosen:
            where = "/".join(filter(None, (storage.url, only, args.version)))
            raise ExportError(f"{where}: got no version with a {MANIFEST}, expected one; next: make versions")
        left = 0
        for model, number in chosen:
            problem = _sign(storage, signer, trust, model, number)
            left += bool(problem)
            done = f"[yellow]left as it is:[/] {escape(problem)}" if problem else "signed"
            console.print(f"{storage.url}/{model}/{number}: {done}", soft_wrap=True)
    if left:
        raise ExportError(f"{left} of {len(chosen)} versions are not signed: see above")


def _choose(storage: WritableStorage, only: str | None, number: str | None) -> Iterator[tuple[str, int]]:
    for model, found in read_models(storage, only).items():
        for version in found.versions.values():
            if version.complete and version.manifest is not None and number in {None, str(version.number)}:
                yield model, version.number


def _sign(storage: WritableStorage, signer: Signer, trust: Trust | None, model: str, number: int) -> str:
    """Sign a version, and return why that was not done; empty where it was."""
    signature, manifest = read_signed(storage, f"{model}/{number}")
    try:
        if trust is not None:
            judge_signature((signature, manifest), trust, model=model, version=number)
        content = read_content(manifest or b"", where=MANIFEST)
        check_place(content, model, number)
    except VersionRejected as exc:
        return str(exc)
    write_signature(storage, f"{model}/{number}", signer.sign(manifest or b""))
    return ""


def check_place(manifest: Mapping[str, Any], model: str, number: int) -> None:
    """Check that a manifest is that of its folder: no synchroniser accepts another one, by any key.

    Raises:
        VersionRejected: it is another one's.
    """
    got = f"{manifest['model']} {manifest['version']}"
    if got != f"{model} {number}":
        raise VersionRejected(f"{MANIFEST}: got that of {got}, expected {model} {number}; next: make publish FORCE=1")


def read_signed(storage: WritableStorage, folder: str) -> Signed:
    """The signature and the manifest of a version in a repository."""
    signature, manifest = (storage.get(f"{folder}/{name}") for name in (SIGNATURE, MANIFEST))
    return None if signature is None else signature.data, None if manifest is None else manifest.data
