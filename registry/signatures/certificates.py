"""Verifies the chain of a signer's certificate."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from registry.errors import VersionRejected
from registry.layout import SIGNATURE

_CLOCKS = timedelta(minutes=10)  # may differ by so much


def check_authority(certificate: x509.Certificate, file: str) -> None:
    """Check that a trusted certificate is one that issues others: no chain to another is ever accepted.

    Raises:
        VersionRejected: it is that of a signer, or lacks keyCertSign; `file` is where it comes from.
    """
    subject = certificate.subject.rfc4514_string()
    try:
        extensions = certificate.extensions
    except ValueError as exc:
        raise VersionRejected(f"{file}: certificate {subject!r:.120}: {exc}") from exc
    issues = {each.oid: each.value for each in extensions}
    constraints, usage = (issues.get(kind.oid) for kind in (x509.BasicConstraints, x509.KeyUsage))
    if not (isinstance(constraints, x509.BasicConstraints) and constraints.ca):
        raise VersionRejected(
            f"{file}: certificate {subject!r:.120}: got that of a signer, expected one that issues them (CA:TRUE), or "
            "the signer's public key"
        )
    if not (isinstance(usage, x509.KeyUsage) and usage.key_cert_sign):
        raise VersionRejected(
            f"{file}: certificate {subject!r:.120}: expected keyUsage keyCertSign; next: openssl req -x509 ... -addext "
            "keyUsage=critical,keyCertSign,cRLSign"
        )


def find_issued_key(chain: Sequence[bytes], issuers: Sequence[x509.Certificate]) -> tuple[Any, str]:
    """Public key and subject of a certificate that one of the trusted ones issued, with others in between or not.

    As model-signing does, the chain is verified for the time when the signer's certificate began: nothing trustworthy
    says when the signature was made, and what a certificate signed stays signed after it ends. One that has not begun
    is rejected. Unlike there, a certificate has to be one for signing code: those of servers and clients, which the
    same authority may issue to many, are not.

    Args:
        chain: DER, the signer's first.
        issuers: trusted.

    Raises:
        VersionRejected: it is not issued by them, or not for signing.
    """
    try:
        signer, *between = (x509.load_der_x509_certificate(each) for each in chain)
        subject = signer.subject.rfc4514_string()
        for_code = ExtendedKeyUsageOID.CODE_SIGNING in _usages(signer)
        key = signer.public_key()
    except Exception as exc:  # of many kinds
        raise VersionRejected(f"{SIGNATURE}: certificate: {exc}") from exc
    if not for_code:
        raise VersionRejected(f"{SIGNATURE}: certificate {subject!r:.120}: expected extendedKeyUsage codeSigning")
    if signer.not_valid_before_utc > datetime.now(UTC) + _CLOCKS:
        begins = signer.not_valid_before_utc.isoformat()
        raise VersionRejected(f"{SIGNATURE}: certificate {subject!r:.120}: it begins at {begins}, which is to come")
    policy = verification.ExtensionPolicy
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(issuers)))
        .time(signer.not_valid_before_utc)
        .extension_policies(ca_policy=policy.webpki_defaults_ca(), ee_policy=policy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(signer, between)
    except verification.VerificationError as exc:
        raise VersionRejected(f"{SIGNATURE}: certificate {subject!r:.120}: not issued by a trusted one: {exc}") from exc
    return key, subject


def _usages(certificate: x509.Certificate) -> Sequence[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []
