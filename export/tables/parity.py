"""Verifies a table model: its outputs for rows, compared with those of its estimator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.session import Session
from export.tables.categories import is_missing, plain
from export.tables.csv_rows import read_rows
from export.tables.estimator import Original, Rows, SeveralOutputs
from export.tables.probe_rows import Search, nearby
from export.tables.probe_rows import find_rows as find_probe_rows
from export.writer.config import TABLE_BATCH
from transformer.errors import ServingError
from transformer.tasks.tabular import TABULAR
from transformer.triton.model import Model

TOLERANCE = 1e-5  # of a probability, or of the spread of a regressor's values (`_sizes`)
_LAST_BITS = 4  # units in the last place of FP32, the type of outputs, that rounding alone may change in a large value

_FP32 = np.finfo(np.float32)
_PAIRS, _HALVINGS = 32, 24  # nearer to a border, FP64 cannot distinguish the distances of two neighbours of KNN
_ALONE = 300  # rows that are tried one by one
_STRETCHES = (1.0, 10.0, 0.1, 100.0, 1e3, 1e-2, 1e4, 1e-3, 1e6)
_VARIED = 0.01  # of a probability: more than rounding varies a constant
_EMPTY = 256  # rows with missing values, or two for each column where that is more
_MOST_EMPTY = 2000
_NEXT = "next: --rows FILE.csv with some hundred rows of your own data"


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        figures: the difference of the graph from its estimator, for parity.json.
        inputs: the rows as the model takes them.
    """

    figures: Mapping[str, Any]
    inputs: Mapping[str, NDArray[Any]]


def find_rows(original: Original, path: Path | None, features: Sequence[str], notes: list[str]) -> Rows:
    """Rows for which the estimator's outputs are finite: from a CSV file, or made from what it remembers.

    Args:
        original: the estimator.
        path: of the file, None to make rows.
        features: names of the columns.
        notes: warnings for the user are appended.

    Raises:
        ExportError: there are no rows, or a constant would have the same outputs.
    """
    rows = _make_rows(original, notes) if path is None else read_rows(path, features=features, text=original.text)
    if path is not None:
        rows = rows[_is_finite(original.predict(rows))]
    _check_varied(original, original.predict(rows), path=path, notes=notes)
    return rows


def _make_rows(original: Original, notes: list[str]) -> Rows:
    rng = np.random.default_rng(7)
    search = Search(rng)
    rows = nearby(find_probe_rows(original.estimator, original.width, search))
    notes += [
        f"{kind}: rows at the thresholds, neighbours or categories of later steps have no inverse through it "
        f"({why}): the model was not verified with these; {_NEXT}"
        for kind, why in search.lost.items()
    ]
    if original.categories:
        rows = _with_names(original, rows)
    if rows.dtype != np.object_:
        rows = rows[(np.abs(rows) < _FP32.max).all(axis=1)]
    try:
        if not original.takes(rows):
            chosen = rng.permutation(len(rows))[:_ALONE]
            taken = [index for index in chosen if original.takes(rows[index : index + 1])]
            rows = rows[taken] if taken else rows
        rows = rows[_is_finite(original.predict(rows))]
        return _add_borders(original, rows, rng)
    except SeveralOutputs:
        raise
    except ExportError as exc:
        raise ExportError(f"{exc}; {_NEXT}") from exc


def _with_names(original: Original, rows: Rows) -> Rows:
    """Rows with the names of categories instead of the codes that trees compare."""
    named = rows.astype(np.object_)
    for column, names in original.categories.items():
        named[:, column] = [names[int(abs(code)) % len(names)] for code in np.round(rows[:, column])]
    return named if original.text else named.astype(np.float64)


def _is_finite(outputs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows have outputs within the range of FP32."""
    return np.asarray((np.abs(outputs) < _FP32.max).all(axis=1))


def _add_borders(original: Original, rows: Rows, rng: np.random.Generator) -> Rows:
    """The rows, more distant ones where all get the same class, and rows at the border between two classes."""
    if rows.dtype == np.object_ or not original.is_classifier or not len(rows):
        return rows
    for stretch in _STRETCHES:
        stretched = rows * stretch
        if not original.takes(stretched):
            continue
        best = original.predict(stretched).argmax(axis=1)
        if len(set(best)) > 1:
            break
    else:
        return rows
    rows = np.vstack([rows, stretched]) if stretch != 1 else rows
    best = original.predict(rows).argmax(axis=1)
    one, other = rng.integers(len(rows), size=(2, 40 * _PAIRS))
    differ = np.flatnonzero(best[one] != best[other])[:_PAIRS]
    here, there, wanted = rows[one[differ]], rows[other[differ]], best[one[differ]]
    for _ in range(_HALVINGS if len(differ) else 0):
        middle = (here + there) / 2
        if not original.takes(middle):  # there is no middle of two categories
            return rows
        same = (original.predict(middle).argmax(axis=1) == wanted)[:, None]
        here, there = np.where(same, middle, here), np.where(same, there, middle)
    return np.vstack([rows, here, there])


def _check_varied(original: Original, expected: NDArray[np.float64], *, path: Path | None, notes: list[str]) -> None:
    """Reject rows for which a constant would have the same outputs.

    Raises:
        ExportError: it would.
    """
    subject = f"--rows {path}" if path else "the generated rows"
    if original.is_classifier:
        best = set(expected.argmax(axis=1))
        if len(best) < 2:
            varied = len(expected) and float(np.ptp(expected, axis=0).max()) > _VARIED
            only = original.estimator.classes_[min(best)] if best else "none"
            if path and varied:
                notes.append(f"{subject}: the estimator predicts one class only ({only}), at different probabilities")
                return
            raise ExportError(
                f"{subject}: the estimator predicts one class only ({only}) of {len(original.estimator.classes_)}: "
                f"that verifies nothing; {_NEXT}, for which it predicts more than one"
            )
    elif not len(expected) or not np.ptp(expected) > 0:
        raise ExportError(f"{subject}: the estimator predicts one value only: that verifies nothing; {_NEXT}")


def find_missing(original: Original, rows: Rows) -> set[int]:
    """The columns in which the estimator takes a missing value.

    Args:
        original: the estimator.
        rows: of the verification.
    """
    some = rows[:2]
    if original.takes(_emptied(some, range(original.width))):
        return set(range(original.width))
    return {column for column in range(original.width) if original.takes(_emptied(some, [column]))}


def _emptied(rows: Rows, columns: Sequence[int] | range) -> Rows:
    copy = rows.copy()
    copy[:, list(columns)] = np.nan
    return copy


def whole(rows: Rows) -> Rows:
    """The rows without a missing value."""
    return rows[~_find_missing(rows).any(axis=1)]


def _find_missing(rows: Rows) -> NDArray[np.bool_]:
    if rows.dtype != np.object_:
        return np.isnan(rows)
    return np.array([[is_missing(value) for value in row] for row in rows], np.bool_).reshape(rows.shape)


def with_missing(rows: Rows, columns: Sequence[int]) -> Rows:
    """The rows, and some in which one of the columns, some of them, or all have no value."""
    if not columns:
        return whole(rows)
    rng = np.random.default_rng(8)
    chosen = rows[rng.integers(len(rows), size=min(max(_EMPTY, 2 * len(columns)), _MOST_EMPTY))].copy()
    for index, row in enumerate(chosen):
        share = 1.0 if index % 16 == 15 else 0.3
        empty = rng.random(len(columns)) < share
        empty[index % len(columns)] = True
        row[np.asarray(columns)[empty]] = np.nan
    return np.concatenate([rows, chosen])


def _serve(rows: Rows, model: Model) -> Mapping[str, NDArray[Any]]:
    """Rows after the transformer's preprocessing, as JSON brings them."""
    table = rows.astype(np.object_)
    table[_find_missing(rows)] = None
    try:
        return TABULAR.preprocess([[plain(value) for value in row] for row in table.tolist()], model)
    except ServingError as exc:
        raise ExportError(f"a row of the verification would be rejected: {exc}; {_NEXT}") from exc


def verify(original: Original, session: Session, model: Model, rows: Rows) -> Verification:
    """Compare a graph, run as the transformer runs it, with its estimator; values relative to their spread.

    Raises:
        ExportError: outputs are not finite, not probabilities, or too far apart.
    """
    output, expected = model.outputs[0].name, original.predict(rows)
    inputs = _serve(rows, model)
    runs = [
        session.infer({name: array[start:][:TABLE_BATCH] for name, array in inputs.items()})
        for start in range(0, len(rows), TABLE_BATCH)
    ]
    exported = TABULAR.postprocess(runs, model).values
    _check_values(exported, output)
    size = 1.0 if output == "probabilities" else _sizes(expected)
    rounding = _LAST_BITS * _FP32.eps * np.abs(expected) if output == "values" else 0
    differences = np.maximum(np.abs(exported - expected) - rounding, 0) / size
    if not differences.max() <= TOLERANCE:
        raise ExportError(
            f"{output} differ from the source by {_describe_worst(differences, rows, exported, expected)}"
        )
    classes = {"classes_seen": len(set(expected.argmax(axis=1)))} if output == "probabilities" else {}
    figures = {
        "tolerance": {output: TOLERANCE},
        output: float((np.abs(exported - expected) / size).max()),
        "rows": len(exported),
        **classes,
    }
    return Verification(figures, inputs)


def _check_values(exported: NDArray[Any], output: str) -> None:
    if not np.isfinite(exported).all():
        raise ExportError(f"{output}: got NaN or infinite ones: the model is broken; {_NEXT}")
    if output == "probabilities" and (exported.min() < -TOLERANCE or exported.max() > 1 + TOLERANCE):
        raise ExportError(f"probabilities: got {exported.min():.4g} to {exported.max():.4g}, expected 0 to 1")


def _describe_worst(
    differences: NDArray[np.float64], rows: Rows, exported: NDArray[Any], expected: NDArray[np.float64]
) -> str:
    """The largest difference, on how many rows there is one, and the row that has it."""
    worst = int(differences.max(axis=1).argmax())
    row = ", ".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in rows[worst][:8])
    apart = int((differences > TOLERANCE).any(axis=1).sum())
    return (
        f"{differences.max():.4g} on {apart} of {len(rows)} rows, expected at most {TOLERANCE}: got "
        f"{_show(exported[worst])}, expected {_show(expected[worst])} for {row}{' ...' if len(rows[worst]) > 8 else ''}"
    )


def _sizes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divisor of the difference of each value: their spread, or its distance from their median where that is more.

    A few distant rows with values as large as FP32 holds must not hide the differences of all others.
    """
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    spread = float(high - low) or float(np.abs(values - middle).mean())
    return np.asarray(np.maximum(spread, np.abs(values - middle)))


def _show(values: NDArray[Any]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values[:5]) + (" ...]" if len(values) > 5 else "]")
