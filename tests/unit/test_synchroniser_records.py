"""Records of the synchroniser that survive a restart."""

from pathlib import Path

import pytest

from predictor.synchroniser.records import Records


def test_process_that_ended_during_a_trial_is_counted(tmp_path: Path) -> None:
    Records(tmp_path).write_crashes("rows", {"a": 2, "b": 1}, running="b")
    assert Records(tmp_path).read_crashes("rows") == {"a": 2, "b": 2}


def test_stop_by_a_signal_is_no_crash(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write_crashes("rows", {"a": 2}, running="b")
    assert records.read_crashes("rows") == {"a": 2, "b": 1}
    records.close()
    assert records.read_crashes("rows") == {"a": 2}


def test_reasons_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write_rejected("rows", {"a": "no"})
    records.write_unverified("rows", {"b": "no golden input"})
    assert records.read_rejected("rows") == {"a": "no"}
    assert records.read_unverified("rows") == {"b": "no golden input"}
    assert records.read_rejected("other") == {}
    records.write_rejected("rows", {})
    assert not list((tmp_path / "refused").iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_invalid_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    records = Records(tmp_path)
    for folder in ("refused", "unproven", "tried"):
        (tmp_path / folder / "rows.json").write_text(content)
    assert records.read_rejected("rows") == {}
    assert records.read_unverified("rows") == {}
    assert records.read_crashes("rows") == {}
