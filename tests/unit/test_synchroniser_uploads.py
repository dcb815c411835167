"""When the upload of a version is complete."""

from datetime import UTC, datetime, timedelta

import pytest

from predictor.synchroniser.staging import Candidate
from predictor.synchroniser.uploads import ModelListing, Uploads
from registry.errors import Incomplete, VersionRejected
from registry.layout import Object, read_layout

SETTLE_S = 10.0
JUST_NOW = datetime.now(UTC)


def candidate_of(*names: str, modified: datetime = JUST_NOW, etag: str = "1") -> Candidate:
    """Version 1 of these files."""
    folders, _ = read_layout([Object(f"rows/1/{name}", 5, etag, modified) for name in names])
    return Candidate("rows", 1, folders["rows"], None, "fp32", 2)


def check(uploads: Uploads, candidate: Candidate, *, began: float, newest: datetime = JUST_NOW) -> None:
    """Show the version in a listing."""
    uploads.update({1: candidate.fingerprint}, began=began)
    uploads.check(candidate, ModelListing(candidate.folder, began, newest))


def test_manifest_completes_an_upload_at_once() -> None:
    check(Uploads(SETTLE_S), candidate_of("model.onnx", "manifest.json"), began=100)


def test_files_without_a_manifest_have_to_be_unchanged_for_a_while() -> None:
    uploads = Uploads(SETTLE_S)
    with pytest.raises(Incomplete, match="has no manifest"):
        check(uploads, candidate_of("model.onnx"), began=100)
    assert uploads.settles_at == 110
    with pytest.raises(Incomplete):
        check(uploads, candidate_of("model.onnx", etag="2"), began=109)
    with pytest.raises(Incomplete):
        check(uploads, candidate_of("model.onnx", etag="2"), began=118.9)
    check(uploads, candidate_of("model.onnx", etag="2"), began=119)
    assert uploads.first_seen(1) == 109


def test_old_files_are_complete_at_once() -> None:
    old = datetime.now(UTC) - timedelta(hours=1)
    check(Uploads(SETTLE_S), candidate_of("model.onnx", modified=old), began=100)
    # By the clock of the storage, where the clock here is behind.
    late = datetime.now(UTC) + timedelta(hours=1)
    check(Uploads(SETTLE_S), candidate_of("model.onnx"), began=100, newest=late)


def test_missing_model_file_is_rejected_after_the_time_to_settle() -> None:
    uploads = Uploads(SETTLE_S)
    with pytest.raises(Incomplete, match="waits for a model file"):
        check(uploads, candidate_of("model.bin"), began=100)
    with pytest.raises(VersionRejected, match=r"waits for a model file .*, for 10 s"):
        check(uploads, candidate_of("model.bin"), began=110)


def test_missing_manifest_of_an_export_is_waited_for_without_limit() -> None:
    uploads = Uploads(SETTLE_S)
    for began in (100, 10_000):
        with pytest.raises(Incomplete, match=r"waits for manifest\.json"):
            check(uploads, candidate_of("model.onnx", "golden.npz"), began=began)
    assert uploads.settles_at is None


def test_manifest_that_changes_repeatedly_does_not_complete_an_upload() -> None:
    uploads = Uploads(SETTLE_S)
    for number in range(3):
        check(uploads, candidate_of("model.onnx", "manifest.json", etag=str(number)), began=100 + number)
    with pytest.raises(Incomplete, match="changed 3 times or more"):
        check(uploads, candidate_of("model.onnx", "manifest.json", etag="3"), began=103)
    uploads.forget_changes()
    check(uploads, candidate_of("model.onnx", "manifest.json", etag="4"), began=104)


def test_versions_that_are_not_listed_are_forgotten() -> None:
    uploads = Uploads(SETTLE_S)
    uploads.update({1: "a", 2: "b"}, began=1)
    uploads.update({2: "b"}, began=2)
    assert (uploads.fingerprints, uploads.first_seen(2)) == ({2: "b"}, 1)
    uploads.update({1: "a", 2: "b"}, began=3)
    assert uploads.first_seen(1) == 3
    uploads.clear()
    assert uploads.fingerprints == {}
