"""Signed versions, end to end: a real S3 server, the synchroniser and Triton, and OpenSSF's own program."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from export.__main__ import main
from registry.errors import Unsigned
from registry.layout import MANIFEST, SIGNATURE, TEXT_BYTES
from registry.signatures.judgement import judge_signature
from registry.signatures.trust import read_trust
from tests.support.pages import blocks_of
from tests.support.reconciled import MODEL
from tests.support.responded import stale
from tests.support.signed import Key, issue, make_key, model_signing, sign
from tests.support.stack import PATIENCE_S, ROOT, free_ports, start_stack, wait_until
from tests.support.synced import PREFIX, REPOSITORY, Synced, start_synced, variables_for
from tests.support.terminal import open_terminal
from tests.support.versions import Build, write

FIRST = Build(1)
PAGE = ROOT / "docs/signed-models.md"
PASSWORD = "hello-there"


@dataclass
class Signed:
    """A stack with a policy.

    Attributes:
        synced: it, with its bucket.
        key: that is trusted.
        other: that is trusted too.
        foreign: that is not.
    """

    synced: Synced
    key: Key
    other: Key
    foreign: Key

    def upload(self, number: int, key: Key | None, *, signature: bytes | None = None) -> Path:
        """Upload a version of `rows` with a signature by a key, or with any file in its place."""
        folder = self.synced.build(MODEL, number, Build(number))
        if key is not None:
            sign(folder, key)
        if signature is not None:
            (folder / SIGNATURE).write_bytes(signature)
        self.synced.s3.upload(folder, f"{PREFIX}/{MODEL}/{number}")
        return folder

    def reason(self, number: int) -> str:
        """Why a version is rejected, as soon as it is."""
        return str(self.synced.wait_for_state(MODEL, number, "refused")["reason"])


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    folder = tmp_path_factory.mktemp("signed")
    key, foreign = make_key(folder / "private", "key"), make_key(folder / "private", "foreign")
    other = make_key(folder / "private", "other")
    policy = folder / "policy"
    (policy / "..data").mkdir(parents=True)  # as Kubernetes mounts a ConfigMap
    for each in (key, other):
        (policy / each.public.name).write_bytes(each.public.read_bytes())
    with start_synced(
        folder, {MODEL: FIRST}, finish=lambda version: sign(version, key), SIGNED_BY=str(policy)
    ) as synced:
        yield Signed(synced, key, other, foreign)


def test_version_without_a_valid_signature_is_rejected_while_the_one_before_serves(signed: Signed) -> None:
    synced = signed.synced
    (before,) = synced.status()["models"][MODEL]["serving"]
    old = synced.build("old", 1, FIRST)  # of another model
    sign(old, signed.key)
    rejections = synced.metric("nereid_sync_refusals_total", model=MODEL)
    with synced.load(MODEL) as load:
        assert load.wait_for_version(before, seconds=PATIENCE_S)
        signed.upload(101, None)
        assert f"model.sig: missing, expected one by key {signed.key.fingerprint} (key.pub)" in signed.reason(101)
        signed.upload(102, signed.foreign)
        assert f"signed by key '{signed.foreign.fingerprint}', expected key" in signed.reason(102)
        # An old version, validly signed: once as it is, once with the files of a new one.
        for source, number in ((synced.folder.parent / "first" / MODEL / "1", 103), (old, 104)):
            synced.s3.upload(source, f"{PREFIX}/{MODEL}/{number}")
        assert f"signed it for '{MODEL}' '1', expected '{MODEL}' '103': a copy of an old version" in signed.reason(103)
        assert f"signed it for 'old' '1', expected '{MODEL}' '104'" in signed.reason(104)
        signature = (synced.folder.parent / "first" / MODEL / "1" / SIGNATURE).read_bytes()
        folder = signed.upload(105, None, signature=signature)
        assert "signed another manifest.json: sha256 got" in signed.reason(105)
        result = load.stop()
    assert not result.failures, result.failures[:3]
    assert not stale(result)
    assert {response.version for response in result.responses} == {before}
    assert synced.metric("nereid_sync_refusals_total", model=MODEL) == rejections + 5
    assert synced.metric("nereid_sync_refused_version", model=MODEL, version="105") == 1
    # Nothing of them was read but signature and manifest.
    read = {
        request.path.rpartition("/")[2]
        for request in synced.proxy.requests
        if re.search("/rows/10[1-5]/", request.path)
    }
    assert read == {MANIFEST, SIGNATURE}
    # Signed afterwards, it serves, and without a restart.
    synced.s3.put(f"{PREFIX}/{MODEL}/105/{SIGNATURE}", sign(folder, signed.other))
    synced.wait_for_serving(MODEL, 105)
    assert "is signed by key" in synced.stack.log.read_text(errors="replace")


def bundle(signature: bytes, **members: Any) -> bytes:
    return json.dumps(json.loads(signature) | members).encode()


def test_hostile_signatures_are_rejected(signed: Signed) -> None:
    synced = signed.synced
    valid = (synced.folder.parent / "first" / MODEL / "1" / SIGNATURE).read_bytes()
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": "MAA="}]}, "tlogEntries": []}
    hostile = {
        201: (b" " * (TEXT_BYTES + 1), f"got {TEXT_BYTES + 1} bytes, expected at most"),
        202: (b"no JSON", "model.sig: no JSON"),
        203: (b'{"a":' * 200_000, "model.sig: no JSON: maximum recursion depth"),
        204: (valid[: len(valid) // 2], "model.sig: no JSON"),
        205: (b"[]", "got list, expected an object"),
        206: (bundle(valid, mediaType="text/plain"), "mediaType: got 'text/plain', expected"),
        207: (bundle(valid, verificationMaterial=material), "signed by a certificate, expected key"),
        208: (bundle(valid, verificationMaterial={"certificate": {"rawBytes": ""}}), "keyless"),
        209: (b"", "model.sig: no JSON"),
        210: (b"\xff\xfe\x00" * 9, "model.sig: no JSON"),
        211: (b"[" + b"1e9999999," * 100_000 + b"1]", "got list, expected an object"),
    }
    before = synced.status()["models"][MODEL]["serving"]
    for number, (content, _) in hostile.items():
        signed.upload(number, None, signature=content)
    for number, (_, expected) in hostile.items():
        assert expected in signed.reason(number), number
    assert synced.status()["models"][MODEL]["serving"] == before
    assert "Traceback" not in synced.stack.log.read_text(errors="replace")


def test_version_that_is_signed_by_another_key_serves_on(signed: Signed) -> None:
    synced = signed.synced
    folder = signed.upload(301, signed.key)
    synced.wait_for_serving(MODEL, 301)
    loads = synced.metric("nereid_sync_loads_total", model=MODEL, result="ok")
    key = f"{PREFIX}/{MODEL}/301/{SIGNATURE}"
    kept = next(iter((synced.mirror / "models" / MODEL).glob(f"301/{SIGNATURE}")))
    synced.s3.put(key, again := sign(folder, signed.other))
    synced.wait_for(lambda: kept.read_bytes() == again)
    # One that is not valid is not taken over, and reported.
    synced.s3.put(key, b"{}")
    error = synced.wait_for(lambda: synced.status()["models"][MODEL]["error"])
    assert error.startswith("version 301 serves with the signature from before; a fresh instance rejects it: model.sig")
    synced.s3.delete(key)
    synced.wait_for(lambda: "model.sig: missing" in (synced.status()["models"][MODEL]["error"] or ""))
    synced.s3.put(key, again)
    synced.wait_for(lambda: synced.status()["models"][MODEL]["error"] is None)
    assert kept.read_bytes() == again
    assert synced.version(MODEL, 301)["state"] == "serving"
    assert synced.metric("nereid_sync_loads_total", model=MODEL, result="ok") == loads


def test_files_beside_the_signed_ones_are_not_taken(signed: Signed) -> None:
    synced = signed.synced
    synced.s3.put(f"{PREFIX}/{MODEL}/labels.txt", b"forged\n")
    signed.upload(401, signed.key)
    synced.wait_for_serving(MODEL, 401)
    names = {path.name for path in (synced.mirror / "models" / MODEL).iterdir()}
    assert "labels.txt" not in names


@contextmanager
def restarted(synced: Synced, policy: Path, **variables: str) -> Iterator[Synced]:
    """The stack again, on the mirror of one that has ended, with a policy."""
    variables = variables_for(synced.s3, synced.proxy) | {"SIGNED_BY": str(policy)} | variables
    log = synced.folder.with_name(f"{uuid4().hex}.log")
    with start_stack(REPOSITORY, log, variables=variables | {"MIRROR": str(synced.mirror)}) as stack:
        yield replace(synced, stack=stack)


@contextmanager
def watched(model: str) -> Iterator[tuple[dict[str, str], set[str]]]:
    """Ports for a stack, and which of its servers had a model ready, or responded, at any time in the block."""
    ports, had, stopped = free_ports(), set[str](), threading.Event()
    triton, transformer = (f"http://127.0.0.1:{ports[name]}" for name in ("TRITON_HTTP_PORT", "HTTP_PORT"))

    def look(client: httpx.Client) -> None:
        with suppress(httpx.HTTPError):
            if client.get(f"{triton}/v2/models/{model}/ready").is_success:
                had.add("triton")
        with suppress(httpx.HTTPError):
            if client.post(f"{transformer}/predict/{model}", json=[1.0] * 4).is_success:
                had.add("transformer")

    def watch() -> None:
        with httpx.Client(trust_env=False, timeout=5) as client:
            while not stopped.wait(0.02):
                look(client)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield ports, had
    finally:
        stopped.set()
        thread.join()


def triton_has(synced: Synced, model: str) -> bool:
    """Whether Triton itself has a model loaded."""
    url = f"http://127.0.0.1:{synced.stack.triton_http_port}/v2/models/{model}/ready"
    return httpx.get(url, trust_env=False).status_code == 200


def test_policy_holds_for_what_the_mirror_has_from_before(tmp_path: Path) -> None:
    key, old = make_key(tmp_path, "key"), make_key(tmp_path, "old")
    policy = tmp_path / "policy"
    policy.mkdir()
    for each in (key, old):
        (policy / each.public.name).write_bytes(each.public.read_bytes())
    first = tmp_path / "first" / MODEL / "1"
    builds = {MODEL: FIRST, "signed": Build(2)}
    with start_synced(
        tmp_path, builds, finish=lambda version: version.parts[-2] == "signed" and sign(version, key)
    ) as synced:
        assert triton_has(synced, MODEL)
        synced.stack.process.terminate()
        synced.stack.process.wait(PATIENCE_S)
        with watched(MODEL) as (ports, had), restarted(synced, policy, **ports) as again:
            assert again.status()["models"]["signed"]["serving"] == ["1"]
            assert "model.sig: missing" in again.wait_for_state(MODEL, 1, "refused")["reason"]
            assert not triton_has(again, MODEL)
            assert (
                "version 1 of the mirror does not serve: mirrored without PREDICTOR_SIGNED_BY"
                in again.stack.log.read_text()
            )
            assert not had, "unsigned, and served at the start"
            synced.s3.put(f"{PREFIX}/{MODEL}/1/{SIGNATURE}", sign(first, old))
            again.wait_for_serving(MODEL, 1)
            again.wait_for(lambda: had == {"triton", "transformer"})
        with restarted(synced, policy, AWS_ENDPOINT_URL="http://127.0.0.1:9") as again:  # nothing listens there
            models = again.status()["models"]
            assert {name: each["serving"] for name, each in models.items()} == {MODEL: ["1"], "signed": ["1"]}
        with restarted(synced, policy) as again:
            again.wait_for_serving(MODEL, 1)
            (policy / old.public.name).unlink()  # the key is taken back, and the synchroniser alone is started again
            again.part("synchroniser").kill()
            reason = again.wait_for_state(MODEL, 1, "refused")["reason"]
            assert f"signed by key '{old.fingerprint}', expected key {key.fingerprint}" in reason
            again.wait_for(lambda: not triton_has(again, MODEL))
            assert triton_has(again, "signed")


def test_signature_that_is_gone_decides_nothing_about_a_profile(tmp_path: Path) -> None:
    key, policy = make_key(tmp_path, "key"), tmp_path / "policy"
    policy.mkdir()
    (policy / key.public.name).write_bytes(key.public.read_bytes())
    with start_synced(
        tmp_path, {MODEL: FIRST}, finish=lambda version: sign(version, key),
        SIGNED_BY=str(policy), PROFILE="auto", SETTLE_S="8",  # the signature goes before it is measured
    ) as synced:  # fmt: skip
        path = f"{PREFIX}/{MODEL}/1/{SIGNATURE}"
        signature = (tmp_path / "first" / MODEL / "1" / SIGNATURE).read_bytes()
        synced.s3.delete(path)
        postponed = "openvino cannot be measured now: model.sig: missing"
        wait_until(lambda: postponed in synced.stack.log.read_text(), log=synced.stack.log)
        version = synced.status()["models"][MODEL]["versions"]["1"]
        assert (version["state"], version["profile"]) == ("serving", {"chosen": "fp32", "measured": {}})
        synced.s3.put(path, signature)
        synced.wait_for(
            lambda: synced.status()["models"][MODEL]["versions"]["1"]["profile"]["measured"].get("openvino"),
        )


@pytest.mark.parametrize("fault", ["missing", "empty", "private", "text", "rsa"])
def test_broken_policy_lets_nothing_start(tmp_path: Path, fault: str) -> None:
    key = make_key(tmp_path, "key")
    policy = tmp_path / "policy"
    if fault != "missing":
        policy.mkdir()
    expected = {
        "missing": "no such file or directory",
        "empty": "got 0 files, expected PEM of public keys",
        "private": "got PRIVATE KEY, expected PEM of public keys",
        "text": "no PEM, expected",
        "rsa": "got a key RSAPublicKey, expected EC",
    }[fault]
    (tmp_path / "models").mkdir()
    if fault == "private":
        (policy / "key.pub").write_bytes(key.private.read_bytes())
    if fault == "text":
        (policy / "key.pub").write_bytes(key.public.read_bytes())
        (policy / "notes").write_text("of the publishers\n")
    if fault == "rsa":
        (policy / "key.pub").write_bytes(
            rsa.generate_private_key(65537, 2048)
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    variables = {"PREDICTOR_REPOSITORY": str(tmp_path / "models"), "PREDICTOR_MIRROR": str(tmp_path / "mirror")}
    done = subprocess.run(
        [sys.executable, "-m", "predictor", "synchroniser"],
        cwd=ROOT,
        env=os.environ | variables | {"PREDICTOR_SIGNED_BY": str(policy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert expected in done.stderr
    assert "(PREDICTOR_SIGNED_BY; make: SIGNED_BY=)" in done.stderr


def test_policy_without_a_synchroniser_lets_nothing_start(tmp_path: Path) -> None:
    for words in (["triton"], ["judge", str(tmp_path)]):
        done = subprocess.run(
            [sys.executable, "-m", "predictor", *words],
            cwd=ROOT,
            env=os.environ | {"PREDICTOR_SIGNED_BY": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "PREDICTOR_SIGNED_BY: a Triton that reads the repository itself verifies no signature" in done.stderr


# The commands, and OpenSSF's own program


def publish(folder: Path, *words: str | Path) -> int:
    return main(
        ["publish", "rows", "--from", str(folder / "local"), "--repository", str(folder / "bucket"), *map(str, words)]
    )


def test_official_program_verifies_what_publish_signs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, other = make_key(tmp_path, "key"), make_key(tmp_path, "other")
    write(tmp_path / "local", "rows", FIRST)
    assert publish(tmp_path, "--sign", key.private) == 0
    assert "bucket/rows/1, signed" in capsys.readouterr().out
    version = tmp_path / "bucket" / "rows" / "1"
    verify = ("verify", "key", "--signature", version / SIGNATURE, "--public_key")
    done = model_signing(*verify, key.public, version / MANIFEST)
    assert done.returncode == 0, done.stderr
    assert model_signing(*verify, other.public, version / MANIFEST).returncode == 1
    assert trust_of(key.public, version) == f"key {key.fingerprint} (key.pub)"


def test_official_program_verifies_certificates(tmp_path: Path) -> None:
    authority, key = make_key(tmp_path, "authority"), make_key(tmp_path, "key", ec.SECP384R1())
    root = issue(tmp_path, "root", authority)
    chain = issue(tmp_path, "publisher", key, by=(root, authority))
    write(tmp_path / "local", "rows", FIRST)
    assert publish(tmp_path, "--sign", key.private, "--certificates", chain) == 0
    version = tmp_path / "bucket" / "rows" / "1"
    verify = ("verify", "certificate", "--signature", version / SIGNATURE, "--certificate_chain")
    done = model_signing(*verify, root, version / MANIFEST)
    assert done.returncode == 0, done.stderr
    assert trust_of(root, version) == "certificate 'CN=publisher'"
    with pytest.raises(Unsigned, match="not issued by a trusted one"):
        trust_of(issue(tmp_path, "stranger", make_key(tmp_path, "stranger")), version)
    server = issue(tmp_path, "server", key, by=(root, authority), for_code=False)
    assert publish(tmp_path, "--sign", key.private, "--certificates", server, "--force") == 0
    with pytest.raises(Unsigned, match="expected extendedKeyUsage codeSigning"):
        trust_of(root, version.with_name("2"))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "manifest"])
def test_what_the_official_program_signs_is_accepted(tmp_path: Path, curve: ec.EllipticCurve, whole: bool) -> None:
    key = make_key(tmp_path, "key", curve)
    version = write(tmp_path / "local", "rows", FIRST)
    signed = version if whole else version / MANIFEST
    done = model_signing("sign", "key", "--private_key", key.private, "--signature", version / SIGNATURE, signed)
    assert done.returncode == 0, done.stderr
    assert trust_of(key.public, version) == f"key {key.fingerprint} (key.pub)"
    (version / MANIFEST).write_bytes((version / MANIFEST).read_bytes() + b" ")
    with pytest.raises(Unsigned, match="signed another manifest"):
        trust_of(key.public, version)


def trust_of(signers: Path, version: Path) -> str:
    """Who signed a version in a folder, by the code of the synchroniser."""
    signed = (version / SIGNATURE).read_bytes(), (version / MANIFEST).read_bytes()
    return judge_signature(signed, read_trust(signers), model=version.parent.name, version=int(version.name))


def test_rotation_signs_what_the_old_key_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = make_key(tmp_path, "old"), make_key(tmp_path, "new")
    bucket = ["--repository", str(tmp_path / "bucket")]
    write(tmp_path / "local", "rows", FIRST)
    assert publish(tmp_path, "--sign", old.private) == 0
    write(tmp_path / "local", "rows", Build(2))
    assert publish(tmp_path, "--force") == 0  # without a key
    capsys.readouterr()
    assert main(["sign", "--sign", str(new.private), *bucket]) == 1
    assert "got no --signed-by, expected it" in capsys.readouterr().err
    assert main(["sign", "--sign", str(new.private), "--signed-by", str(old.public), *bucket]) == 1
    said = capsys.readouterr()
    assert "bucket/rows/1: signed" in said.out
    assert "bucket/rows/2: left as it is: model.sig: missing" in said.out
    assert "1 of 2 versions are not signed" in said.err
    assert main(["versions", "--signed-by", str(new.public), *bucket]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "rows" in line]
    assert f"key {new.fingerprint} (new.pub)" in shown[0]
    assert "model.sig: missing" in shown[1]
    # The version that is published already is signed where its files are those of the local one.
    assert publish(tmp_path, "--sign", new.private) == 0
    assert main(["versions", *bucket]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "│ rows" in line]
    assert [f"key {new.fingerprint}, not verified" in line for line in shown] == [True, True]
    assert [trust_of(new.public, tmp_path / "bucket" / "rows" / number) for number in "12"]
    # Fetched, and deleted, the signature stays with its version.
    assert main(["fetch", "rows", "--to", str(tmp_path / "fetched"), *bucket]) == 0
    assert trust_of(new.public, tmp_path / "fetched" / "rows" / "2")
    fetch = ["fetch", "rows", "--to", str(tmp_path / "checked"), *bucket]
    assert main([*fetch, "--signed-by", str(old.public)]) == 1
    assert f"signed by key '{new.fingerprint}', expected key {old.fingerprint}" in capsys.readouterr().err
    assert not list((tmp_path / "checked").glob("rows/[0-9]*"))
    assert main([*fetch, "--signed-by", str(new.public)]) == 0
    (tmp_path / "bucket" / "rows" / "2" / SIGNATURE).write_bytes(b" " * (TEXT_BYTES + 1))
    assert main(fetch) == 1
    assert f"got {TEXT_BYTES + 1} bytes, expected at most {TEXT_BYTES}" in capsys.readouterr().err
    write(tmp_path / "local", "rows", Build(3))
    assert publish(tmp_path, "--force", "--sign", new.private) == 0
    assert main(["prune", "rows", "--keep", "1", "--yes", *bucket]) == 0
    assert {path.name for path in (tmp_path / "bucket" / "rows").glob("[0-9]*")} == {"3"}


@pytest.mark.parametrize(
    ("words", "password", "says"),
    [
        (("--sign", "encrypted.pem"), "", "next: its password in the variable SIGN_PASSWORD"),
        (("--sign", "encrypted.pem"), "wrong", "encrypted.pem: SIGN_PASSWORD is not its password"),
        (("--sign", "key.pem"), PASSWORD, "key.pem: is not encrypted; next: unset SIGN_PASSWORD"),
        (("--sign", "rsa.pem"), "", "rsa.pem: got a key RSAPrivateKey, expected PEM of a private key, EC P-256"),
        (("--sign", "ed25519.pem"), "", "ed25519.pem: got a key Ed25519PrivateKey, expected"),
        (("--sign", "weak.pem"), "", "weak.pem: got a key secp256k1, expected"),
        (("--sign", "encrypted.pem", "--certificates", "other.crt"), PASSWORD, "takes no encrypted key with cert"),
        (("--sign", "key.pub"), "", "expected PEM of a private key"),
        (("--sign", "nothing.pem"), "", "nothing.pem: No such file"),
        (("--sign", "key.pem", "--certificates", "other.crt"), "", "'CN=other', is of another key"),
        (("--sign", "key.pem", "--certificates", "key.pub"), "", "got no certificate, expected PEM"),
        (("--certificates", "other.crt"), "", "got no --sign"),
        (("--sign", "encrypted.pem"), PASSWORD, None),
    ],
)
def test_key_is_tried_before_anything_is_uploaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    password: str,
    says: str | None,
) -> None:
    make_key(tmp_path, "key")
    make_key(tmp_path, "encrypted", password=PASSWORD)
    make_key(tmp_path, "weak", ec.SECP256K1())
    for name, private in (
        ("rsa", rsa.generate_private_key(65537, 2048)),
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
    ):
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
    issue(tmp_path, "other", make_key(tmp_path, "other"))
    write(tmp_path / "local", "rows", FIRST)
    monkeypatch.setenv("SIGN_PASSWORD", password)
    status = publish(tmp_path, *(word if word[:2] == "--" else tmp_path / word for word in words))
    said = capsys.readouterr()
    assert (status, (tmp_path / "bucket" / "rows" / "1" / SIGNATURE).exists()) == ((1, False) if says else (0, True)), (
        said
    )
    assert says is None or says in said.err
    assert PASSWORD not in said.out + said.err


def test_key_that_others_can_read_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = make_key(tmp_path, "key")
    write(tmp_path / "local", "rows", FIRST)
    key.private.chmod(0o600)
    assert publish(tmp_path, "--sign", key.private) == 0
    assert "warning" not in capsys.readouterr().err
    key.private.chmod(0o644)
    assert publish(tmp_path, "--sign", key.private) == 0
    assert "others can use this key (mode ...44); next: chmod 600" in capsys.readouterr().err


def test_commands_of_the_page_run(tmp_path: Path) -> None:
    terminal = open_terminal(tmp_path, free_ports(), POLL_S="0.5")
    first, second, third = (newest_of_checkout(each) for each in blocks_of(PAGE, "Signed models"))
    terminal.run(first)
    command = "nereid serve --repository signed --signed-by release.pub"
    assert f"`{command}`" in PAGE.read_text()
    with terminal.leave_running(command, until="Ctrl-C"):
        published, versions, status = re.split(r"^(?=\$ )", second, flags=re.MULTILINE)[1:]
        terminal.run(published)
        terminal.run(versions)
        terminal.run("$ until curl -s http://localhost:8080/status | grep -q model.sig; do sleep 0.1; done\n")
        terminal.run(status)
        terminal.run(third)
        terminal.run(
            '$ until curl -s http://localhost:8080/status | grep -q \'"serving":\\["2"\'; do sleep 0.1; done\n'
        )
    (official,) = blocks_of(PAGE, "The official program")
    terminal.run(official)
    for section in ("Certificates", "Rotation, revocation"):
        for block in blocks_of(PAGE, section):
            terminal.run(newest_of_checkout(block))


def newest_of_checkout(block: str) -> str:
    """A block with the number of the newest version of digits that this checkout has, which the page calls 1."""
    newest = max(int(each.name) for each in (ROOT / "model_repository/digits").glob("*") if each.name.isdecimal())
    return block.replace("model_repository/digits/1", f"model_repository/digits/{newest}")
