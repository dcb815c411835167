"""The local repository: one process at a time, and nothing half written."""

from contextlib import closing
from pathlib import Path

import pytest

from predictor.errors import StartError
from predictor.synchroniser.mirror import Mirror
from registry.errors import TransientError, VersionRejected


def test_mirror_stays_below_its_limit(tmp_path: Path) -> None:
    with closing(Mirror(tmp_path / "mirror", limit_bytes=1000)) as mirror:
        first, second = (mirror.staging_folder("rows", number, "print") for number in (1, 2))
        with pytest.raises(
            VersionRejected, match=r"0\.0 MB wanted, expected at most 0\.0 MB \(PREDICTOR_MIRROR_BYTES\)"
        ):
            reserve(mirror, first, 1001)
        with mirror.space.reserve(first, 600):
            with pytest.raises(TransientError, match=r"mirror full: .*PREDICTOR_MIRROR_BYTES"):
                reserve(mirror, second, 500)
            with mirror.space.reserve(second, 400):
                (first / "1").mkdir(parents=True)
                (first / "1" / "model.onnx").write_bytes(bytes(600))  # counted once, on its way or there
        with pytest.raises(TransientError, match="mirror full"):
            reserve(mirror, second, 500)
        reserve(mirror, second, 400)
        generation = mirror.assemble("rows", {1: first}, {1: "print"}, b"")
        mirror.switch("rows", generation)  # links: no byte more
        reserve(mirror, second, 300)
        mirror.clean("rows")
        mirror.switch("rows", None)
        mirror.clean("rows")
        reserve(mirror, second, 1000)


def reserve(mirror: Mirror, folder: Path, size: int) -> None:
    with mirror.space.reserve(folder, size):
        pass


def test_mirror_is_locked_by_one_process_and_swept_at_its_start(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    with pytest.raises(StartError, match="another synchroniser"):
        Mirror(tmp_path)
    staged = mirror.staging_folder("a", 1, "f" * 64)
    (staged / "1").mkdir(parents=True)
    (staged / "1" / "model.onnx").write_bytes(b"1")
    (staged / "config.pbtxt").write_bytes(b"own")
    mirror.offer("a", staged)
    generation = mirror.assemble("a", {1: staged}, {1: "f"}, b"composed")
    mirror.switch("a", generation)
    unused = mirror.assemble("a", {1: staged}, {1: "g"}, b"other")
    mirror.close()
    again = Mirror(tmp_path)
    assert again.names() == ["a"]
    current = again.current("a")
    assert current is not None
    assert (current.fingerprints, (current.folder / "config.pbtxt").read_bytes()) == ({1: "f"}, b"composed")
    assert not unused.folder.exists()
    assert not list((tmp_path / "trial").iterdir())
    assert not staged.exists()
    again.close()


def test_unreadable_files_of_a_mirror_affect_no_other_model(tmp_path: Path) -> None:
    for model, content in (("cut", '{"1": '), ("list", "[]"), ("good", '{"1": "print"}')):
        generation = tmp_path / "generations" / model / "1"
        generation.mkdir(parents=True)
        (generation / "generation.json").write_text(content)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / model).symlink_to(generation)
    for notes in ("refused", "unproven", "tried"):
        (tmp_path / notes / "good.json").mkdir(parents=True)
    with closing(Mirror(tmp_path)) as mirror:
        assert mirror.names() == ["good"]
        assert mirror.records.read_rejected("good") == {}
        assert mirror.records.read_unverified("good") == {}
        assert mirror.records.read_crashes("good") == {}
        assert not [
            path for path in (tmp_path / "generations").iterdir() if path.name != "good" and any(path.iterdir())
        ]
