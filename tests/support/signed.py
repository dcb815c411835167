"""Keys, certificates and signatures for tests: made by `cryptography`, signed by model-signing itself."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from registry.layout import MANIFEST, SIGNATURE
from registry.signatures.verification import fingerprint

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Key:
    """A key pair in two files.

    Attributes:
        private: PEM.
        public: PEM.
        pair: itself.
    """

    private: Path
    public: Path
    pair: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        """As messages show it."""
        return fingerprint(self.pair.public_key())[:16]


def make_key(folder: Path, name: str, curve: ec.EllipticCurve | None = None, *, password: str = "") -> Key:
    """Write a key pair as `<name>.pem` and `<name>.pub`."""
    pair = ec.generate_private_key(curve or ec.SECP256R1())
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    folder.mkdir(parents=True, exist_ok=True)
    private.write_bytes(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return Key(private, public, pair)


def issue(
    folder: Path,
    name: str,
    key: Key,
    *,
    by: tuple[Path, Key] | None = None,
    for_code: bool = True,
    begins: datetime | None = None,
) -> Path:
    """Write a certificate of a key as `<name>.crt`: of an authority, or issued to a signer, and past its end."""
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    parent = x509.load_pem_x509_certificate(by[0].read_bytes()) if by else None
    issuer = by[1] if by else key
    is_authority, begins = by is None, begins or datetime.now(UTC) - 30 * _DAY
    usage = ExtendedKeyUsageOID.CODE_SIGNING if for_code else ExtendedKeyUsageOID.SERVER_AUTH
    certificate = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(parent.subject if parent else own)
        .public_key(key.pair.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - (_DAY if is_authority else timedelta()))
        .not_valid_after(begins + (365 if is_authority else 1) * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.pair.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.pair.public_key()), critical=False)
    )
    if not is_authority:
        certificate = certificate.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    path = folder / f"{name}.crt"
    path.write_bytes(certificate.sign(issuer.pair, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def sign(version: Path, key: Key) -> bytes:
    """Sign the manifest of a version's folder by model-signing, and return the content of its signature."""
    from model_signing.signing import Config  # noqa: PLC0415 - over a second

    Config().use_elliptic_key_signer(private_key=key.private).sign(version / MANIFEST, version / SIGNATURE)  # type: ignore[no-untyped-call]
    return (version / SIGNATURE).read_bytes()


def model_signing(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the official program."""
    command = [sys.executable, "-m", "model_signing", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
