"""Verifies signatures in a confined process: who may write the repository wrote them, and the parsers are not ours."""

from collections.abc import Sequence

from registry.errors import Unsigned, VersionRejected
from registry.judgement.sandbox_process import confined
from registry.signatures.bundle import read_bundle
from registry.signatures.trust import Trust

Signed = tuple[bytes | None, bytes | None]  # content of the signature file and of the manifest; None where missing


def judge_signature(signed: Signed, trust: Trust, *, model: str, version: int) -> str:
    """Who signed a version, in words: see `verification.verify`.

    Raises:
        Unsigned: no trusted key did.
        OSError, Defect: see `confined`; likewise below.
    """
    try:
        signer: str = confined(_verify, signed, trust, model, version)
    except VersionRejected as exc:
        raise Unsigned(str(exc)) from exc
    return signer


def find_unsigned(versions: Sequence[tuple[Signed, str, int]], trust: Trust) -> str | None:
    """Why the first version that no trusted key signed is none to serve; None where all are signed.

    Args:
        versions: each with the name of its model, and its number.
        trust: whose signatures are accepted.
    """
    try:
        confined(_verify_all, versions, trust)
    except VersionRejected as exc:
        return str(exc)
    return None


def read_claim(signature: bytes) -> str:
    """Who a signature says it is by, in words; not verified.

    Raises:
        Unsigned: it says nothing.
    """
    try:
        claim: str = confined(_read_claim, signature)
    except VersionRejected as exc:
        raise Unsigned(str(exc)) from exc
    return claim


def _read_claim(signature: bytes) -> str:
    key = read_bundle(signature).key
    return f"key {key[:16]}" if key else "a certificate"


def _verify(signed: Signed, trust: Trust, model: str, version: int) -> str:
    from registry.signatures.verification import verify  # noqa: PLC0415 - 50 ms and 11 MB

    return verify(*signed, trust, model=model, version=version)


def _verify_all(versions: Sequence[tuple[Signed, str, int]], trust: Trust) -> None:
    for signed, model, version in versions:
        _verify(signed, trust, model, version)
