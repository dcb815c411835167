"""Judges a private key and its certificate before anything is signed: what is wrong with them, and what to do."""

import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from export.errors import ExportError

_CURVES = {"secp256r1", "secp384r1", "secp521r1"}
_EXPECTED = "PEM of a private key, EC P-256, P-384 or P-521"


def check_key(path: Path, password: bytes | None, *, with_certificates: bool) -> ec.EllipticCurvePrivateKey:
    """Load a key, and warn where others can read it.

    Args:
        path: PEM.
        password: of it; None: there is none.
        with_certificates: whether it signs with certificates.

    Raises:
        ExportError: it cannot sign.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    key = _load(path, data, password)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        got = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__.removeprefix("_")
        raise ExportError(f"{path}: got a key {got}, expected {_EXPECTED}")
    if password is not None and with_certificates:
        raise ExportError(
            f"{path}: model-signing takes no encrypted key with certificates, expected {_EXPECTED}, not encrypted"
        )
    if mode := path.stat().st_mode & 0o077:
        print(f"warning: {path}: others can use this key (mode ...{mode:02o}); next: chmod 600 {path}", file=sys.stderr)
    return key


def check_certificate(path: Path, key: ec.EllipticCurvePrivateKey, *, where: Path) -> None:
    """Check that a certificate is that of a key.

    Args:
        path: PEM of it alone.
        key: that signs.
        where: the file of the user.

    Raises:
        ExportError: it is that of another key, or none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        subject, public = certificate.subject.rfc4514_string(), certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ExportError(f"{where}: {exc}; expected PEM of certificates, that of the key first") from exc
    if public != key.public_key():
        raise ExportError(f"{where}: the first certificate, {subject!r:.120}, is of another key than --sign")


def _load(path: Path, data: bytes, password: bytes | None) -> Any:
    try:
        return load_pem_private_key(data, password)
    except TypeError as exc:  # one of the two is missing
        if password is None:
            raise ExportError(f"{path}: is encrypted; next: its password in the variable SIGN_PASSWORD") from exc
        raise ExportError(f"{path}: is not encrypted; next: unset SIGN_PASSWORD") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        if password is not None and _is_encrypted(data):
            raise ExportError(f"{path}: SIGN_PASSWORD is not its password") from exc
        reason = str(exc).partition(".")[0]
        raise ExportError(f"{path}: {reason}; expected {_EXPECTED}") from exc


def _is_encrypted(data: bytes) -> bool:
    return b"ENCRYPTED" in data
