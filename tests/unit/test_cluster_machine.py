"""The end of a cluster must not end others on the same machine."""

from pathlib import Path

from cluster.machine import is_mounted


def test_folder_that_something_is_mounted_at_is_known(tmp_path: Path) -> None:
    assert is_mounted("/proc")
    assert not is_mounted(str(tmp_path))
