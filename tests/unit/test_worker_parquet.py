"""Parquet of a batch: the columns that the server's own description of its responses says, read by others."""

import json
from pathlib import Path
from typing import Any

import pytest

from transformer.rest.app import create_app
from transformer.services import Services
from transformer.settings import TransformerSettings
from transformer.tasks import TASKS
from worker.batch.inputs import ROWS, Table
from worker.batch.parquet import Columns
from worker.errors import StartError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is missing; next: make .venv/.parquet")
pq = pytest.importorskip("pyarrow.parquet")
pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """OpenAPI of the transformer."""
    app = create_app(Services(TransformerSettings(), None, None))  # type: ignore[arg-type]  # only for its routes
    return app.openapi()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_columns(document: dict[str, Any], task: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("")
    table = pq.read_table(Columns(document, task).write(tmp_path / "part"))
    assert table.column_names[:2] == ["input", "row" if task == "tabular" else "etag"]
    assert {"model"} < set(table.column_names)
    assert not any(pyarrow.types.is_null(field.type) for field in table.schema)


def test_predictions_are_lists_of_structs_also_where_there_are_none(document: dict[str, Any], tmp_path: Path) -> None:
    found = {"class": "cat", "class_id": 3, "confidence": 1, "box": {"x1": 0, "y1": 0.5, "x2": 2, "y2": 3}}
    lines = [{"input": "a.jpg", "etag": "0", "predictions": [found], "limits_reached": {"max_detections": 300}},
             {"input": "b.jpg", "etag": "1", "predictions": [], "limits_reached": {}}]  # fmt: skip
    columns = Columns(document, "detect")
    paths = []
    for index, line in enumerate(lines):
        part = tmp_path / f"part-{index}"
        part.write_text(json.dumps(line) + "\n")
        paths.append(columns.write(part))
    assert pq.read_schema(paths[0]).equals(pq.read_schema(paths[1]))
    frame = pandas.concat(map(pandas.read_parquet, paths))
    assert list(frame["input"]) == ["a.jpg", "b.jpg"]
    (prediction,), nothing = frame["predictions"]
    assert (prediction["class"], prediction["class_id"], prediction["box"]["y1"]) == ("cat", 3, 0.5)
    assert len(nothing) == 0


def test_rows_have_a_struct_of_class_and_probabilities(document: dict[str, Any], tmp_path: Path) -> None:
    prediction = {"class": "setosa", "class_id": 0, "confidence": 0.9, "probabilities": {"setosa": 0.9, "other": 0.1}}
    model = {"name": "iris", "version": "3", "task": "tabular"}
    (tmp_path / "part").write_text(
        json.dumps({"input": "t", "row": 1, "model": model, "prediction": prediction}) + "\n"
    )
    (row,) = pq.read_table(Columns(document, "tabular").write(tmp_path / "part")).to_pylist(maps_as_pydicts="strict")
    assert row["prediction"] == prediction | {"value": None}
    assert row["model"] == model


def test_server_without_a_description_of_the_task_is_said(document: dict[str, Any]) -> None:
    with pytest.raises(StartError, match=r"does not say in /openapi.json what 'dream' responds with"):
        Columns(document, "dream")


def test_table_is_read_with_its_types_and_goes_on_behind_each_request(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    count = 2 * ROWS + 3
    frame = pandas.DataFrame({"age": [float(index) for index in range(count)], "code": ["007"] * count})
    frame.loc[1, ["age", "code"]] = [float("nan"), None]
    frame.to_parquet(path)
    table = Table(path)
    items = list(table.items(""))
    assert [(item.first_row, item.size) for item in items] == [(1, ROWS), (ROWS + 1, ROWS), (2 * ROWS + 1, 3)]
    assert items[0].rows[:2] == ({"age": 0.0, "code": "007"}, {"age": None, "code": None})
    assert list(table.items(items[0].mark)) == items[1:]
    assert table.count("") == count
    path.write_bytes(b"nothing")
    with pytest.raises(StartError, match=r"rows.parquet"):
        list(Table(path).items(""))


def test_members_without_a_column_do_not_vanish(document: dict[str, Any], tmp_path: Path) -> None:
    found = {"class": "cat", "class_id": 3, "confidence": 1, "box": {"x1": 0, "y1": 0.5, "x2": 2, "y2": 3}}
    columns = Columns(document, "detect")
    for line, expected in (
        ({"input": "a", "track": 1}, "got track;"),
        ({"input": "a", "predictions": [found, {**found, "track": 1}]}, "got predictions.track;"),
        ({"input": "a", "predictions": [found | {"box": {"z": 1}}]}, "got predictions.box.z;"),
        ({"input": "a", "predictions": [found | {"class_id": "three"}]}, "class_id|three"),
        ({"input": "a", "predictions": [found | {"class_id": 2**70}]}, "too (large|big)"),
        ({"input": "a", "predictions": 3}, "list"),
    ):
        (tmp_path / "part").write_text(json.dumps({"input": "b"}) + "\n" + json.dumps(line) + "\n")
        with pytest.raises(StartError, match=rf"otherwise than its /openapi.json says: .*({expected})"):
            columns.write(tmp_path / "part")


def test_columns_of_another_server_have_another_version(document: dict[str, Any]) -> None:
    before = Columns(document, "detect").version
    assert before == Columns(json.loads(json.dumps(document)), "detect").version
    assert len({Columns(document, task).version for task in TASKS}) == len(TASKS)
    other = json.loads(json.dumps(document).replace('"class_id"', '"class_number"'))
    assert Columns(other, "detect").version != before


def test_part_is_written_in_groups_of_rows(document: dict[str, Any], tmp_path: Path) -> None:
    """The memory of a part is that of a group: one of 64 MiB as a whole took half a gigabyte and more."""
    found = {"class": "cat", "class_id": 3, "confidence": 0.5, "box": {"x1": 0, "y1": 0.5, "x2": 2, "y2": 3}}
    line = json.dumps({"input": "a.jpg", "predictions": [found] * 500}) + "\n"
    (tmp_path / "part").write_text(line * (12 * 2**20 // len(line)))
    with pq.ParquetFile(Columns(document, "detect").write(tmp_path / "part")) as file:
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert len(groups) in {6, 7}
    assert sum(groups) == 12 * 2**20 // len(line)
