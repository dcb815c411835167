"""Failures during a swap, of S3, the synchroniser, Triton and the disk: what serves goes on serving."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.support.s3 import FaultyProxy, start_s3
from tests.support.stack import PATIENCE_S, ROOT, VERBOSE, free_ports, start_stack
from tests.support.synced import PREFIX, REPOSITORY, Synced, start_synced, variables_for
from tests.support.versions import Build, write

FIRST = Build(1)
MB = 1_000_000


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    with start_synced(tmp_path_factory.mktemp("faults"), {"rows": FIRST}) as running:
        yield running


FAULTS: dict[str, Callable[[FaultyProxy], None]] = {
    "close": FaultyProxy.close_port,
    "500": lambda proxy: proxy.status(500),
    "403": lambda proxy: proxy.status(403),
    "503": lambda proxy: proxy.status(503),
    "cut": lambda proxy: proxy.reset(100),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failing_s3_recovers(synced: Synced, fault: str) -> None:
    (before,) = synced.status()["models"]["rows"]["serving"]
    number = int(before) + 1
    with synced.load("rows") as load:
        FAULTS[fault](synced.proxy)
        listing = synced.wait_for(lambda: found if not (found := synced.status()["listing"])["ok"] else None)
        assert listing["failing_since"]
        assert listing["error"]
        synced.upload("rows", number, Build(number))
        synced.wait_for(lambda: synced.metric("nereid_sync_listings_total", result="failed") >= 2)
        assert synced.status()["models"]["rows"]["serving"] == [before]
        assert synced.status()["ready"]
        synced.proxy.pass_all()
        synced.wait_for_serving("rows", number)
        assert synced.status()["listing"]["failing_since"] is None
        assert not load.stop().failures


def test_hanging_s3_recovers(synced: Synced) -> None:
    (before,) = synced.status()["models"]["rows"]["serving"]
    with synced.load("rows") as load:
        synced.proxy.hang()
        synced.upload("rows", int(before) + 1, Build(int(before) + 1))
        synced.wait_for(lambda: synced.status()["listing"]["failing_since"], seconds=PATIENCE_S)
        assert synced.status()["models"]["rows"]["serving"] == [before]
        synced.proxy.pass_all()
        synced.wait_for_serving("rows", int(before) + 1)
        assert not load.stop().failures


def longest_pause_s(synced: Synced) -> float:
    """The longest pause between two requests to S3, in seconds."""
    moments = [request.at for request in list(synced.proxy.requests)]
    return max((later - earlier for earlier, later in pairwise(moments)), default=0)


def test_pauses_grow_while_s3_is_unavailable(synced: Synced) -> None:
    synced.proxy.clear()
    synced.proxy.status(500)
    synced.wait_for(lambda: synced.metric("nereid_sync_listings_total", result="failed") > 0)
    synced.wait_for(lambda: longest_pause_s(synced) > 4)
    synced.proxy.pass_all()
    synced.wait_for(lambda: synced.status()["listing"]["ok"])


def test_slow_download_blocks_no_other_model(synced: Synced) -> None:
    folder = synced.build("large", 1, Build(70), padding_bytes=8 * MB)
    synced.proxy.slow(MB, only="large/1/model.onnx")
    synced.s3.upload(folder, f"{PREFIX}/large/1")
    synced.wait_for(lambda: "downloading, " in (synced.version("large", 1).get("reason") or ""))
    synced.upload("other", 1, Build(71))
    synced.wait_for_serving("other", 1)
    assert synced.version("large", 1)["state"] == "staged"
    synced.proxy.pass_all()
    synced.wait_for_serving("large", 1)


def test_broken_download_is_retried(synced: Synced) -> None:
    folder = synced.build("cut", 1, Build(72), padding_bytes=2 * MB)
    synced.proxy.reset(MB, only="cut/1/model.onnx")
    synced.s3.upload(folder, f"{PREFIX}/cut/1")
    synced.wait_for(lambda: synced.metric("nereid_sync_failures_total", model="cut") >= 1)
    assert "tried again in" in synced.status()["models"]["cut"]["error"]
    assert not list((synced.mirror / "staged").glob("cut/*"))
    synced.proxy.pass_all()
    synced.wait_for_serving("cut", 1)
    assert synced.status()["models"]["cut"]["error"] is None


def test_synchroniser_killed_during_a_download_downloads_again(synced: Synced) -> None:
    synced.serve("broken-off", 1, Build(75))
    folder = synced.build("broken-off", 2, Build(73), padding_bytes=8 * MB)
    synced.proxy.slow(MB, only="broken-off/2/model.onnx")
    with synced.load("broken-off") as load:
        synced.s3.upload(folder, f"{PREFIX}/broken-off/2")
        synced.wait_for(lambda: "downloading, " in (synced.version("broken-off", 2).get("reason") or ""))
        synced.part("synchroniser").kill()
        synced.proxy.pass_all()
        synced.wait_for_serving("broken-off", 2)
        assert not load.stop().failures
    assert not list((synced.mirror / "staged").glob("broken-off/*"))


@pytest.mark.parametrize("victim", ["synchroniser", "tritonserver"])
def test_new_version_serves_after_a_kill_between_rename_and_load(synced: Synced, victim: str) -> None:
    (before,) = synced.status()["models"]["rows"]["serving"]
    number = int(before) + 1
    link = synced.mirror / "models" / "rows"
    old = link.readlink()
    synced.upload("rows", number, Build(number))
    process = synced.part(victim)
    deadline = time.monotonic() + PATIENCE_S
    while link.readlink() == old:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    synced.wait_for_serving("rows", number)
    response = synced.wait_for(lambda: infer(synced, str(number)))
    assert response["predictions"][0]["class"] == Build(number).names[Build(number).best]


def infer(synced: Synced, version: str) -> dict[str, object] | None:
    response = synced.stack.http.post("/predict/rows", json=[1.0] * 4)
    return response.json() if response.is_success and response.json()["model"]["version"] == version else None


def test_version_serves_after_triton_was_killed_during_its_trial(synced: Synced) -> None:
    (before,) = synced.status()["models"]["rows"]["serving"]
    number = int(before) + 1
    candidate = synced.mirror / "trial" / "candidate~rows"
    synced.upload("rows", number, Build(number))
    process = synced.part("tritonserver")
    deadline = time.monotonic() + PATIENCE_S
    while not candidate.is_symlink():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.3)  # it loads
    process.kill()
    synced.wait_for_serving("rows", number)


def test_triton_serves_again_without_s3_and_synchroniser(synced: Synced) -> None:
    (before,) = synced.status()["models"]["rows"]["serving"]
    synced.proxy.close_port()
    sync = synced.part("synchroniser")
    sync.suspend()
    try:
        synced.part("tritonserver").kill()
        synced.wait_for(lambda: infer(synced, before))
    finally:
        sync.resume()
        synced.proxy.pass_all()
    synced.wait_for(lambda: synced.status()["listing"]["ok"])


def test_restarted_transformer_is_ready_without_s3(synced: Synced) -> None:
    synced.proxy.close_port()
    try:
        for word in ("synchroniser", "transformer"):
            synced.part(word).kill()
        synced.wait_for(lambda: synced.stack.http.get("/v2/health/ready").is_success)
        assert synced.stack.http.post("/predict/rows", json=[1.0] * 4).is_success
        assert synced.wait_for(lambda: synced.status()["listing"]["failing_since"])
    finally:
        synced.proxy.pass_all()
    synced.wait_for(lambda: synced.status()["listing"]["ok"])


def test_rejection_outlives_a_restart(synced: Synced) -> None:
    synced.serve("refused", 1, Build(76))
    folder = synced.build("refused", 2, Build(74))
    (folder / "model.onnx").write_bytes(b"no model")
    synced.s3.upload(folder, f"{PREFIX}/refused/2")
    synced.wait_for_state("refused", 2, "refused")
    synced.part("synchroniser").kill()
    synced.wait_for_serving("refused", 1)
    synced.wait_for_state("refused", 2, "refused")
    synced.wait_for_listings(2)
    assert synced.stack.log.read_text(errors="replace").count("refused: version 2 is rejected") == 1


def test_start_without_s3_waits_for_it(tmp_path: Path) -> None:
    with start_s3(tmp_path / "s3.log") as s3, FaultyProxy(s3.url) as proxy:
        source = write(tmp_path / "first", "rows", FIRST, number=1)
        s3.upload(source, f"{PREFIX}/rows/1")
        proxy.close_port()
        ports = free_ports()
        environment = os.environ | variables_for(s3, proxy) | ports
        environment |= VERBOSE | {"REPOSITORY": REPOSITORY, "MIRROR": str(tmp_path / "mirror")}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stack"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        url = f"http://127.0.0.1:{ports['HTTP_PORT']}"
        try:
            with httpx.Client(base_url=url, trust_env=False) as client:
                wait(lambda: client.get("/status").json()["listing"]["failing_since"])
                assert client.get("/v2/health/live").is_success
                assert client.get("/v2/health/ready").status_code == 503
                response = client.post("/predict/rows", json=[1.0] * 4)
                assert response.status_code == 503
                assert client.get("/status").json()["waiting_for"] == f"the repository {REPOSITORY}"
                proxy.pass_all()
                wait(lambda: client.get("/v2/health/ready").is_success)
                assert client.post("/predict/rows", json=[1.0] * 4).json()["model"]["version"] == "1"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
        # From the mirror, with S3 away again.
        proxy.close_port()
        variables = variables_for(s3, proxy) | {"MIRROR": str(tmp_path / "mirror")}
        with start_stack(REPOSITORY, tmp_path / "second", variables=variables) as stack:
            assert stack.http.post("/predict/rows", json=[1.0] * 4).json()["model"]["version"] == "1"
            assert not stack.http.get("/status").json()["listing"]["ok"]
            # The model that was deleted meanwhile is unloaded, now that the deletion is visible.
            s3.upload(write(tmp_path / "other", "other", FIRST, number=1), f"{PREFIX}/other/1")
            s3.delete(f"{PREFIX}/rows/")
            proxy.pass_all()
            wait(lambda: list(stack.http.get("/status").json()["models"]) == ["other"])
            wait(lambda: stack.http.post("/predict/other", json=[1.0] * 4).is_success)
            wait(lambda: stack.http.post("/predict/rows", json=[1.0] * 4).status_code == 404)


def test_mirrored_model_that_does_not_load_blocks_no_other_without_the_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for number, model in enumerate(("rows", "spoiled"), 1):
        write(repository, model, Build(number), number=1)
    variables = {"MIRROR": str(tmp_path / "mirror"), "POLL_S": "0.5"}
    with start_stack(repository, tmp_path / "first", variables=variables):
        pass
    shutil.rmtree(repository)
    repository.mkdir()  # empty all of a sudden: taken for a mistake
    path = tmp_path / "mirror" / "models" / "spoiled" / "1" / "model.onnx"
    path.unlink()
    path.write_bytes(b"of a broken disk")
    with start_stack(repository, tmp_path / "second", variables=variables) as stack:
        assert stack.http.post("/predict/rows", json=[1.0] * 4).json()["model"]["version"] == "1"
        status = stack.http.get("/status").json()
        assert not status["listing"]["ok"]
        assert "version 1 does not load any more" in status["models"]["spoiled"]["error"]


def wait(condition: Callable[[], bool | str], *, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (httpx.HTTPError, KeyError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mount: not allowed here; a full disk needs a disk of its own")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_full_disk_is_reported_and_the_version_serves_once_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    mirror = small_disk / "mirror"
    with start_synced(tmp_path, {"rows": FIRST}, MIRROR=str(mirror)) as synced, synced.load("rows") as load:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 20 * MB))
        folder = synced.build("rows", 2, Build(2), padding_bytes=10 * MB)
        synced.s3.upload(folder, f"{PREFIX}/rows/2")
        known = synced.wait_for(lambda: synced.status()["models"]["rows"]["error"])
        assert "disk full: 10" in known
        assert synced.status()["models"]["rows"]["serving"] == ["1"]
        assert not list((mirror / "staged").glob("*/*"))
        filler.unlink()
        synced.wait_for_serving("rows", 2)
        assert not load.stop().failures


def test_idle_poll_of_many_models_is_one_listing(tmp_path: Path) -> None:
    with start_synced(tmp_path, {"rows": FIRST}, PREDICTOR_PINS='{"rows": [1]}') as synced:
        synced.upload("rows", 2, Build(2))
        for model in range(200):
            for version in (1, 2, 3):
                for name in ("config.pbtxt", "golden.npz"):  # they wait for their manifests
                    synced.s3.put(f"{PREFIX}/many-{model}/{version}/{name}", b"x")
        synced.wait_for(lambda: len(synced.status()["models"]) == 201)
        synced.wait_for_listings(1)
        synced.proxy.clear()
        synced.wait_for_listings(2)
        requests = list(synced.proxy.requests)
        assert {request.path for request in requests} == {"/models"}
        first_pages = [request for request in requests if "continuation-token" not in request.query]
        # 1,211 objects: two pages.
        assert abs(len(requests) - 2 * len(first_pages)) <= 1
        # The setting of this process overrides the policy.
        assert synced.status()["models"]["rows"]["policy"] == "specific 1 (setting)"
        assert (synced.version("rows", 1)["state"], synced.version("rows", 2)["state"]) == ("serving", "available")
