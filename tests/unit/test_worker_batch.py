"""What a batch is made of, and how it goes on."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import ROOT
from worker.batch.inputs import ROWS, Folder, Table, open_inputs
from worker.batch.locks import locked_folder
from worker.batch.outputs import FolderStore, Form, Outputs
from worker.errors import StartError, Undeliverable

REQUEST = {"input": "photos", "model": "yolo", "parameters": {}}


def call(function: Callable[[], Any]) -> Any:
    """Nothing is away here."""
    return function()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a-b.jpg", "a/2.PNG", "a/10.jpg", "a.jpg", "b/c/d.webp", "a/notes.txt", "é.jpg", "A.tif"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    return tmp_path / "photos"


def test_folder_goes_on_behind_each_of_its_images(photos: Path) -> None:
    folder = Folder(photos, most_bytes=100)
    names = [item.name for item in folder.items("")]
    assert names == sorted(["a-b.jpg", "a/2.PNG", "a/10.jpg", "a.jpg", "b/c/d.webp", "é.jpg", "A.tif"])
    for index, item in enumerate(folder.items("")):
        assert [each.name for each in folder.items(item.mark)] == names[index + 1 :]
    assert folder.count("") == 7
    first = next(folder.items(""))
    assert first.read is not None
    assert first.read() == (b"A.tif", hashlib.md5(b"A.tif", usedforsecurity=False).hexdigest())


def test_image_that_cannot_be_read_is_no_end_of_the_batch(photos: Path) -> None:
    folder = Folder(photos, most_bytes=5)
    read = {item.name: item.read for item in folder.items("") if item.read is not None}
    (photos / "A.tif").unlink()
    with pytest.raises(Undeliverable, match="No such file"):
        read["A.tif"]()
    with pytest.raises(Undeliverable, match="got 7 bytes, expected at most 5"):
        read["a-b.jpg"]()


def test_table_is_read_in_requests_and_goes_on_behind_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    count = 2 * ROWS + 3
    path.write_text("\ufeffa,b\r\n" + "".join(f"{index},x{index}\r\n" for index in range(count)))
    table = Table(path)
    items = list(table.items(""))
    assert [(item.first_row, item.size) for item in items] == [(1, ROWS), (ROWS + 1, ROWS), (2 * ROWS + 1, 3)]
    assert items[-1].rows[-1] == {"a": float(count - 1), "b": f"x{count - 1}"}
    for index, item in enumerate(items):
        assert list(table.items(item.mark)) == items[index + 1 :]
    assert table.count("") == count


def test_cells_are_numbers_where_they_are_written_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cells = {"1": 1.0, "-0.5": -0.5, ".5": 0.5, "1e3": 1000.0, "0": 0.0, "007": 7.0, "": None}
    words = ["1_000", "nan", "inf", "1.2.3", "-", ".", " 1"]
    path.write_text("a\n" + "".join(f'"{cell}"\n' for cell in [*cells, *words]))
    (item,) = Table(path).items("")
    assert [row["a"] for row in item.rows] == [*cells.values(), *words]


def test_cells_of_a_column_of_words_are_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("code,age\n007,7\n1e3,8\n,\n")
    (item,) = Table(path, words={"code"}).items("")
    assert item.rows == ({"code": "007", "age": 7.0}, {"code": "1e3", "age": 8.0}, {"code": None, "age": None})


@pytest.mark.parametrize("header", ["", "a,,b\n", "a,a\n"])
def test_table_without_names_is_rejected(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(header + "1,2,3\n" if header else "")
    with pytest.raises(StartError, match="expected a name for each column"):
        Table(path)


@pytest.mark.parametrize("text", ["absent", "s3://", "absent.csv", "s3:///x"])
def test_input_that_does_not_exist_is_rejected(text: str) -> None:
    with pytest.raises(StartError, match="INPUT: got"):
        open_inputs(text, together=1, most_bytes=1)


@pytest.fixture
def begin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outputs]:
    def make(out: Path, request: dict[str, Any] = REQUEST, *, lines: int) -> Outputs:
        folder = tmp_path_factory.mktemp("parts")
        return Outputs(FolderStore(out), request, folder=folder, form=Form(lines), hold=call)

    return make


def lines_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.glob(f"{kind}-*.jsonl")) for line in path.read_text().splitlines()
    ]


def test_parts_are_written_whole_and_progress_behind_them(tmp_path: Path, begin: Callable[..., Outputs]) -> None:
    outputs = begin(tmp_path, lines=3)
    for number in range(4):
        outputs.add([{"input": number}, {"input": number + 0.5}], [], mark=str(number))
    outputs.add([], [{"input": 4}], mark="4")
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.glob("part-*"))] == [4, 4]
    assert not lines_of(tmp_path, "failed")
    assert json.loads((tmp_path / "progress.json").read_text())["after"] == "3"

    again = begin(tmp_path, lines=3)  # the first was killed
    assert (again.progress["after"], again.progress["results"], again.progress["complete"]) == ("3", 8, False)
    again.add([], [{"input": 4}], mark="4")
    again.flush(is_last=True)
    assert [line["input"] for line in lines_of(tmp_path, "part")] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert [line["input"] for line in lines_of(tmp_path, "failed")] == [4]
    found = json.loads((tmp_path / "progress.json").read_text())
    assert found.pop("run")
    assert found == {
        "request": REQUEST,
        "after": "4",
        "complete": True,
        "part": 2,
        "failed": 1,
        "results": 8,
        "failures": 1,
    }
    assert not list(tmp_path.glob(".*"))


def test_part_that_was_written_before_its_progress_is_written_again(
    tmp_path: Path, begin: Callable[..., Outputs]
) -> None:
    outputs = begin(tmp_path, lines=10)
    outputs.add([{"input": 0}], [], mark="0")
    outputs.flush()
    before = (tmp_path / "progress.json").read_bytes()
    outputs.add([{"input": 1}], [], mark="1")
    outputs.flush()
    (tmp_path / "progress.json").write_bytes(before)
    again = begin(tmp_path, lines=10)
    again.add([{"input": 1}], [], mark="1")
    again.add([{"input": 2}], [], mark="2")
    again.flush(is_last=True)
    assert [line["input"] for line in lines_of(tmp_path, "part")] == [0, 1, 2]


def test_failure_of_a_part_without_its_progress_does_not_stay_beside_the_result(
    tmp_path: Path, begin: Callable[..., Outputs]
) -> None:
    outputs = begin(tmp_path, lines=10)
    before = (tmp_path / "progress.json").read_bytes()
    outputs.add([], [{"input": 0}], mark="0")
    outputs.flush()
    (tmp_path / "progress.json").write_bytes(before)
    again = begin(tmp_path, lines=10)
    again.add([{"input": 0}], [], mark="0")
    again.flush(is_last=True)
    assert [line["input"] for line in lines_of(tmp_path, "part")] == [0]
    assert not lines_of(tmp_path, "failed")


def test_part_whose_second_file_could_not_be_written_is_not_overwritten(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def hold(function: Callable[[], Any]) -> Any:
        if is_away and str(function.args[0]).startswith("failed"):  # type: ignore[attr-defined]
            raise Stopped
        return function()

    (tmp_path / "parts").mkdir()
    is_away = False
    outputs = Outputs(FolderStore(tmp_path / "out"), REQUEST, folder=tmp_path / "parts", form=Form(10), hold=hold)
    is_away = True
    outputs.add([{"input": 0}], [{"input": 1}], mark="1")
    with pytest.raises(Stopped):
        outputs.flush()
    is_away = False
    outputs.flush()
    outputs.add([{"input": 2}], [], mark="2")
    outputs.flush(is_last=True)
    assert [line["input"] for line in lines_of(tmp_path / "out", "part")] == [0, 2]
    assert [line["input"] for line in lines_of(tmp_path / "out", "failed")] == [1]


@pytest.mark.parametrize("name", ["part-00000.jsonl", "failed-00000.jsonl"])
def test_files_of_something_else_are_left_alone(tmp_path: Path, begin: Callable[..., Outputs], name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StartError, match=f"OUTPUT has {name} without progress.json; next: another OUTPUT"):
        begin(tmp_path, lines=1)
    assert (tmp_path / name).read_text() == "mine"


def test_output_of_another_batch_is_rejected(tmp_path: Path, begin: Callable[..., Outputs]) -> None:
    begin(tmp_path, lines=1).flush(is_last=True)
    with pytest.raises(StartError, match="has another batch"):
        begin(tmp_path, REQUEST | {"model": "other"}, lines=1)


def hold_a_folder(root: Path) -> subprocess.Popen[bytes]:
    """Another process that holds a folder."""
    code = (
        "import sys, time, pathlib; from worker.batch.locks import locked_folder\n"
        "with locked_folder(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    return process


def test_folder_is_held_by_one_batch_and_free_once_it_is_killed(tmp_path: Path) -> None:
    other = hold_a_folder(tmp_path)
    with pytest.raises(StartError, match="another batch writes to it"), locked_folder(tmp_path):
        pass
    other.kill()
    other.communicate()
    with locked_folder(tmp_path):
        pass


def test_parquet_without_pyarrow_says_how_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # as where it is not installed
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(StartError, match=r"next: pip install 'nereid\[parquet\]', or make .venv/.parquet"):
        Table(tmp_path / "rows.parquet")


def test_nothing_is_a_complete_batch(tmp_path: Path, begin: Callable[..., Outputs]) -> None:
    begin(tmp_path, lines=1).flush(is_last=True)
    assert json.loads((tmp_path / "progress.json").read_text())["complete"]
