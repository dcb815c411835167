"""Signs manifests of versions, by OpenSSF's model-signing."""

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from export.errors import ExportError
from registry.errors import Misconfigured
from registry.layout import MANIFEST, SIGNATURE
from registry.signatures.trust import Trust, read_trust
from registry.storage.writing import WritableStorage

_PASSWORD = "SIGN_PASSWORD"  # noqa: S105 - the name of a variable: an argument would be in the list of processes


@dataclass(frozen=True)
class Signer:
    """Signs manifests with one key.

    Attributes:
        config: `model_signing.signing.Config`.
        folder: temporary, where the key's certificates are and files are signed.
    """

    config: Any
    folder: Path

    def sign(self, manifest: bytes) -> bytes:
        """The content of the signature file of a manifest.

        Raises:
            ExportError: it cannot be signed.
        """
        path, signature = self.folder / MANIFEST, self.folder / SIGNATURE
        path.write_bytes(manifest)
        self.config.sign(path, signature)
        return signature.read_bytes()


def open_signer(args: Namespace, folder: Path) -> Signer | None:
    """The signer that the arguments name, tried once; None where they name none.

    Args:
        args: `sign`, a private key; `certificates` of it, or None.
        folder: temporary.

    Raises:
        ExportError: the key cannot be used, or nothing is installed to sign with.
    """
    if args.sign is None:
        if args.certificates is not None:
            raise ExportError("--certificates: got no --sign, expected the private key of the first certificate")
        return None
    try:
        from model_signing.signing import Config  # noqa: PLC0415 - over a second, where something is signed

        from export.publish.signing_key import check_certificate, check_key  # noqa: PLC0415 - likewise
    except ImportError as exc:
        raise ExportError(f"signing: {exc}; next: make .venv/.signing") from exc
    create: Any = Config  # untyped
    password = (os.environ.get(_PASSWORD) or "").encode() or None
    key = check_key(args.sign, password, with_certificates=args.certificates is not None)
    try:
        config = create()
        if args.certificates is None:
            config.use_elliptic_key_signer(private_key=args.sign, password=password)
        else:
            own, *issuers = _split(args.certificates, folder)  # a chain of none is an error of model-signing
            check_certificate(own, key, where=args.certificates)
            config.use_certificate_signer(
                private_key=args.sign, signing_certificate=own, certificate_chain=issuers or [own]
            )
        signer = Signer(config, folder)
        signer.sign(b"")
    except (ValueError, TypeError, AttributeError) as exc:
        raise ExportError(f"{args.certificates or args.sign}: {exc}") from exc
    return signer


def _split(certificates: Path, folder: Path) -> list[Path]:
    """Write each certificate of a file into one of its own: the key's first, then those that issued it.

    Raises:
        ExportError: it has none.
    """
    end = "-----END CERTIFICATE-----"
    parts = certificates.read_text(encoding="ascii", errors="replace").split(end)[:-1]
    if not parts:
        raise ExportError(f"{certificates}: got no certificate, expected PEM, that of the key first")
    paths = [folder / f"{number}.crt" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_text(f"{part}{end}\n", encoding="ascii", errors="replace")
    return paths


def write_signature(storage: WritableStorage, folder: str, signature: bytes) -> None:
    """Write the signature of a version, in the place of any before.

    Raises:
        ExportError: another process wrote it meanwhile.
    """
    key = f"{folder}/{SIGNATURE}"
    present = storage.get(key)
    if not storage.put(key, signature, etag=None if present is None else present.etag):
        raise ExportError(f"{key}: another process wrote it meanwhile; next: the same command again")


def read_signers(path: Path | None) -> Trust | None:
    """Whose signatures are accepted; None without a path.

    Raises:
        ExportError: a file is missing or broken.
    """
    try:
        return None if path is None else read_trust(path)
    except Misconfigured as exc:
        raise ExportError(f"--signed-by: {exc}") from exc


def temporary_folder() -> "TemporaryDirectory[str]":
    """A folder for `open_signer`, which only this user may read."""
    return TemporaryDirectory(prefix="nereid-sign-")
