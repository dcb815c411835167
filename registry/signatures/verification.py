"""Verifies who signed a manifest, by the keys that are trusted.

With `cryptography` alone: OpenSSF's model-signing takes 1.3 s and 63 MB to import. What either writes the other accepts
(tests/integration/test_signatures.py).
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from registry.errors import VersionRejected
from registry.layout import MANIFEST, SIGNATURE
from registry.signatures.bundle import Bundle, parse_object, read_bundle, read_digest
from registry.signatures.certificates import check_authority, find_issued_key
from registry.signatures.trust import Trust

_BLOCK = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n[A-Za-z0-9+/=\s]*^-----END \1-----[ \t\r]*$", re.MULTILINE
)
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_COMMENT = re.compile(rb"\s*(#.*)?")
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_EXPECTED = "PEM of public keys (EC P-256, P-384 or P-521) or of certificates that issue signers' certificates"
_SHOWN = 5  # keys


@dataclass(frozen=True)
class _Trusted:
    """Keys by their fingerprint, and certificates, each with the name of its file."""

    keys: dict[str, tuple[ec.EllipticCurvePublicKey, str]]
    certificates: list[tuple[x509.Certificate, str]]

    def describe(self) -> list[str]:
        """Each of them in words."""
        return [
            *(f"key {key[:16]} ({file})" for key, (_, file) in self.keys.items()),
            *(f"certificates of {one.subject.rfc4514_string()!r:.120} ({file})" for one, file in self.certificates),
        ]


def describe_trusted(trust: Trust) -> list[str]:
    """What is trusted, in words.

    Raises:
        VersionRejected: a file holds something else.
    """
    return _read_trusted(trust).describe()


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key as PEM, hexadecimal: of the file that `openssl pkey -pubout` writes."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def verify(signature: bytes | None, manifest: bytes | None, trust: Trust, *, model: str, version: int) -> str:
    """Verify that a trusted key signed this manifest, for this version of this model.

    Args:
        signature: content of the signature file; None where it is missing.
        manifest: content of manifest.json; likewise.
        trust: whose signatures are accepted.
        model: name of the folder of the model.
        version: number of the folder of the version.

    Returns:
        Who signed it, in words.

    Raises:
        VersionRejected: nothing shows it.
    """
    trusted = _read_trusted(trust)
    if manifest is None:
        raise VersionRejected(f"{MANIFEST}: missing, expected one with a signature; next: make publish SIGN=<key>")
    if signature is None:
        raise VersionRejected(f"{SIGNATURE}: missing, expected one by {_join(trusted)}; next: make publish SIGN=<key>")
    bundle = read_bundle(signature)
    key, signer = _find_key(bundle, trusted)
    try:
        key.verify(bundle.signature, bundle.signed, ec.ECDSA(_HASHES[key.curve.name]()))
    except InvalidSignature:
        raise VersionRejected(f"{SIGNATURE}: it does not fit its content, expected what {signer} signed") from None
    got, expected = read_digest(bundle.payload), hashlib.sha256(manifest).hexdigest()
    if got != expected:
        raise VersionRejected(
            f"{SIGNATURE}: {signer} signed another {MANIFEST}: sha256 got {got[:12]!r}..., expected {expected[:12]}..."
        )
    _check_place(manifest, signer, model=model, version=version)
    return signer


def _check_place(manifest: bytes, signer: str, *, model: str, version: int) -> None:
    """Check that what was signed is this version: a copy of a signed version in another folder is an old one.

    Raises:
        VersionRejected: it is another one.
    """
    content = parse_object(manifest, MANIFEST)
    got = content.get("model"), content.get("version")
    if got != (model, str(version)):
        raise VersionRejected(
            f"{MANIFEST}: {signer} signed it for {got[0]!r:.80} {got[1]!r:.30}, expected {model!r:.80} '{version}': "
            "a copy of an old version, or of another model; next: make publish SIGN=<key>"
        )


def _find_key(bundle: Bundle, trusted: _Trusted) -> tuple[ec.EllipticCurvePublicKey, str]:
    """The trusted key that a signature says it is by, and its description.

    Raises:
        VersionRejected: it is not trusted.
    """
    if not bundle.certificates:
        if bundle.key not in trusted.keys:
            raise VersionRejected(f"{SIGNATURE}: signed by key {bundle.key[:16]!r}, expected {_join(trusted)}")
        key, file = trusted.keys[bundle.key]
        return key, f"key {bundle.key[:16]} ({file})"
    if not trusted.certificates:
        raise VersionRejected(f"{SIGNATURE}: signed by a certificate, expected {_join(trusted)}")
    public, subject = find_issued_key(bundle.certificates, [one for one, _ in trusted.certificates])
    return _check_curve(public, f"{SIGNATURE}: certificate"), f"certificate {subject!r:.120}"


def _read_trusted(trust: Trust) -> _Trusted:
    keys: dict[str, tuple[ec.EllipticCurvePublicKey, str]] = {}
    certificates: list[tuple[x509.Certificate, str]] = []
    for file, data in trust.files:
        for kind, pem in _split(file, data):
            if kind == "PUBLIC KEY":
                key = _check_curve(_load(load_pem_public_key, pem, file), file)
                keys[fingerprint(key)] = key, file
            else:
                certificate = _load(x509.load_pem_x509_certificate, pem, file)
                check_authority(certificate, file)
                certificates.append((certificate, file))
    return _Trusted(keys, certificates)


def _split(file: str, data: bytes) -> list[tuple[str, bytes]]:
    """The blocks of a file with their kinds: all of it, or none, for a key that is skipped is one that is missing.

    Raises:
        VersionRejected: there is something else in it.
    """
    blocks = [(block[1].decode(), block[0] + b"\n") for block in _BLOCK.finditer(data)]
    rest = _BLOCK.sub(b"", data)
    halves = [half[1].decode() for half in _BEGIN.finditer(rest)]
    for kind in (*(kind for kind, _ in blocks), *halves):
        if kind not in {"PUBLIC KEY", "CERTIFICATE"}:
            secret = ": a private key is for the signer alone" if "PRIVATE" in kind else ""
            raise VersionRejected(f"{file}: got {kind}, expected {_EXPECTED}{secret}")
    if halves:
        raise VersionRejected(f"{file}: got a {halves[0]} without its end, or with other text in it: it is incomplete")
    if not blocks:
        raise VersionRejected(f"{file}: no PEM, expected {_EXPECTED}")
    for line in rest.splitlines():
        if not _COMMENT.fullmatch(line):
            text = line.decode(errors="replace")
            raise VersionRejected(f"{file}: got {text!r:.60}, expected {_EXPECTED}; next: # before a comment")
    return blocks


def _load(load: Any, pem: bytes, file: str) -> Any:
    try:
        return load(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise VersionRejected(f"{file}: {exc}; expected {_EXPECTED}") from exc


def _check_curve(key: Any, where: str) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        got = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        raise VersionRejected(f"{where}: got a key {got}, expected EC P-256, P-384 or P-521")
    return key


def _join(trusted: _Trusted) -> str:
    described: Sequence[str] = trusted.describe()
    return " or ".join(described[:_SHOWN]) + (f" or {len(described) - _SHOWN} more" if described[_SHOWN:] else "")
