"""Where the logs of the local stack go, as supervisor reads its configuration, and the last words of a part."""

import os
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from stack import logs
from stack.parts import compose_environment, hide
from stack.settings import StackSettings
from tests.support.stack import ROOT

PARTS = ("triton", "synchroniser", "transformer")


def read_configuration(settings: StackSettings, state: Path, monkeypatch: pytest.MonkeyPatch) -> ServerOptions:
    """stack/supervisord.conf as supervisor reads it."""
    composed = compose_environment(settings, str(state)) | logs.compose_logging(settings)
    for name, value in (composed | hide(os.environ | composed)).items():
        monkeypatch.setenv(name, value)
    options = ServerOptions()
    options.realize(["-c", str(ROOT / "stack" / "supervisord.conf"), *(["-u", "root"] if os.geteuid() == 0 else [])])
    return options


def test_each_part_logs_to_a_file_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.settings.in_project", lambda name: tmp_path / name)
    settings = StackSettings(http_port=12345)
    logs.begin(settings.log_folder)
    options = read_configuration(settings, tmp_path, monkeypatch)
    assert options.silent
    assert (options.logfile, options.logfile_maxbytes) == (
        str(settings.log_folder.absolute() / "supervisor.log"),
        logs.MAX_BYTES,
    )
    programs = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert programs.keys() == {*PARTS, "announce", "watch"}
    for part in PARTS:
        assert programs[part].stdout_logfile == str(settings.log_folder.absolute() / f"{part}.log")
        assert 0 < programs[part].stdout_logfile_maxbytes <= logs.MAX_BYTES
        assert programs[part].stdout_logfile_backups == 1
    assert programs["announce"].stdout_logfile == "/dev/fd/1"


def test_with_verbose_all_logs_go_to_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = read_configuration(StackSettings(verbose=True), tmp_path, monkeypatch)
    assert not options.silent
    for group in options.process_group_configs:
        if group.name in PARTS:
            assert group.process_configs[0].stdout_logfile == "/dev/fd/1"
            assert group.process_configs[0].stdout_logfile_maxbytes == 0


def test_log_of_the_stack_before_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "output" / "serve-1"
    logs.begin(folder)
    for text in ("first", "second", "third"):
        logs.begin(folder)
        (folder / "triton.log").write_text(text)
    assert sorted(path.name for path in folder.iterdir()) == ["triton.log", "triton.log.1"]
    assert (folder / "triton.log.1").read_text() == "second"


def test_last_words_are_the_last_lines_of_a_log_of_any_size(tmp_path: Path) -> None:
    assert logs.read_last_lines(logs.log_of("triton", tmp_path)) == []
    log = logs.log_of("triton", tmp_path)
    log.write_bytes(b"only\nthese\xff\n")
    assert logs.read_last_lines(logs.log_of("triton", tmp_path)) == ["only", "these\ufffd"]
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert logs.read_last_lines(logs.log_of("triton", tmp_path)) == [
        f"line {number}" for number in range(99_980, 100_000)
    ]
