"""What a signature file says: a Sigstore bundle around an in-toto statement, as OpenSSF's model-signing writes it.

https://github.com/sigstore/model-transparency, version 1 of the format; https://github.com/secure-systems-lab/dsse.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from registry.errors import VersionRejected
from registry.layout import MANIFEST, SIGNATURE

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_ALONE = "."  # the name of a file that was signed by itself
_KEY = re.compile("[0-9a-f]{64}")  # the hint: a SHA-256
MAX_CERTIFICATES = 8  # of a chain


@dataclass(frozen=True)
class Bundle:
    """A signature file, not verified.

    Attributes:
        signed: the bytes that were signed.
        signature: of these bytes.
        payload: the statement, JSON.
        key: SHA-256 of the public key as PEM, hexadecimal; empty where a certificate has it.
        certificates: DER, the signer's first; empty where a key alone signed.
    """

    signed: bytes
    signature: bytes
    payload: bytes
    key: str = ""
    certificates: tuple[bytes, ...] = ()


def read_bundle(data: bytes) -> Bundle:
    """Parse a signature file.

    Raises:
        VersionRejected: model-signing would not write it, or of a kind that is not accepted.
    """
    content = parse_object(data, SIGNATURE)
    if (kind := content.get("mediaType")) != _MEDIA_TYPE:
        raise VersionRejected(f"{SIGNATURE}: mediaType: got {kind!r:.80}, expected {_MEDIA_TYPE}")
    envelope = _member(content, "dsseEnvelope")
    if (kind := envelope.get("payloadType")) != _PAYLOAD_TYPE:
        raise VersionRejected(f"{SIGNATURE}: payloadType: got {kind!r:.80}, expected {_PAYLOAD_TYPE}")
    match envelope.get("signatures"):
        case [{"sig": str(encoded)}]:
            signature = _decode(encoded, "sig")
        case _:
            raise VersionRejected(f"{SIGNATURE}: signatures: expected a list of one")
    payload = _decode(envelope.get("payload"), "payload")
    key, certificates = _read_material(_member(content, "verificationMaterial"))
    # DSSE's pre-authentication encoding: what is signed names its type.
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    return Bundle(signed, signature, payload, key, certificates)


def read_digest(payload: bytes) -> str:
    """The SHA-256 of manifest.json, hexadecimal, that a statement names.

    It may be of that file alone, or of a folder with it: a manifest has the digests of all other files.

    Raises:
        VersionRejected: it names none.
    """
    statement = parse_object(payload, f"{SIGNATURE}: payload")
    kinds = (statement.get("_type"), statement.get("predicateType"))
    if kinds != (_STATEMENT_TYPE, _PREDICATE_TYPE):
        raise VersionRejected(f"{SIGNATURE}: got a statement {kinds!r:.120}, expected {_PREDICATE_TYPE}")
    resources = _member(statement, "predicate").get("resources")
    if not isinstance(resources, list):
        raise VersionRejected(f"{SIGNATURE}: resources: expected a list")
    names = {_ALONE} if len(resources) == 1 else set()
    for resource in resources:
        match resource:
            case {"name": str(name), "algorithm": "sha256", "digest": str(digest)} if name in {MANIFEST, *names}:
                return digest
    raise VersionRejected(f"{SIGNATURE}: it signs other files, expected {MANIFEST} by its sha256")


def _read_material(material: dict[str, Any]) -> tuple[str, tuple[bytes, ...]]:
    match material:
        case {"publicKey": {"hint": str(key)}} if _KEY.fullmatch(key):
            return key, ()
        case {"x509CertificateChain": {"certificates": [_, *_] as chain}} if len(chain) <= MAX_CERTIFICATES:
            encoded = [each.get("rawBytes") if isinstance(each, dict) else None for each in chain]
            return "", tuple(_decode(each, "rawBytes") for each in encoded)
        case {"certificate": _}:
            raise VersionRejected(
                f"{SIGNATURE}: signed by Sigstore's keyless way, expected by a key or a certificate chain"
            )
    raise VersionRejected(
        f"{SIGNATURE}: verificationMaterial: expected publicKey with its SHA-256 as hint, or x509CertificateChain of "
        f"at most {MAX_CERTIFICATES}"
    )


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse JSON.

    Raises:
        VersionRejected: it is invalid, or no object.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise VersionRejected(f"{where}: no JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise VersionRejected(f"{where}: got {type(content).__name__}, expected an object")
    return content


def _member(content: dict[str, Any], name: str) -> dict[str, Any]:
    member = content.get(name)
    if not isinstance(member, dict):
        raise VersionRejected(f"{SIGNATURE}: {name}: expected an object")
    return member


def _decode(encoded: Any, name: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise VersionRejected(f"{SIGNATURE}: {name}: no base64: {exc}") from exc
