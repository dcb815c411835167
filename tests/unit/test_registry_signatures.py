"""Signatures of versions: whose are accepted, and that whatever else a file holds is a rejection."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import Unsigned, VersionRejected
from registry.layout import MANIFEST
from registry.signatures.bundle import MAX_CERTIFICATES, read_bundle, read_digest
from registry.signatures.judgement import read_claim
from registry.signatures.trust import Trust
from registry.signatures.verification import describe_trusted, fingerprint, verify
from tests.support.signed import Key, issue, make_key

CONTENT = json.dumps({"model": "rows", "version": "3", "files": {}}).encode()
TYPE = "application/vnd.in-toto+json"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys"), "key")


@pytest.fixture(scope="module")
def trust(key: Key) -> Trust:
    return Trust((("key.pub", key.public.read_bytes()),))


def sign(key: Key, statement: Any, **members: Any) -> dict[str, Any]:
    """A bundle as model-signing writes it, of any statement, which it would not sign."""
    payload = json.dumps(statement).encode()
    signature = key.pair.sign(b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload), ECDSA)
    envelope = {"payloadType": TYPE, "payload": encode(payload), "signatures": [{"sig": encode(signature)}]}
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": fingerprint(key.pair.public_key())}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    } | members


ECDSA = ec.ECDSA(hashes.SHA256())


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def digest(content: bytes) -> str:
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(content)
    return hasher.finalize().hex()


def statement(*resources: Any, **members: Any) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": MANIFEST}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": list(resources)},
    } | members


def resource(name: str = ".", content: bytes = CONTENT, algorithm: str = "sha256") -> dict[str, str]:
    return {"name": name, "algorithm": algorithm, "digest": digest(content)}


def check(bundle: Any, trust: Trust, content: bytes = CONTENT, *, version: int = 3) -> str:
    data = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
    return verify(data, content, trust, model="rows", version=version)


@pytest.mark.parametrize(
    "resources",
    [
        [resource()],
        [resource("manifest.json")],
        [resource("config.pbtxt", b"a"), resource("manifest.json")],
    ],
)
def test_manifest_is_signed_alone_or_in_its_folder(key: Key, trust: Trust, resources: list[Any]) -> None:
    assert check(sign(key, statement(*resources)), trust) == f"key {key.fingerprint} (key.pub)"


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ([resource("model.onnx")], "it signs other files"),
        ([resource(), resource("model.onnx")], "it signs other files"),  # "." stands for a file that is alone
        ([resource("a/manifest.json")], "it signs other files"),
        ([resource(algorithm="blake3")], "it signs other files"),
        ([], "it signs other files"),
        ([None, 1, "x", {"name": "."}], "it signs other files"),
        ([resource(content=CONTENT + b" ")], "signed another manifest.json"),
    ],
)
def test_signature_of_something_else_is_rejected(key: Key, trust: Trust, resources: list[Any], says: str) -> None:
    with pytest.raises(VersionRejected, match=says):
        check(sign(key, statement(*resources)), trust)


def test_statement_of_another_kind_is_rejected(key: Key, trust: Trust) -> None:
    kinds: tuple[dict[str, Any], ...] = (
        {"_type": "x"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": []},
    )
    for members in kinds:
        with pytest.raises(VersionRejected):
            check(sign(key, statement(resource(), **members)), trust)
    wholes: tuple[Any, ...] = ([], "x", 1, None)
    for whole in wholes:
        with pytest.raises(VersionRejected, match="expected an object"):
            check(sign(key, whole), trust)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (CONTENT, 4),
        (CONTENT.replace(b"rows", b"other"), 3),
        (b"[]", 3),
        (b"no JSON", 3),
        (b"{}", 3),
        (CONTENT.replace(b'"3"', b"3.0"), 3),
    ],
)
def test_manifest_of_another_version_is_rejected_although_it_is_signed(
    key: Key, trust: Trust, content: bytes, version: int
) -> None:
    with pytest.raises(VersionRejected, match=MANIFEST):
        check(sign(key, statement(resource(content=content))), trust, content, version=version)


def test_signature_of_another_key_under_a_trusted_name_is_rejected(key: Key, trust: Trust, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    forged = sign(other, statement(resource()), verificationMaterial=sign(key, {})["verificationMaterial"])
    with pytest.raises(VersionRejected, match="does not fit its content"):
        check(forged, trust)
    changed = sign(key, statement(resource()))
    changed["dsseEnvelope"]["payload"] = encode(json.dumps(statement(resource(), more=1)).encode())
    with pytest.raises(VersionRejected, match="does not fit its content"):
        check(changed, trust)


def test_missing_files_are_named(trust: Trust) -> None:
    with pytest.raises(
        VersionRejected, match=r"model.sig: missing, expected one by key .* \(key.pub\); next: make publish"
    ):
        verify(None, CONTENT, trust, model="rows", version=3)
    with pytest.raises(VersionRejected, match=r"manifest.json: missing"):
        verify(b"{}", None, trust, model="rows", version=3)


@given(st.binary(max_size=300) | JSON.map(lambda each: json.dumps(each).encode()))
def test_whatever_a_signature_holds_is_a_rejection(data: bytes) -> None:
    for read in (read_bundle, read_digest):
        with pytest.raises(VersionRejected):
            read(data)


@given(data=st.data())
def test_every_member_of_a_bundle_may_be_anything(key: Key, trust: Trust, data: st.DataObject) -> None:
    bundle = json.loads(json.dumps(sign(key, statement(resource()))))
    place = bundle
    while isinstance(place, dict | list) and place:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        name = data.draw(st.sampled_from(names))
        if data.draw(st.booleans()) or not isinstance(place[name], dict | list) or not place[name]:
            before, place[name] = place[name], data.draw(JSON)
            is_same = before == place[name] or name == "tlogEntries"
            break
        place = place[name]
    if not is_same:
        with pytest.raises(VersionRejected):
            check(bundle, trust)


@given(position=st.integers(0, 10_000), flipped=st.integers(1, 255))
def test_no_other_byte_of_what_is_signed_is_accepted(key: Key, trust: Trust, position: int, flipped: int) -> None:
    bundle = sign(key, statement(resource()))
    payload = bytearray(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload[position % len(payload)] ^= flipped
    bundle["dsseEnvelope"]["payload"] = encode(bytes(payload))
    with pytest.raises(VersionRejected):
        check(bundle, trust)


HINTS = st.sampled_from(["\ud800x", "\x1b[31m", "[red]", "A" * 64, "0" * 63, "0" * 64 + "\n"]) | st.text(max_size=70)


@given(hint=HINTS)
def test_key_that_a_signature_names_is_a_sha_256_or_a_rejection(key: Key, hint: str) -> None:
    bundle = sign(key, statement(resource()), verificationMaterial={"publicKey": {"hint": hint}})
    with pytest.raises(VersionRejected, match="expected publicKey with its SHA-256"):
        read_bundle(json.dumps(bundle).encode())


@pytest.mark.parametrize("hint", ["\ud800x", "\x1b[31m" + "0" * 59, "0" * 64])
def test_claim_of_a_signature_is_printable(key: Key, hint: str) -> None:
    bundle = sign(key, statement(resource()), verificationMaterial={"publicKey": {"hint": hint}})
    try:
        claim = read_claim(json.dumps(bundle).encode())
    except Unsigned as exc:
        claim = str(exc)
    assert claim.isprintable()
    claim.encode()


def test_chains_have_a_limit(key: Key) -> None:
    chain = {"x509CertificateChain": {"certificates": [{"rawBytes": "MAA="}] * (MAX_CERTIFICATES + 1)}}
    with pytest.raises(VersionRejected, match=f"at most {MAX_CERTIFICATES}"):
        read_bundle(json.dumps(sign(key, {}, verificationMaterial=chain)).encode())


@pytest.mark.parametrize("raw", ["MAA=", "", "!", None, encode(b"x" * 999)])
def test_broken_certificates_are_a_rejection(key: Key, raw: Any, tmp_path: Path) -> None:
    root = issue(tmp_path, "root", key)
    chain = {"x509CertificateChain": {"certificates": [{"rawBytes": raw}]}}
    with pytest.raises(VersionRejected, match=r"model.sig"):
        check(sign(key, statement(resource()), verificationMaterial=chain), Trust((("root", root.read_bytes()),)))


def test_files_of_several_keys_are_trusted(key: Key, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other", ec.SECP521R1())
    both = b"# a comment\n\n" + key.public.read_bytes() + other.public.read_bytes()
    assert describe_trusted(Trust((("both", both),))) == [
        f"key {key.fingerprint} (both)",
        f"key {other.fingerprint} (both)",
    ]
    for curve, says in ((ec.SECP256K1(), "secp256k1"), (ec.SECP224R1(), "secp224r1")):
        with pytest.raises(VersionRejected, match=says):
            describe_trusted(Trust((("weak", make_key(tmp_path, "weak", curve).public.read_bytes()),)))


def test_key_file_is_trusted_whole_or_not_at_all(key: Key) -> None:
    good = key.public.read_bytes()
    lines = good.splitlines(keepends=True)
    others = {
        b"".join(lines[:-1]): "without its end",
        b"".join(lines[1:]): "expected PEM",
        b"".join([lines[0], b"Comment: x\n", *lines[1:]]): "without its end",
        b"ssh-rsa AAAA publisher@example\n": "ssh-rsa AAAA",
        b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n": "got X509 CRL",
        b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n": "for the signer alone",
        b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END CERTIFICATE-----\n": "without its end",
        b"a comment\n": "# before a comment",
        b"\x00\xff\n": "# before a comment",
    }
    for other, says in others.items():
        for data in (good + other, other + good):
            with pytest.raises(VersionRejected, match=says):
                describe_trusted(Trust((("file", data),)))
    for data in (good.replace(b"\n", b"\r\n"), good.rstrip(), b"\n # of the publishers\n\n" + good):
        assert describe_trusted(Trust((("file", data),))) == [f"key {key.fingerprint} (file)"]


def test_trusted_certificates_are_those_of_authorities(key: Key, tmp_path: Path) -> None:
    root = issue(tmp_path, "root", key)
    leaf = issue(tmp_path, "publisher", make_key(tmp_path, "publisher"), by=(root, key))
    assert describe_trusted(Trust((("root.crt", root.read_bytes()),)))
    chain = leaf.read_bytes() + root.read_bytes()
    for data in (leaf.read_bytes(), chain):
        with pytest.raises(VersionRejected, match="got that of a signer, expected one that issues them"):
            describe_trusted(Trust((("file", data),)))


def test_certificate_that_has_not_begun_signs_nothing(key: Key, tmp_path: Path) -> None:
    root, signer = issue(tmp_path, "root", key), make_key(tmp_path, "publisher")
    trust = Trust((("root.crt", root.read_bytes()),))

    def signed(begins: datetime | None) -> dict[str, Any]:
        leaf = issue(tmp_path, "publisher", signer, by=(root, key), begins=begins)
        der = x509.load_pem_x509_certificate(leaf.read_bytes()).public_bytes(Encoding.DER)
        chain = {"x509CertificateChain": {"certificates": [{"rawBytes": encode(der)}]}}
        return sign(signer, statement(resource()), verificationMaterial=chain)

    assert check(signed(None), trust) == "certificate 'CN=publisher'"
    with pytest.raises(VersionRejected, match="which is to come"):
        check(signed(datetime.now(UTC) + timedelta(days=2)), trust)


def test_names_that_begin_alike_are_other_names(key: Key, trust: Trust) -> None:
    content = CONTENT.replace(b"rows", b"r" * 200)
    signature = json.dumps(sign(key, statement(resource(content=content)))).encode()
    assert verify(signature, content, trust, model="r" * 200, version=3)
    with pytest.raises(VersionRejected, match="or of another model"):
        verify(signature, content, trust, model="r" * 199 + "s", version=3)
