"""The layout of a repository: which files belong to which version, and limits of all."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry import layout
from registry import listing as listings
from registry.errors import StorageError, VersionRejected
from registry.layout import Object, find_missing, read_layout
from registry.listing import gather, limit_models
from registry.storage.reading import FolderStorage, read

NOW = datetime.now(UTC)


def listing(*keys: str) -> list[Object]:
    return [Object(key, 1, key, NOW) for key in keys]


def test_listing_over_a_limit_keeps_the_newest_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_VERSIONS", 2)
    monkeypatch.setattr(layout, "MAX_FILES", 3)
    many = [f"b/1/weights-{number}.data" for number in range(4)]
    keys = [
        "a/1/model.onnx",
        "a/3/model.onnx",
        "a/20/model.onnx",
        *many,
        "b/2/model.onnx",
        *(f"b/{n}.txt" for n in "1234"),
    ]
    models, ignored = read_layout(listing(*keys))
    assert {name: sorted(model.versions) for name, model in models.items()} == {"a": [3, 20], "b": [2]}
    assert sorted(models["b"].shared) == ["1.txt", "2.txt", "3.txt"]
    assert ignored == {
        "a/1": "got 3 versions, expected at most 2",
        "b/1": "got 4 files, expected at most 3",
        "b/4.txt": "got 4 files, expected at most 3",
    }


def test_signature_is_no_file_of_its_version() -> None:
    models, ignored = read_layout(listing("a/1/model.onnx", "a/1/model.sig", "a/2/model.sig", "a/1/other.sig"))
    assert (set(models["a"].versions), set(models["a"].versions[1])) == ({1}, {"model.onnx"})
    assert {number: item.key for number, item in models["a"].signatures.items()} == {1: "a/1/model.sig"}
    assert set(ignored) == {"a/1/other.sig"}


def test_known_models_stay_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "MAX_MODELS", 2)
    models, _ = read_layout(listing("a/1/model.onnx", "b/1/model.onnx", "z/1/model.onnx"))
    assert limit_models(models, {"z"}) == {"b": "got 3 models, expected at most 2"}
    assert limit_models(models, {"a", "b"}) == {"z": "got 3 models, expected at most 2"}


def test_listing_keeps_folders_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "MAX_FOLDER_OBJECTS", 3)
    monkeypatch.setattr(listings, "MAX_UNKNOWN_SHOWN", 2)
    monkeypatch.setattr(listings, "MAX_MODELS", 2)
    junk = [f"junk/{number}" for number in range(5)]
    nowhere = ["a b/1", "a b/2", "$/1", "root.txt", "(/1"]
    others = [f"m{number}/1/model.onnx" for number in range(6)]
    found = gather(listing(*junk, *nowhere, *others, "zebra/1/model.onnx"), known={"zebra"})
    # Four folders that are not known, junk one of them. One file of a strange one is enough to list it.
    kept = ["a b/1", "$/1", "m0/1/model.onnx", "m1/1/model.onnx", "m2/1/model.onnx", "zebra/1/model.onnx"]
    assert [item.key for item in found.objects] == kept
    assert (found.overfull, found.beyond, found.newest) == ({"junk"}, {"m3", "m4"}, NOW)
    assert found.left_out == 3, "root.txt, ( and m5"


def test_listing_stays_below_its_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "MAX_KEPT_OBJECTS", 5)
    many = [f"{name}/{number}/model.onnx" for name, most in (("a", 2), ("b", 3), ("c", 2)) for number in range(most)]
    found = gather(listing(*many), known=set())
    assert ([item.key[0] for item in found.objects], found.overfull) == (["a", "a", "c", "c"], {"b"})
    assert gather(listing(*many), known={"b"}).overfull == {"a"}


def test_listing_ends_at_the_limit_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "MAX_OBJECTS", 3)
    found = gather(listing("a/1/x.onnx", "b/1/x.onnx", "b/2/x.onnx", "z/1/x.onnx"), known={"a", "z"})
    assert ([item.key[0] for item in found.objects], found.overfull) == (["a", "b", "b"], {"z"})


def test_depth_of_folders_is_limited(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 40)).mkdir(parents=True)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "config.pbtxt").touch()
    found = list(FolderStorage(tmp_path).walk())
    assert sorted(item.key for item in found) == ["d/d/d/d/d/...", "rows/config.pbtxt"]
    assert read_layout(found)[1].keys() == {"d/d/d/d/d/..."}


def test_layout_takes_what_triton_reads_and_no_more() -> None:
    models, ignored = read_layout(
        listing(
            "manifest.schema.json",
            "a/",
            "a/config.pbtxt",
            "a/labels.txt",
            "a/configs/gpu.pbtxt",
            "a/warmup/input",
            "a/1/model.onnx",
            "a/1/model.data",
            "a/1/net.onnx/",
            "a/1/net.onnx/model.onnx",
            "a/1/net.onnx/weights.bin",
            "a/1/net.onnx/evil.py",
            "a/1/net.onnx/sub/model.onnx",
            "a/1/model.py",
            "a/1/libx.so",
            "a/1/sub/model.onnx",
            "a/01/model.onnx",
            "a/9223372036854775808/model.onnx",
            "a/configs/evil.py",
            "a/.export/model.onnx",
            "a/libtriton_onnxruntime.so",
            "a/triton_python_backend_stub",
            "a/1/libtriton_onnxruntime.so",
            "a b/1/model.onnx",
            "a b/config.pbtxt",
            "b",
        )
    )
    assert models.keys() == {"a"}
    assert models["a"].shared.keys() == {"config.pbtxt", "labels.txt", "configs/gpu.pbtxt", "warmup/input"}
    assert {version: set(files) for version, files in models["a"].versions.items()} == {
        1: {"model.onnx", "model.data", "net.onnx/model.onnx", "net.onnx/weights.bin"}
    }
    assert ignored.keys() == {
        "a/1/model.py",
        "a/1/libx.so",
        "a/1/sub/model.onnx",
        "a/1/net.onnx/evil.py",
        "a/1/net.onnx/sub/model.onnx",
        "a/01/model.onnx",
        "a/9223372036854775808/model.onnx",
        "a/configs/evil.py",
        "a/libtriton_onnxruntime.so",
        "a/triton_python_backend_stub",
        "a/1/libtriton_onnxruntime.so",
        "a b/",
        "b",
    }
    assert "Triton accepts none that begins with 0" in ignored["a/01/model.onnx"]


@pytest.mark.parametrize(
    "name",
    ["densenet_onnx", "YOLOv8n", "resnet50.v2", "_a", "8n", "a-", "mödel", "a+b@1", "candidate.rows", "x" * 200],
)
def test_model_has_any_name_that_triton_takes(name: str) -> None:
    models, ignored = read_layout(
        listing(f"{name}/My_labels.csv", f"{name}/1/My_Net.v2.onnx", f"{name}/configs/H100.pbtxt")
    )
    assert not ignored
    assert models[name].shared.keys() == {"My_labels.csv", "configs/H100.pbtxt"}
    assert models[name].versions[1].keys() == {"My_Net.v2.onnx"}


@pytest.mark.parametrize(
    "name", ["a b", "$(reboot)", "a;b", "`a`", "a~b", "-a", "a'b", "a*", "..", "a\nb", "x" * 201, "\N{EURO SIGN}" * 67]
)
def test_name_with_a_meaning_in_a_shell_or_a_path_is_reported(name: str) -> None:
    models, ignored = read_layout(listing(f"{name}/config.pbtxt", f"{name}/1/model.onnx"))
    assert not models
    assert ignored.keys() == {f"{name}/"}
    assert "is no model's name: expected letters" in ignored[f"{name}/"]


def test_folder_without_a_version_is_a_model_s_too() -> None:
    models, ignored = read_layout(listing("ensemble/config.pbtxt", "empty/", "odd/README.md", "later/1/"))
    assert {name: len(model.versions) for name, model in models.items()} == dict.fromkeys(
        ("ensemble", "empty", "odd", "later"), 0
    )
    assert ignored.keys() == {"odd/README.md"}


@pytest.mark.parametrize(
    ("names", "waits_for"),
    [
        ({"model.onnx"}, None),
        ({"model.xml"}, None),
        ({"net.plan", "notes.txt"}, None),
        ({"model.bin"}, "a model file (*.onnx, *.plan, *.xml): it has model.bin"),
        ({"model.data", "model.txt"}, "a model file (*.onnx, *.plan, *.xml): it has model.data, model.txt"),
        ({"model.onnx", "golden.npz"}, "manifest.json: it has golden.npz, which export writes"),
    ],
)
def test_what_a_version_without_a_manifest_waits_for(names: set[str], waits_for: str | None) -> None:
    assert find_missing(names) == waits_for


def test_folder_is_listed_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    root = tmp_path / "models"
    (root / "a" / "1").mkdir(parents=True)
    (root / "a" / "1" / "model.onnx").write_bytes(b"12")
    (root / "a" / "1" / "linked.onnx").symlink_to(tmp_path / "outside" / "secret")
    (root / "b").symlink_to(tmp_path / "outside")
    objects = {item.key: item for item in list(FolderStorage(root).walk())}
    assert objects.keys() == {"a/1/model.onnx", "a/1/linked.onnx", "b"}
    models, ignored = read_layout(objects.values())
    assert set(models["a"].versions[1]) == {"model.onnx"}
    assert set(ignored) == {"a/1/linked.onnx", "b/"}


def test_file_that_changes_or_becomes_a_link_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    storage = FolderStorage(tmp_path)
    (item,) = list(storage.walk())
    assert read(storage, item, limit=10) == b"12"
    path.write_bytes(b"13")
    os.utime(path, ns=(1, 1))
    with pytest.raises(StorageError, match="changed"):
        read(storage, item, limit=10)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(StorageError):
        read(storage, item, limit=10)


def test_message_stays_on_one_line() -> None:
    assert str(VersionRejected("a\nb\x1b[2J")) == r"a\nb\x1b[2J"
