"""Reads rows to verify a model with, given by the user: a CSV file as spreadsheets and pandas write it."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.errors import ExportError
from export.tables.estimator import Rows

_MOST = 10_000
_MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null", "none"})
_DELIMITERS = ";\t,|"


def read_rows(path: Path, *, features: Sequence[str], text: frozenset[int]) -> Rows:
    """Rows `(rows, columns)`: FP64, or objects where columns hold strings; a cell without a value is NaN.

    The first line may name the columns; then they may come in any order, and others beside them.

    Args:
        path: UTF-8, with a byte-order mark or without; commas, semicolons, tabs or bars between cells.
        features: names of the columns.
        text: columns of strings.

    Raises:
        ExportError: it is not a CSV file of such rows, or a column is missing.
    """
    lines, delimiter = _read_lines(path)
    if not lines:
        raise ExportError(f"--rows {path}: got no rows, expected some with the columns {', '.join(features)}")
    places, body = _places(lines, features=features, path=path)
    if not body:
        raise ExportError(f"--rows {path}: got no rows below the names of the columns")
    table = np.empty((len(body), len(features)), np.object_)
    for index, line in enumerate(body):
        if len(line) != len(lines[0]):
            raise ExportError(f"--rows {path}: row {index}: got {len(line)} cells, expected {len(lines[0])}")
        for column, place in enumerate(places):
            where = f"--rows {path}: row {index}, column {features[column]!r}"
            table[index, column] = _read_cell(line[place], delimiter, text=column in text, where=where)
    return table if text else table.astype(np.float64)


def _read_lines(path: Path) -> tuple[list[list[str]], str]:
    """Cells of each line that is not empty, and the delimiter."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ExportError(f"--rows {path}: cannot be read: {exc}") from exc
    delimiter = max(_DELIMITERS, key=content.partition("\n")[0].count)
    try:
        lines = [line for line in csv.reader(content.splitlines(), delimiter=delimiter) if any(map(str.strip, line))]
    except csv.Error as exc:
        raise ExportError(f"--rows {path}: is not CSV: {exc}") from exc
    return [[cell.strip() for cell in line] for line in lines[: _MOST + 1]], delimiter


def _places(
    lines: Sequence[Sequence[str]], *, features: Sequence[str], path: Path
) -> tuple[list[int], Sequence[Sequence[str]]]:
    """Where each column is, and the rows."""
    head = list(lines[0])
    if set(features) <= set(head):
        return [head.index(name) for name in features], lines[1:]
    if all(_is_number(cell) for cell in head) or not any(_is_number(cell) for cell in lines[-1]):
        if len(head) == len(features):
            return list(range(len(features))), lines
    elif len(head) == len(features) and not any(_is_number(cell) for cell in head):
        unnamed = all(name == f"f{index}" for index, name in enumerate(features))
        if unnamed:  # the estimator has no names of columns, so their order counts
            return list(range(len(features))), lines[1:]
    missing = [name for name in features if name not in head]
    raise ExportError(
        f"--rows {path}: got columns {', '.join(head[:8])}, expected {len(features)}; missing: {', '.join(missing[:8])}"
    )


def _is_number(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return True
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _read_cell(cell: str, delimiter: str, *, text: bool, where: str) -> float | str:
    if cell.lower() in _MISSING:
        return math.nan
    if text:
        return cell
    try:
        # Locales that separate cells by semicolons write the decimal point as a comma.
        return float(cell.replace(",", ".") if delimiter == ";" else cell)
    except ValueError as exc:
        raise ExportError(f"{where}: got {cell[:40]!r}, expected a number, or nothing where it is missing") from exc
