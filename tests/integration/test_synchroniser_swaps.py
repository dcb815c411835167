"""Uploads are deployments: valid versions serve without a failed request, and invalid ones never serve."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from environment.error_codes import ErrorCode
from loadtest.generator.responses import Result
from tests.support.error_codes import code_of
from tests.support.models import BATCHED, FLOAT_IO, build_identity
from tests.support.responded import stale, versions
from tests.support.stack import PATIENCE_S, ROOT
from tests.support.synced import PREFIX, SETTLE_S, Synced, start_synced
from tests.support.versions import ODD_KEYS, SPOILS, Build, external_data, seal

FIRST = Build(1)

# A part of the reason for which each spoiled version is rejected.
REASONS = {
    "corrupt": "model.onnx: sha256 got",
    "corrupt-sealed": "not an ONNX file",
    "truncated": "model.onnx: got",
    "truncated-sealed": "not an ONNX file",
    "wrong-digest": "model.onnx: sha256 got",
    "broken-manifest": "manifest.json: no JSON",
    "missing-file": "waits for golden.npz, listed in manifest.json",
    "missing-model": "waits for model.onnx, listed in manifest.json",
    "missing-model-sealed": "waits for model.onnx",
    "empty-model-sealed": "not an ONNX file",
    "other-outputs": "probabilities",
    "nan": "NaN",
    "different-scores": "golden input: output 'probabilities'",
    "slightly-different-scores": "golden input: output 'probabilities'",
    "broken-config": "config.pbtxt",
    "new-opset": "opset",
    "pickled-golden": "golden.npz: cannot be read",
    "op-library": "model_operations",
    "execution-environment": "EXECUTION_ENV_PATH",
    "python-model": "model.py",
    "python-beside": "model.py",
    "file-outside": "default_model_filename",
    "external-data-outside": "external data",
    "missing-external-data": "waits for model.data",
}
# Spoiled versions that serve all the same: the folder decides model and version.
HARMLESS = {"other-number", "other-name"}


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    with start_synced(tmp_path_factory.mktemp("swaps"), {"rows": FIRST}) as running:
        yield running


def check_responses(result: Result, builds: dict[int, Build]) -> None:
    """No request failed or got a retired version; each response is that of the version it names, with its labels."""
    assert not result.failures, result.failures[:3]
    assert not stale(result), stale(result)[:3]
    assert len(result.responses) > 100
    for response in result.responses:
        assert builds[int(response.version)].fits(response), response


def test_valid_versions_replace_each_other_without_a_failed_request(synced: Synced) -> None:
    builds = {1: FIRST} | {number: Build(number, classes=2 + number % 3) for number in range(2, 7)}
    with synced.load("rows") as load:
        for number in range(2, 7):
            synced.upload("rows", number, builds[number])
            synced.wait_for_serving("rows", number)
            assert load.wait_for_version(str(number), seconds=PATIENCE_S)
        result = load.stop()
    check_responses(result, builds)
    assert versions(result) == ["1", "2", "3", "4", "5", "6"]
    known = synced.version("rows", 6)
    assert known["seconds_to_serve"] > 0
    # Versions 2 to 5 have left nothing here.
    assert [path.name for path in (synced.mirror / "generations" / "rows").glob("*/[0-9]*")] == ["6"]
    assert not list((synced.mirror / "staged").glob("*/*"))
    assert not list((synced.mirror / "trial").iterdir())


def test_interface_may_change_with_a_version(synced: Synced) -> None:
    images = {1: Build(1, task="detect"), 2: Build(2, task="detect", interface="ultralytics", classes=5)}
    synced.serve("finder", 1, images[1])
    with synced.load("finder", image=ROOT / "loadtest" / "pictures" / "digits.jpg") as load:
        assert load.wait_for_version("1", seconds=PATIENCE_S)
        synced.upload("finder", 2, images[2])
        synced.wait_for_serving("finder", 2)
        assert load.wait_for_version("2", seconds=PATIENCE_S)
        check_responses(load.stop(), images)
    synced.s3.delete(f"{PREFIX}/finder/")
    synced.wait_for(lambda: "finder" not in synced.status()["models"])
    synced.wait_for(lambda: synced.stack.http.get("/v2/models/finder").status_code == 404)
    assert "finder" not in synced.stack.http.get("/v2/models").json()["models"]


def test_smaller_batch_fails_no_request(synced: Synced) -> None:
    def served() -> int:
        response = synced.stack.http.get("/v2/models/pairs/config")
        return int(response.json()["max_batch_size"]) if response.is_success else 0

    def check(count: int) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [count, 2], "data": list(range(2 * count))}
        response = synced.stack.http.post("/v2/models/pairs/infer", json={"inputs": [tensor]})
        assert response.is_success, (count, response.text, served())
        assert response.json()["outputs"][0]["data"] == tensor["data"]

    folders = {version: synced.build("pairs", version, Build(version)) for version in (1, 2)}
    for version, size in ((1, 8), (2, 4), (2, 2)):  # how many items Triton takes may change under a number too
        folder = folders[version]
        (folder / "model.onnx").write_bytes(build_identity())
        (folder / "config.pbtxt").write_text(f"{BATCHED}{FLOAT_IO}".replace("size: 8", f"size: {size}"))
        (folder / "golden.npz").unlink(missing_ok=True)
        seal(folder)
        synced.s3.upload(folder, f"{PREFIX}/pairs/{version}")
        deadline = time.monotonic() + PATIENCE_S
        while (now := served()) != size and time.monotonic() < deadline:
            for count in (3, 6, 20) if now else ():
                check(count)
            time.sleep(0.02)
        assert now == size
        for count in (3, 6, 20):
            check(count)
    too_wide = {"name": "x", "datatype": "FP32", "shape": [20, 3], "data": [0] * 60}
    rejected = synced.stack.http.post("/v2/models/pairs/infer", json={"inputs": [too_wide]})
    assert (rejected.status_code, "pairs takes 'x' FP32 [-1, 2]" in rejected.json()["error"]) == (400, True), (
        rejected.text
    )


def test_invalid_versions_never_serve(synced: Synced) -> None:
    assert REASONS.keys() | HARMLESS == SPOILS.keys()
    (before,) = synced.status()["models"]["rows"]["serving"]
    numbers = {name: 100 + index for index, name in enumerate(REASONS)}
    for name, number in numbers.items():
        folder = synced.build("rows", number, Build(number))
        SPOILS[name](folder)
        synced.s3.upload(folder, f"{PREFIX}/rows/{number}")
    with synced.load("rows") as load:
        for name, number in numbers.items():
            known = synced.wait_for_state("rows", number, "refused")
            assert REASONS[name] in known["reason"], (name, known)
        log = synced.stack.log.read_text(errors="replace")
        for number in numbers.values():
            assert log.count(f"rows: version {number} is rejected") == 1
        assert synced.metric("nereid_sync_versions", model="rows", state="refused") == len(numbers)
        # Nothing is tried again.
        work = work_so_far(synced)
        synced.wait_for_listings(3)
        assert work_so_far(synced) == work
        assert synced.metric("nereid_sync_refusals_total", model="rows") == len(numbers)
        assert versions(load.stop()) == [before]
        assert not load.result().failures
    # A valid version afterwards serves; so does a rejected one once it is fixed.
    synced.upload("rows", 200, Build(200))
    synced.wait_for_serving("rows", 200)
    folder = synced.build("rows", 201, Build(201))
    SPOILS["corrupt"](folder)
    synced.s3.upload(folder, f"{PREFIX}/rows/201")
    synced.wait_for_state("rows", 201, "refused")
    synced.s3.put(f"{PREFIX}/rows/201/model.onnx", synced.build("fixed", 201, Build(201)) / "model.onnx")
    synced.s3.upload(synced.build("rows-again", 201, Build(201)), f"{PREFIX}/rows/201")
    synced.wait_for_serving("rows", 201)
    for number in (*numbers.values(), 200):
        synced.s3.delete(f"{PREFIX}/rows/{number}/")


def work_so_far(synced: Synced) -> list[float]:
    loads = [synced.metric("nereid_sync_loads_total", model="rows", result=result) for result in ("ok", "failed")]
    return [*loads, synced.metric("nereid_sync_downloaded_bytes_total")]


def test_plain_upload_deploys_and_delete_rolls_back(synced: Synced) -> None:
    synced.serve("plain", 1, Build(31))
    other = synced.build("plain", 2, Build(31, classes=3))
    synced.s3.put(f"{PREFIX}/plain/2/model.onnx", other / "model.onnx")
    synced.wait_for_serving("plain", 2)
    response = synced.stack.http.post("/predict/plain", json=[1.0] * 4).json()
    assert (response["model"]["version"], response["predictions"][0]["class"]) == ("2", f"build-31-{31 % 3}")
    synced.s3.delete(f"{PREFIX}/plain/2/")
    synced.wait_for_serving("plain", 1)


def test_pin_of_the_model_holds_until_it_is_removed(synced: Synced) -> None:
    synced.serve("pinned", 1, Build(32))
    synced.serve("pinned", 3, Build(33))
    key = f"{PREFIX}/pinned/config.pbtxt"
    config: bytes = synced.s3.client.get_object(Bucket="models", Key=key)["Body"].read()
    synced.s3.put(key, config + b"\nversion_policy { specific { versions: [1] } }\n")
    synced.wait_for_serving("pinned", 1)
    synced.upload("pinned", 4, Build(34))
    assert synced.wait_for_state("pinned", 4, "available")
    assert synced.status()["models"]["pinned"]["policy"] == "specific 1"
    synced.s3.put(key, b"version_policy {")
    synced.wait_for(lambda: "config.pbtxt" in (synced.status()["models"]["pinned"]["error"] or ""))
    assert synced.status()["models"]["pinned"]["serving"] == ["1"]
    synced.s3.put(key, config + b"\nversion_policy { specific { versions: [9] } }\n")
    synced.wait_for(lambda: "names version 9" in (synced.status()["models"]["pinned"]["error"] or ""))
    assert synced.status()["models"]["pinned"]["serving"] == ["1"]
    synced.s3.put(key, config)
    synced.wait_for_serving("pinned", 4)


def test_several_versions_serve_together_where_their_labels_agree(synced: Synced) -> None:
    for number in (1, 2, 3):
        synced.upload("pair", number, Build(40))
    config = (synced.build("pair", 9, Build(40)).parent / "config.pbtxt").read_bytes()
    synced.s3.put(f"{PREFIX}/pair/config.pbtxt", config + b"\nversion_policy { latest { num_versions: 2 } }\n")
    synced.wait_for_serving("pair", 2, 3)
    row = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}]}
    for version in ("2", "3"):
        assert synced.stack.http.get(f"/v2/models/pair/versions/{version}/ready").is_success
        assert synced.stack.http.post(f"/v2/models/pair/versions/{version}/infer", json=row).is_success
    synced.upload("pair", 4, Build(44))
    synced.wait_for_serving("pair", 4)
    response = synced.stack.http.post("/v2/models/pair/versions/3/infer", json=row)
    assert code_of(response) is ErrorCode.VERSION_NOT_FOUND
    known = synced.version("pair", 3)
    assert (known["state"], "labels" in known["reason"]) == ("available", True)
    synced.s3.delete(f"{PREFIX}/pair/")
    synced.wait_for(lambda: "pair" not in synced.status()["models"])


def test_other_labels_under_a_number_that_serves_are_rejected(synced: Synced) -> None:
    synced.serve("labels", 4, Build(34))
    with synced.load("labels") as load:
        synced.s3.upload(synced.build("again", 4, Build(45)), f"{PREFIX}/labels/4")
        known = synced.wait_for(lambda: found if (found := synced.version("labels", 4))["reason"] else None)
        synced.wait_for(lambda: "immutable" in (synced.version("labels", 4)["reason"] or ""))
        assert known["state"] == "serving"
        synced.wait_for(lambda: len(load.result().responses) > 200)
        check_responses(load.stop(), {4: Build(34)})


@pytest.mark.parametrize("has_manifest", [False, True])
def test_files_uploaded_one_by_one_serve_once_complete(synced: Synced, has_manifest: bool) -> None:
    number = 50 + has_manifest
    folder = synced.build("slow", number, Build(number))
    external_data(folder)
    if not has_manifest:
        synced.s3.put(f"{PREFIX}/slow/config.pbtxt", folder / "config.pbtxt")
        strip_all_but(folder, "model.onnx", "model.data")
    # Without a manifest within the settling time; with one, longer apart than that.
    synced.s3.upload(folder, f"{PREFIX}/slow/{number}", pause_s=SETTLE_S * 1.25 if has_manifest else SETTLE_S / 2)
    synced.wait_for_serving("slow", number)
    log = synced.stack.log.read_text(errors="replace")
    assert f"slow: version {number} is rejected" not in log
    response = synced.stack.http.post("/predict/slow", json=[1.0] * 4).json()
    assert response["predictions"][0]["class"] == Build(number).names[Build(number).best]


def strip_all_but(folder: Path, *names: str) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def test_late_external_data_completes_the_version(synced: Synced) -> None:
    folder = synced.build("late", 1, Build(60))
    external_data(folder)
    synced.s3.put(f"{PREFIX}/late/config.pbtxt", folder / "config.pbtxt")
    synced.s3.put(f"{PREFIX}/late/1/model.onnx", folder / "model.onnx")
    synced.wait_for_state("late", 1, "refused")
    synced.s3.put(f"{PREFIX}/late/1/model.data", folder / "model.data")
    synced.wait_for_serving("late", 1)


def test_newest_of_quick_uploads_serves(synced: Synced) -> None:
    for number in (7, 9, 8):  # a lower one last
        synced.upload("quick", number, Build(number))
    synced.wait_for_serving("quick", 9)
    synced.upload("quick", 5, Build(5))
    synced.wait_for_state("quick", 5, "available")
    assert synced.status()["models"]["quick"]["serving"] == ["9"]


def test_odd_keys_are_reported_once_and_ignored(synced: Synced) -> None:
    before = synced.status()["models"]["rows"]["serving"]
    for pattern in ODD_KEYS:
        synced.s3.put(f"{PREFIX}/{pattern.format(model='rows')}", b"x")
    synced.wait_for(lambda: len(synced.status()["ignored"]) >= len(ODD_KEYS) - 1)  # hidden ones are not reported
    synced.wait_for_listings(3)
    lines = [line for line in synced.stack.log.read_text(errors="replace").splitlines() if "ignored: " in line]
    assert len(lines) == len({line.partition("ignored: ")[2] for line in lines})
    assert not any("\x1b" in line for line in lines)
    assert synced.status()["models"]["rows"]["serving"] == before
    assert not list(synced.mirror.parent.rglob("*escaped*"))
    synced.upload("rows", 300, Build(300))
    synced.wait_for_serving("rows", 300)
    for pattern in ODD_KEYS:
        synced.s3.client.delete_object(Bucket="models", Key=f"{PREFIX}/{pattern.format(model='rows')}")


def test_empty_listing_removes_nothing(synced: Synced) -> None:
    synced.wait_for_listings(2)  # what was deleted before is listed no longer
    names = set(synced.status()["models"])
    synced.proxy.close_port()  # a listing during the deletions would have fewer models, not none
    synced.s3.delete(f"{PREFIX}/")
    synced.proxy.pass_all()
    synced.wait_for(lambda: "empty" in (synced.status()["listing"]["error"] or ""))
    assert set(synced.status()["models"]) == names
    assert synced.stack.http.post("/predict/rows", json=[1.0] * 4).is_success


def test_triton_loads_models_for_the_synchroniser_only(synced: Synced) -> None:
    with triton.InferenceServerClient(f"localhost:{synced.stack.triton_grpc_port}") as client:
        for call in (
            client.get_model_repository_index,
            lambda: client.load_model("rows"),
            lambda: client.unload_model("rows"),
            client.get_system_shared_memory_status,
            client.get_log_settings,
            client.get_trace_settings,
            client.get_inference_statistics,
        ):
            with pytest.raises(InferenceServerException, match=r"not allowed|restricted|expecting header"):
                call()
        assert client.get_model_config("rows").config.name == "rows"
    url = f"http://localhost:{synced.stack.triton_http_port}"
    for path in ("/v2/repository/index", "/v2/repository/models/rows/unload", "/v2/logging", "/v2/trace/setting"):
        assert httpx.post(url + path, json={}).status_code == 403, path
    assert httpx.get(f"{url}/v2/models/rows/config").is_success


def test_no_secret_is_shown(synced: Synced) -> None:
    arguments = synced.part("tritonserver").cmdline()
    secrets = {argument.rpartition("=")[2] for argument in arguments if "restricted" in argument}
    assert [len(secret) for secret in secrets] == [64]
    visible = synced.stack.log.read_text(errors="replace") + str(synced.status())
    visible += httpx.get(f"{synced.stack.sync}/metrics").text
    for secret in (*secrets, "secret-of-the-tests"):
        assert secret not in visible


def test_clients_cannot_reach_candidates(synced: Synced) -> None:
    assert synced.stack.http.get("/v2/models/candidate~rows").status_code == 404
    assert not any("candidate" in name for name in synced.stack.http.get("/v2/models").json()["models"])
    assert np.isfinite(synced.metric("nereid_sync_last_listing_timestamp_seconds"))


def test_equal_bytes_are_as_many_versions_as_they_have_numbers(synced: Synced) -> None:
    """Equal files of two models, under two numbers, and under a number that had other files meanwhile."""
    folder, other = synced.build("same", 1, Build(71)), synced.build("same", 2, Build(72))
    config = (folder / "config.pbtxt").read_bytes() + b"\nversion_policy { all { } }\n"

    def put(model: str, number: int, source: Path) -> None:
        synced.s3.put(f"{PREFIX}/{model}/{number}/model.onnx", source / "model.onnx")

    def response_of(model: str, number: int) -> str:
        row = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}]}
        url = f"/v2/models/{model}/versions/{number}/infer"
        response = synced.stack.http.post(url, json=row | {"outputs": [{"name": "probabilities"}]}).raise_for_status()
        values: list[float] = response.json()["outputs"][0]["data"]
        return str(np.round(values, 4).tolist())

    for model in ("same", "twin"):
        synced.s3.put(f"{PREFIX}/{model}/config.pbtxt", config)
        for number in (1, 2):
            put(model, number, folder)
    synced.wait_for_serving("same", 1, 2)
    synced.wait_for_serving("twin", 1, 2)
    first = response_of("same", 1)
    assert {response_of(model, number) for model in ("same", "twin") for number in (1, 2)} == {first}
    # Other content under the same number, which the other one keeps; then back.
    put("same", 2, other)
    synced.wait_for(lambda: response_of("same", 2) != first)
    assert response_of("same", 1) == response_of("twin", 2) == first
    put("same", 2, folder)
    synced.wait_for(lambda: response_of("same", 2) == first)
    put("same", 3, other)
    synced.wait_for_serving("same", 1, 2, 3)
    put("same", 4, folder)
    synced.wait_for_serving("same", 1, 2, 3, 4)
    assert (response_of("same", 3) != first, response_of("same", 4)) == (True, first)
    # Deleted, and uploaded again.
    synced.s3.delete(f"{PREFIX}/same/1/")
    synced.wait_for_serving("same", 2, 3, 4)
    put("same", 1, folder)
    synced.wait_for_serving("same", 1, 2, 3, 4)
    assert response_of("same", 1) == first
    # One file twice in a version.
    synced.s3.put(f"{PREFIX}/twin/3/copy.onnx", folder / "model.onnx")
    put("twin", 3, folder)
    synced.wait_for_serving("twin", 1, 2, 3)
    log = synced.stack.log.read_text(errors="replace")
    assert "no such file or directory" not in log
