"""The keys and certificates that may sign versions: files of PEM, read once at the start."""

from dataclasses import dataclass
from pathlib import Path

from registry.errors import Misconfigured, VersionRejected
from registry.judgement.sandbox_process import confined

_FILE_BYTES = 2**20
_MAX_FILES = 100


@dataclass(frozen=True)
class Trust:
    """Whose signatures are accepted.

    Attributes:
        files: PEM of public keys, and of certificates that issue signers' certificates, by the name of the file.
        described: each key and certificate in words.
    """

    files: tuple[tuple[str, bytes], ...]
    described: tuple[str, ...] = ()


def read_trust(path: Path) -> Trust:
    """Read a file, or all files of a folder; hidden ones are left out, as Kubernetes has them beside what it mounts.

    Raises:
        Misconfigured: there is none, or one has something else in it: no version would be verified as it was meant.
    """
    try:
        paths = sorted(each for each in path.iterdir() if each.name[0] != ".") if path.is_dir() else [path]
        if not paths or len(paths) > _MAX_FILES:
            raise Misconfigured(f"{path}: got {len(paths)} files, expected PEM of public keys, 1 to {_MAX_FILES}")
        files = tuple((each.name, _read(each)) for each in paths)
    except OSError as exc:
        raise Misconfigured(f"{exc.filename or path}: {(exc.strerror or str(exc)).lower()}") from exc
    try:
        return Trust(files, tuple(confined(_describe, files)))
    except VersionRejected as exc:
        raise Misconfigured(f"{path}: {exc}") from exc


def _describe(files: tuple[tuple[str, bytes], ...]) -> list[str]:
    """What the files hold, in words; in the confined process.

    Raises:
        VersionRejected: one holds something else.
    """
    from registry.signatures.verification import describe_trusted  # noqa: PLC0415 - 50 ms and 11 MB

    return describe_trusted(Trust(files))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise Misconfigured(f"{path}: got more than {_FILE_BYTES} bytes, expected PEM of public keys")
    return data
