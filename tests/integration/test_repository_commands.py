"""Publishing to S3 and to a folder, and managing what is there: a real S3 server, real processes."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from export.__main__ import main
from export.errors import ExportError
from export.publish.listing import edit_config
from export.writer.config import to_text
from export.writer.manifest import digest
from export.writer.profiles import PROFILES
from export.writer.repository import write_version
from registry.config import parse
from registry.storage.writing import TooLarge, WritableFolder, open_to_write
from registry.storage.writing import WritableStorage as Storage
from tests.support.exported import FILES, version, with_profiles
from tests.support.http_server import Play, serve
from tests.support.ports import find_free_ports
from tests.support.versions import seal

ROOT = Path(__file__).resolve().parents[2]
SECRET = "not-to-be-seen"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """`make s3`: the variables that it prints."""
    port = find_free_ports(1)[0]
    with subprocess.Popen(
        [sys.executable, "-m", "stack.s3"],
        cwd=ROOT,
        env=os.environ | {"S3_PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("export "):
                    variables = dict(word.split("=") for word in line.split()[1:])
                    break
            taken = subprocess.run(
                [sys.executable, "-m", "stack.s3"],
                cwd=ROOT,
                env=os.environ | {"S3_PORT": str(port)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (taken.returncode, taken.stdout) == (1, "")
            assert f"error: S3_PORT: port {port} is taken" in taken.stderr
            yield variables
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models?list-type=2", {"Origin": "https://evil.example"}),
        ("/models?list-type=2", {"Origin": "null"}),
        ("/models?list-type=2", {"Host": "evil.example"}),
        ("/models?list-type=2", {"Host": "evil.example:{port}"}),
        ("/models?list-type=2", {"Host": "localhost.evil.example"}),
        ("/models?list-type=2", {"Host": "]["}),
        ("/moto-api/data.json", {}),
        ("/moto-api/reset", {}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "OPTIONS"])
def test_make_s3_is_for_programs_of_this_machine(
    s3: dict[str, str], method: str, path: str, headers: dict[str, str]
) -> None:
    url = s3["AWS_ENDPOINT_URL"]
    headers = {name: value.format(port=url.rpartition(":")[2]) for name, value in headers.items()}
    response = httpx.request(method, url + path, headers=headers, trust_env=False)
    assert (response.status_code, "AccessDenied" in response.text) == (403, True)
    assert "access-control-allow-origin" not in response.headers
    for host, bucket in (("127.0.0.1", "models"), ("localhost:9000", "models"), ("models.localhost", "")):
        assert httpx.get(f"{url}/{bucket}?list-type=2", headers={"Host": host}, trust_env=False).is_success


@pytest.fixture(params=["s3", "folder"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty repository."""
    if request.param == "folder":
        return open_to_write(str(tmp_path / "published"))
    return bucket(request.getfixturevalue("s3"), monkeypatch)


def bucket(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (dict(variables) | {"AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    return open_to_write(f"s3://models/{uuid4().hex}")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A repository as export leaves it, with one version."""
    write_version(tmp_path / "local", version())
    return tmp_path / "local"


def run(command: str, storage: Storage, *arguments: str) -> int:
    return main([command, "--repository", storage.url, *arguments])


def start(command: str, storage: Storage, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "export", command, "--repository", storage.url, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def keys(storage: Storage) -> set[str]:
    return {item.key for item in storage.walk() if not item.link}


def held(*numbers: int) -> set[str]:
    return {"tiny/config.pbtxt"} | {f"tiny/{number}/{name}" for number in numbers for name in FILES}


def read(storage: Storage, key: str) -> bytes:
    content = storage.get(key)
    assert content is not None, key
    return content.data


def read_config(storage: Storage, key: str) -> Any:
    return parse(read(storage, key), where=key)


def policy(storage: Storage) -> Any:
    return read_config(storage, "tiny/config.pbtxt").version_policy


def set_policy(storage: Storage, text: str) -> None:
    def change(config: Any) -> Any:
        config.version_policy.CopyFrom(parse(f"version_policy {{ {text} }}".encode(), where="policy").version_policy)
        return config

    assert edit_config(storage, "tiny", change)


def publish_again(storage: Storage, local: Path, times: int = 1) -> None:
    for _ in range(times):
        assert run("publish", storage, "tiny", "--from", str(local), "--force") == 0


def test_published_version_is_the_local_one_under_the_next_number(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_version(local, version(interface="ultralytics"))
    assert run("publish", storage, "tiny", "--from", str(local), "--version", "1") == 0
    assert run("publish", storage, "tiny", "--from", str(local)) == 1
    assert "tiny: version 1 serves, and its clients expect something else: inputs: got 1 (images " in (
        capsys.readouterr().err
    )
    assert run("publish", storage, "tiny", "--from", str(local), "--force") == 0
    assert run("publish", storage, "tiny", "--from", str(local)) == 0
    assert "there already as version 2" in capsys.readouterr().out
    assert keys(storage) == held(1, 2)
    for name in FILES - {"manifest.json"}:
        assert read(storage, f"tiny/2/{name}") == (local / "tiny" / "2" / name).read_bytes()
    publish_again(storage, local)
    manifest = json.loads((local / "tiny/2/manifest.json").read_bytes())
    assert json.loads(read(storage, "tiny/3/manifest.json")) == manifest | {"version": "3"}
    assert read_config(storage, "tiny/config.pbtxt").input[0].name == "images"


def test_number_is_claimed_first_and_the_manifest_comes_last(
    s3: dict[str, str], local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(lambda *_: None, upstream=s3["AWS_ENDPOINT_URL"]) as proxy:
        storage = bucket(s3 | {"AWS_ENDPOINT_URL": proxy.url}, monkeypatch)
        publish_again(storage, local)
        prefix = f"PUT /{storage.url.removeprefix('s3://')}/tiny/"
        put = [request.removeprefix(prefix) for request in proxy.requests if request.startswith("PUT")]
    assert put[:2] == ["1/config.pbtxt"] * 2  # the second one tests whether the server keeps conditions
    assert set(put[2:-2]) == {f"1/{name}" for name in FILES - {"config.pbtxt", "manifest.json"}}
    assert put[-2:] == ["1/manifest.json", "config.pbtxt"]


def test_publishers_at_once_take_numbers_of_their_own(storage: Storage, local: Path) -> None:
    processes = [start("publish", storage, "tiny", "--from", str(local), "--force") for _ in range(4)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert keys(storage) == held(1, 2, 3, 4)
    for number in "1234":
        assert json.loads(read(storage, f"tiny/{number}/manifest.json"))["version"] == number
        assert sum(f"/tiny/{number}\n" in output for output in outputs) == 1


def test_interrupted_publish_leaves_nothing(storage: Storage, local: Path) -> None:
    publish_again(storage, local)
    folder = write_version(local, version())
    os.truncate(folder / "parity.json", size := 1_500_000_000)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["parity.json"] = {"sha256": digest(folder / "parity.json"), "size_bytes": size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    process = start("publish", storage, "tiny", "--from", str(local))
    while "tiny/2/config.pbtxt" not in keys(storage):
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGSTOP)
    assert "tiny/2/manifest.json" not in keys(storage), "it was stopped in the middle"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "error: interrupted; what was uploaded is removed" in output
    assert keys(storage) == held(1)


def test_failed_publish_leaves_nothing(
    s3: dict[str, str], local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(method: str, path: str) -> tuple[int, Any] | None:
        return (500, {}) if method == "PUT" and path.endswith("model.onnx") else None

    with serve(play, upstream=s3["AWS_ENDPOINT_URL"]) as proxy:
        storage = bucket(s3 | {"AWS_ENDPOINT_URL": proxy.url}, monkeypatch)
        assert run("publish", storage, "tiny", "--from", str(local)) == 1
        assert keys(storage) == set()
    assert f"error: {storage.url}: {proxy.url} failed 3 times (500" in (error := capsys.readouterr().err)
    assert "what was uploaded is removed" in error


def test_config_keeps_what_another_writes_meanwhile(storage: Storage, local: Path) -> None:
    publish_again(storage, local)
    conflicts = 0

    def disturbed(config: Any) -> Any:
        nonlocal conflicts
        conflicts += 1
        if conflicts == 1:
            set_policy(storage, "latest { num_versions: 2 }")
        config.max_batch_size = 3
        return config

    assert edit_config(storage, "tiny", disturbed)
    config = read_config(storage, "tiny/config.pbtxt")
    assert (conflicts, config.max_batch_size, config.version_policy.latest.num_versions) == (2, 3, 2)

    def always(config: Any) -> Any:
        nonlocal conflicts
        conflicts += 1
        set_policy(storage, f"latest {{ num_versions: {conflicts} }}")
        return config

    with pytest.raises(ExportError, match=r"tiny/config.pbtxt: another process changed it 5 times"):
        edit_config(storage, "tiny", always)


def test_publish_follows_the_policy_and_leaves_pins_and_plain_copies(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local)
    set_policy(storage, "latest { num_versions: 2 }")
    write_version(local, version(interface="ultralytics"))
    publish_again(storage, local)
    assert policy(storage).latest.num_versions == 2
    assert read_config(storage, "tiny/config.pbtxt").input[0].name == "images"
    set_policy(storage, "specific { versions: 1 }")
    write_version(local, version())
    pinned = read(storage, "tiny/config.pbtxt")
    publish_again(storage, local)
    assert read(storage, "tiny/config.pbtxt") == pinned
    assert "stays: it pins (specific 1); make unpin" in capsys.readouterr().out
    set_policy(storage, "all {}")
    storage.upload("tiny/7/model.onnx", local / "tiny/1/model.onnx", lambda _: None)
    before = read(storage, "tiny/config.pbtxt")
    publish_again(storage, local)
    assert "tiny/8/manifest.json" in keys(storage)
    assert read(storage, "tiny/config.pbtxt") == before
    assert "stays: it describes version 7, without a config.pbtxt of its own" in capsys.readouterr().out


def test_publish_brings_the_profiles_of_the_model_up_to_date(storage: Storage, tmp_path: Path, local: Path) -> None:
    detectors = tmp_path / "detectors"
    folder = write_version(detectors, with_profiles(int8=True))
    assert run("publish", storage, "tiny", "--from", str(detectors)) == 0
    own = {f"tiny/configs/{name}.pbtxt" for name in PROFILES}
    assert own <= keys(storage)
    assert read(storage, "tiny/configs/int8.pbtxt") == (folder / "int8.pbtxt").read_bytes()
    set_policy(storage, "latest { num_versions: 2 }")
    storage.put("tiny/configs/mine.pbtxt", b"", etag=None)
    write_version(detectors, with_profiles(int8=False, digest="1" * 64))
    assert run("publish", storage, "tiny", "--from", str(detectors)) == 0
    assert keys(storage) & (own | {"tiny/configs/mine.pbtxt"}) == own - {"tiny/configs/int8.pbtxt"} | {
        "tiny/configs/mine.pbtxt"
    }
    gpu = read_config(storage, "tiny/configs/gpu.pbtxt")
    assert gpu.version_policy.latest.num_versions == 2
    (accelerator,) = gpu.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_engine_cache_prefix"] == "tiny-111111111111"
    set_policy(storage, "specific { versions: 1 }")
    assert run("publish", storage, "tiny", "--from", str(local)) == 0
    assert "tiny/configs/gpu.pbtxt" in keys(storage)  # a pinned model keeps what belongs to its version


def test_fetch_writes_what_the_manifest_lists_and_nothing_else(
    s3: dict[str, str], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = bucket(s3, monkeypatch)
    publish_again(storage, local)
    # Keys by which a writer of the bucket could have the next command run code, at the end of each path.
    outside = tmp_path / "outside"
    for key in ("../../../outside/a.pth", f"/{outside}/b.pth", "sub/c.pth", "sitecustomize.py", "..", "a/../../d.pth"):
        assert storage.put(f"tiny/1/{key}", b"import evil", etag=None)
    target = tmp_path / "deep" / "target"
    for _ in range(2):  # a version that is there is replaced
        assert run("fetch", storage, "tiny", "--to", str(target)) == 0
        assert {path.relative_to(target) for path in target.rglob("*") if path.is_file()} == {
            Path("tiny", "1", name) for name in FILES
        }
    assert [path for path in tmp_path.rglob("*") if path.suffix in {".pth", ".py"}] == []
    for name in FILES - {"manifest.json"}:
        assert (target / "tiny" / "1" / name).read_bytes() == (local / "tiny" / "1" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files | {"../../evil.pth": files["parity.json"]}, "got complete versions none"),
        (lambda files: files | {"/evil.pth": files["parity.json"]}, "got complete versions none"),
        (lambda files: files | {"sitecustomize.py": files["parity.json"]}, "got complete versions none"),
        (lambda files: files | {"parity.json": files["model.onnx"]}, "got complete versions none"),
        (
            lambda files: files | {"parity.json": files["parity.json"] | {"sha256": "0" * 64}},
            "what came does not fit its manifest.json",
        ),
    ],
    ids=["climbs", "absolute", "code", "size", "digest"],
)
def test_fetch_rejects_a_version_that_its_manifest_does_not_describe(
    storage: Storage,
    local: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], dict[str, Any]],
    says: str,
) -> None:
    publish_again(storage, local)
    manifest = json.loads(read(storage, "tiny/1/manifest.json"))
    content = storage.get("tiny/1/manifest.json")
    assert content is not None
    changed = json.dumps(manifest | {"files": change(manifest["files"])}).encode()
    assert storage.put("tiny/1/manifest.json", changed, etag=content.etag)
    storage.put("tiny/1/sitecustomize.py", read(storage, "tiny/1/parity.json"), etag=None)
    target = tmp_path / "target"
    assert run("fetch", storage, "tiny", "--to", str(target)) == 1
    assert says in capsys.readouterr().err
    assert not [path for path in target.rglob("*") if path.is_file()]


def test_fetch_stops_where_a_file_changes_after_it_was_listed(
    s3: dict[str, str], local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_again(bucket(s3, monkeypatch), local)
    endless = b"x" * 5_000_000
    with serve(lambda *_: None, upstream=s3["AWS_ENDPOINT_URL"]) as proxy:
        storage = bucket(s3 | {"AWS_ENDPOINT_URL": proxy.url}, monkeypatch)
        publish_again(storage, local)

        # Listed with its right size, and longer when it is read: replaced in between.
        def listed(under: str = "", walk: Callable[[str], Any] = storage.walk) -> Any:
            found = list(walk(under))
            content = storage.get("tiny/1/parity.json")
            assert content is not None
            storage.put("tiny/1/parity.json", endless, etag=content.etag)
            return found

        monkeypatch.setattr(storage, "walk", listed)
        monkeypatch.setattr("export.publish.fetch.open_to_write", lambda _: storage)
        assert run("fetch", storage, "tiny", "--to", str(tmp_path / "target")) == 1
    assert f"tiny/1/parity.json: {proxy.url} returned 412" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("config", "problem", "wanted"),
    [
        (b"version_policy { }", "tiny: policy all", ["1", "2"]),
        (b"version_policy { specific { } }", "tiny/config.pbtxt: version_policy.specific.versions: got []", ["2"]),
        (b'\xef\xbb\xbfname: "tiny"', "tiny/config.pbtxt: begins with a byte-order mark", ["2"]),
    ],
)
def test_versions_reads_a_config_as_the_synchroniser_does(
    config: bytes,
    problem: str,
    wanted: list[str],
    storage: Storage,
    local: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish_again(storage, local, 2)
    content = storage.get("tiny/config.pbtxt")
    assert content is not None
    assert storage.put("tiny/config.pbtxt", config, etag=content.etag)
    capsys.readouterr()
    assert run("versions", storage) == 0
    out = capsys.readouterr().out
    assert problem in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    assert [row[1] for row in rows if row and row[-1] == "wanted"] == wanted


def test_versions_lists_complete_and_incomplete(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("versions", storage) == 1
    assert "got no version" in capsys.readouterr().err
    publish_again(storage, local, 2)
    storage.upload("tiny/3/config.pbtxt", local / "tiny/1/config.pbtxt", lambda _: None)
    storage.upload("tiny/4_old/model.onnx", local / "tiny/1/model.onnx", lambda _: None)
    storage.upload("plain/1/model.onnx", local / "tiny/1/model.onnx", lambda _: None)
    storage.upload("Not_made-by.Export/1/Net.onnx", local / "tiny/1/model.onnx", lambda _: None)
    storage.upload("weights/1/model.bin", local / "tiny/1/model.onnx", lambda _: None)
    storage.upload("no good/1/model.onnx", local / "tiny/1/model.onnx", lambda _: None)
    storage.put("together/config.pbtxt", b'platform: "ensemble"', etag=None)
    capsys.readouterr()
    assert run("versions", storage) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = {(row[0], row[1]): row[2:] for row in rows if row and row[0]}  # a long reason goes on below
    digest = json.loads((local / "tiny/1/manifest.json").read_bytes())["files"]["model.onnx"]["sha256"]
    assert table["no good", "-"][-1].startswith("refused: 'no good' is no model's name")
    assert {key: row[-1] for key, row in table.items() if key != ("no good", "-")} == {
        ("Not_made-by.Export", "1"): "wanted",
        ("weights", "1"): "incomplete",
        ("together", "-"): "refused: no version",
        ("plain", "1"): "wanted",
        ("tiny", "1"): "-",
        ("tiny", "2"): "wanted",
        ("tiny", "3"): "incomplete",
    }
    assert table["tiny", "2"][2:4] == [digest[:12], "boxes_px 0"]
    assert table["plain", "1"][2:4] == ["-", "-"]
    storage.put("plain/config.pbtxt", b"max_batch_size: many", etag=None)
    assert run("versions", storage, "plain") == 0
    assert "plain/config.pbtxt: line 1, column 17" in (output := capsys.readouterr().out)
    assert "tiny" not in output


def test_rollback_pins_the_previous_version_and_unpin_removes_the_pin(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local, 3)
    storage.delete("tiny/2/golden.npz")
    assert run("unpin", storage, "tiny") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run("rollback", storage, "tiny") == 0
    assert "version 1 is pinned" in (output := capsys.readouterr().out)
    assert "make unpin" in output
    assert list(policy(storage).specific.versions) == [1]
    assert run("rollback", storage, "tiny") == 1
    assert "no complete version below 1" in capsys.readouterr().err
    assert run("unpin", storage, "tiny") == 0
    assert not policy(storage).HasField("specific")
    assert run("rollback", storage, "other") == 1
    assert "other: got no version, expected a model" in capsys.readouterr().err


def test_rollback_writes_the_config_where_the_model_has_none(storage: Storage, local: Path) -> None:
    publish_again(storage, local, 2)
    storage.delete("tiny/config.pbtxt")
    assert run("rollback", storage, "tiny") == 0
    expected = version().config
    expected.version_policy.specific.versions.append(1)
    assert read(storage, "tiny/config.pbtxt").decode() == to_text(expected)


def test_prune_keeps_the_newest_versions_and_those_of_the_policy(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local, 5)
    set_policy(storage, "specific { versions: 2 }")
    arguments = ("tiny", "--keep", "2")
    assert run("prune", storage, *arguments) == 1
    assert "YES=1" in capsys.readouterr().err
    ours, theirs = pty.openpty()
    for response, code, left in (("n", 0, held(1, 2, 3, 4, 5)), ("y", 0, held(2, 4, 5))):
        os.write(ours, f"{response}\n".encode())
        process = subprocess.run(
            [sys.executable, "-m", "export", "prune", "--repository", storage.url, *arguments],
            cwd=ROOT,
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "delete 2 of 5 versions of tiny? [y/N]" in process.stdout, process.stderr
        assert (process.returncode, keys(storage)) == (code, left)
    os.close(ours)
    os.close(theirs)
    assert run("prune", storage, *arguments, "--yes") == 0
    assert keys(storage) == held(2, 4, 5)


def test_prune_takes_old_leftovers(tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = WritableFolder(tmp_path / "published")
    publish_again(storage, local, 4)
    for number in (1, 2):
        storage.delete(f"tiny/{number}/manifest.json")
    for path in (tmp_path / "published/tiny/1").iterdir():
        os.utime(path, (0, 0))
    assert run("prune", storage, "tiny", "--yes") == 0
    assert "incomplete" in capsys.readouterr().out
    assert keys(storage) == held(2, 3, 4) - {"tiny/2/manifest.json"}
    assert not (tmp_path / "published/tiny/1").exists()


def test_prune_deletes_the_manifest_first(s3: dict[str, str], local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda *_: None, upstream=s3["AWS_ENDPOINT_URL"]) as proxy:
        storage = bucket(s3 | {"AWS_ENDPOINT_URL": proxy.url}, monkeypatch)
        publish_again(storage, local, 2)
        assert run("prune", storage, "tiny", "--keep", "1", "--yes") == 0
        deleted = [request.rpartition("/")[2] for request in proxy.requests if request.startswith("DELETE")]
    assert deleted[0] == "manifest.json"
    assert set(deleted) == FILES


State = dict[str, str | None]
SERVING: State = {"state": "serving", "reason": None}
AVAILABLE: State = {"state": "available", "reason": None}
REJECTED: State = {"state": "refused", "reason": "model.onnx: NaN"}


@dataclass
class Mirror:
    """Plays the server: each look at /status is a listing, and the second after an upload has seen it.

    Attributes:
        before, after: states by version, before version 2 is seen and after.
        status: whether it has that route.
    """

    storage: Storage
    before: Mapping[str, State]
    after: Mapping[str, State]
    policy: str = "latest 1"
    status: bool = True
    looks: int = 0

    def play(self, method: str, path: str) -> tuple[int, Any]:
        if path in {"/status", "/v2/models/tiny"} and "tiny/2/manifest.json" in keys(self.storage):
            self.looks += 1
        states = self.after if self.looks > 4 else self.before
        serving = [number for number, state in states.items() if state["state"] == "serving"]
        if path == "/status" and self.status:
            return 200, {
                "repository": "s3://elsewhere",
                "ready": True,
                "listing": {"ok": True, "at": f"2026-11-21T03:40:{self.looks:02}+00:00"},
                "triton": {"ok": True, "since": "noon"},
                "models": {"tiny": {"policy": self.policy, "serving": serving, "error": None, "versions": states}},
                "ignored": {"tiny/2_old/model.onnx": "no version number"},
            }
        if path == "/v2/models/tiny" and serving:
            inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
            outputs = [{"name": "num_detections", "datatype": "INT32", "shape": [-1]}]
            return 200, {
                "versions": serving,
                "inputs": inputs,
                "outputs": outputs,
                "parameters": {"task": "detect"},
            }
        if path == "/predict/tiny" and serving:
            assert method == "POST"
            return 200, {
                "model": {"version": serving[-1], "task": "detect"},
                "timing_ms": {"total": 1.25},
                "predictions": [{"class": "it's", "confidence": 0.5}] * int(serving[-1]),
                "limits_reached": [],
            }
        return 404, {"error": "no such route or model"}


def publish_and_wait(mirror: Mirror, local: Path) -> int:
    with serve(mirror.play) as server:
        return run("publish", mirror.storage, "tiny", "--from", str(local), "--force", "--wait", server.url)


@pytest.mark.parametrize("status", [True, False])
def test_publish_waits_until_the_version_serves(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str], status: bool
) -> None:
    publish_again(storage, local)
    mirror = Mirror(storage, {"1": SERVING}, {"1": AVAILABLE, "2": SERVING}, status=status)
    assert publish_and_wait(mirror, local) == 0
    output = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    assert rows == [
        ["before", "1", "1 detections, the best it's 0.500", "1.2"],
        ["now", "2", "2 detections, the best it's 0.500", "1.2"],
    ]
    assert " s after the upload" in output
    assert ("mirrors s3://elsewhere, not this" in output) == status


def test_publish_of_a_first_version_compares_with_none(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local)
    assert publish_and_wait(Mirror(storage, {}, {"2": SERVING}), local) == 0
    assert "│ before │ -       │ - " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("after", "policy", "expected"),
    [
        ({"1": SERVING, "2": REJECTED}, "latest 1", "refused: model.onnx: NaN"),
        ({"1": SERVING, "2": AVAILABLE}, "specific 1", "the policy is specific 1, expected latest; next: make unpin"),
        ({"1": SERVING, "2": AVAILABLE}, "specific 1 (setting)", "next: change that setting of the server"),
    ],
)
def test_publish_fails_with_the_reason_of_the_server(
    storage: Storage,
    local: Path,
    capsys: pytest.CaptureFixture[str],
    after: Mapping[str, State],
    policy: str,
    expected: str,
) -> None:
    publish_again(storage, local)
    assert publish_and_wait(Mirror(storage, {"1": SERVING}, after, policy), local) == 1
    assert expected in capsys.readouterr().err
    assert keys(storage) == held(1, 2), "it is for the user to remove it"


def _with_statuses(mirror: Mirror, statuses: Mapping[str, int]) -> Play:
    def play(method: str, path: str) -> tuple[int, Any] | None:
        response = mirror.play(method, path)
        if path == "/predict/tiny" and response[0] == 200:
            status = statuses[str(response[1]["model"]["version"])]
            return (status, {"error": "got 13 columns, expected 4"}) if status != 200 else response
        return response

    return play


@pytest.mark.parametrize(
    ("statuses", "status", "expected"),
    [
        ({"1": 200, "2": 400}, 1, "tiny 2 serves at {url}, and its request fails: 400 got 13 columns, expected 4"),
        ({"1": 400, "2": 400}, 0, "warning: this request does not suit the model"),
        ({"1": 400, "2": 200}, 0, "tiny 2 serves at {url}, "),
    ],
)
def test_publish_succeeds_only_where_its_own_request_does(
    storage: Storage,
    local: Path,
    capsys: pytest.CaptureFixture[str],
    statuses: Mapping[str, int],
    status: int,
    expected: str,
) -> None:
    publish_again(storage, local)
    mirror = Mirror(storage, {"1": SERVING}, {"1": AVAILABLE, "2": SERVING})
    with serve(_with_statuses(mirror, statuses)) as server:
        assert run("publish", storage, "tiny", "--from", str(local), "--force", "--wait", server.url) == status
    output = capsys.readouterr()
    assert expected.format(url=server.url) in output.out + output.err


def test_publish_ignores_the_state_of_an_earlier_version_of_that_number(storage: Storage, local: Path) -> None:
    publish_again(storage, local)
    assert publish_and_wait(Mirror(storage, {"2": REJECTED}, {"2": SERVING}), local) == 0


def test_publish_gives_up_with_the_last_state(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = Mirror(storage, {}, {"1": {"state": "staged", "reason": "downloading"}})
    with serve(mirror.play) as server:
        arguments = ("tiny", "--from", str(local), "--wait", server.url, "--timeout", "0")
        assert run("publish", storage, *arguments) == 1
    assert "does not serve after 0 s" in capsys.readouterr().err
    assert run("publish", storage, "tiny", "--from", str(local), "--force", "--wait", server.url) == 1
    assert f"{server.url}: " in capsys.readouterr().err
    assert keys(storage) == held(1), "nothing is uploaded where the server is away"


def test_versions_rollback_and_prune_follow_the_serving_versions(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local, 5)
    states: dict[str, State] = {
        "1": SERVING,
        "2": AVAILABLE,
        "3": REJECTED,
        "4": SERVING,
        "5": {"state": "staged", "reason": "validating"},
    }
    mirror = Mirror(storage, states, states)
    with serve(mirror.play) as server:
        assert run("versions", storage, "--url", server.url) == 0
        output = capsys.readouterr().out
        for line in (
            "refused: model.onnx: NaN",
            "staged: validating",
            "serves tiny 1, tiny 4",
            "tiny/2_old",
            "Triton ready",
        ):
            assert line in output
        assert run("rollback", storage, "tiny", "--url", server.url) == 0
        assert list(policy(storage).specific.versions) == [2]
        assert run("unpin", storage, "tiny") == 0
        assert run("prune", storage, "tiny", "--keep", "1", "--url", server.url, "--yes") == 0
    assert keys(storage) == held(1, 4, 5)


def test_errors_of_s3_are_explained(
    s3: dict[str, str], local: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket(s3, monkeypatch)
    free = find_free_ports(1)[0]
    denied = {"AWS_ENDPOINT_URL": ""}
    with serve(lambda *_: (403, {})) as server:
        denied["AWS_ENDPOINT_URL"] = server.url
        for address, variables, expected in (
            ("s3://no-such-bucket/x", {}, f"no bucket no-such-bucket at {s3['AWS_ENDPOINT_URL']}; next: make it"),
            ("s3://models", {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free}"}, "cannot be reached; next: look at AWS_"),
            (
                "s3://models",
                {"AWS_ENDPOINT_URL": "nonsense"},
                "AWS_ENDPOINT_URL: got 'nonsense', expected such as",
            ),
            ("s3://models", denied, "access denied (403, ListObjectsV2); expected credentials that may list"),
            ("s3://models", {"AWS_PROFILE": "none-such"}, "profile (none-such) could not be found"),
            ("s3://models", {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}, "next: export them"),
            ("s3://models", {"AWS_SESSION_TOKEN": f"{SECRET}\nx"}, "broke off (HTTPClientError); next: try again"),
            ("gs://models", {}, "repository: got 'gs://models', expected s3://bucket/prefix"),
            ("", {}, "repository: got '', expected s3://"),
        ):
            with monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(name, value)
                    if not value:
                        patch.delenv(name)
                assert main(["publish", "tiny", "--from", str(local), "--repository", address]) == 1
            output = capfd.readouterr()
            assert f"error: {address if address.startswith('s3') else ''}" in output.err
            assert expected in output.err
            assert SECRET not in output.out + output.err


CODE = b'backend: "python"\n'


def test_version_that_no_synchroniser_takes_is_not_published(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_version(local, version())
    (folder / "config.pbtxt").write_bytes(CODE)
    seal(folder)
    assert run("publish", storage, "tiny", "--from", str(local)) == 1
    assert f"{folder}: config.pbtxt: backend: got 'python', expected one of" in capsys.readouterr().err
    assert keys(storage) == set()


def test_version_that_no_synchroniser_takes_is_not_fetched(
    storage: Storage, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local)
    manifest = json.loads(read(storage, "tiny/1/manifest.json"))
    manifest["files"]["config.pbtxt"] = {"sha256": sha256(CODE).hexdigest(), "size_bytes": len(CODE)}
    for name, data in (("config.pbtxt", CODE), ("manifest.json", json.dumps(manifest).encode())):
        content = storage.get(f"tiny/1/{name}")
        assert content is not None
        assert storage.put(f"tiny/1/{name}", data, etag=content.etag)
    target = tmp_path / "target"
    assert run("fetch", storage, "tiny", "--to", str(target)) == 1
    assert "/tiny/1: config.pbtxt: backend: got 'python', expected one of" in capsys.readouterr().err
    assert not [path for path in target.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["tiny/config.pbtxt", "tiny/1/manifest.json"])
def test_text_that_is_too_large_is_not_read(
    storage: Storage, local: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_again(storage, local)
    content = storage.get(name)
    assert content is not None
    assert storage.put(name, content.data + b" " * 2**20, etag=content.etag)
    with pytest.raises(TooLarge, match="got more than 1048576 bytes"):
        storage.get(name)
    assert run("versions", storage) == 0
    assert "tiny" in capsys.readouterr().out


def test_only_complete_versions_are_published(
    storage: Storage, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_version(local, version())
    (local / "tiny/2/model.onnx").write_bytes(b"broken")
    for arguments, expected in (
        (("tiny", "--version", "2"), "tiny/2: not complete"),
        (("tiny", "--version", "../tiny/1"), "no version ../tiny/1: got 2, 1"),
        (("other",), "no version : got none"),
        (("../tiny",), "model name: got '../tiny'"),
    ):
        assert run("publish", storage, *arguments, "--from", str(local)) == 1
        assert expected in capsys.readouterr().err
    assert keys(storage) == set()
    publish_again(storage, local)
    assert read(storage, "tiny/1/manifest.json") == (local / "tiny/1/manifest.json").read_bytes()


def test_links_in_a_folder_lead_nowhere(tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "tiny").symlink_to(tmp_path / "outside")
    storage = open_to_write(f"file://{tmp_path}/published")
    assert run("publish", storage, "tiny", "--from", str(local)) == 1
    assert "published/tiny: got a link" in capsys.readouterr().err
    assert not list((tmp_path / "outside").iterdir())
    (tmp_path / "published" / "tiny").unlink()
    publish_again(storage, local)
    (tmp_path / "published/tiny/1/more.json").symlink_to(local / "tiny/1/parity.json")
    assert keys(storage) == held(1)


@pytest.mark.parametrize("target", ["publish", "versions", "rollback", "unpin", "prune", "export"])
def test_make_reports_a_missing_variable_of_a_target(target: str) -> None:
    missing = "REPOSITORY" if target == "versions" else "MODEL"
    # The make that runs the tests exports its own.
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "REPOSITORY"}}
    done = subprocess.run(["make", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"error: {missing} is missing; expected make {target} " in done.stderr
    assert ("REPOSITORY=<" in done.stderr) == (target != "export")
