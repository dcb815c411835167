"""The estimator to export: the table that it takes, and its predictions for rows in the form of its training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from export.errors import ExportError, first_line
from export.tables import boosters
from export.tables.categories import is_missing
from export.tables.preprocessing import chosen_indices

Rows = NDArray[Any]

_SUM = 1e-3  # how far from 1 the probabilities of one row may sum up
_CLEAR = 1e-6  # between the two highest probabilities: below it, chance decides which of them is the class


class SeveralOutputs(ExportError):
    """The estimator has several outputs for each row; other rows would not help."""


@dataclass(frozen=True)
class Original:
    """The estimator, and the table that it takes.

    Attributes:
        estimator: fitted.
        width: columns.
        names: of the columns where it was fitted on a data frame, else None.
        text: columns of strings.
        categories: names of the categories of the columns that a data frame must hold as such.
        dtype: of the numbers in its rows.
    """

    estimator: Any
    width: int
    names: Sequence[str] | None
    text: frozenset[int]
    categories: Mapping[int, Sequence[Any]]
    dtype: Any = np.float64

    @property
    def is_classifier(self) -> bool:
        """Whether its output is probabilities."""
        return bool(is_classifier(self.estimator))

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Probabilities `(rows, classes)` or values `(rows, 1)`.

        Args:
            rows: `(rows, columns)`, FP64, or objects where there are strings; a missing value is NaN.

        Raises:
            ExportError: it fails.
            SeveralOutputs: it has several outputs for each row.
        """
        kind = type(self.estimator).__name__
        method = self.estimator.predict_proba if self.is_classifier else self.estimator.predict
        try:
            with np.errstate(all="ignore"):
                predicted = method(self._form(rows))
        except Exception as exc:  # the code of the user, and of each library that the estimator was made with
            raise ExportError(f"{kind}: fails on a row of the verification: {first_line(exc)}") from exc
        width = len(self.estimator.classes_) if self.is_classifier else 1
        shape = (len(rows), width)
        if (
            not isinstance(predicted, np.ndarray)
            or predicted.shape not in {shape, shape[:1]}
            or predicted.dtype.kind not in "biuf"
        ):
            got = f"{len(predicted)} arrays" if isinstance(predicted, list) else str(np.shape(predicted))
            raise SeveralOutputs(f"{kind}: got {got}, expected {shape}: several outputs for each row are not served")
        if self.is_classifier and len(predicted) and not np.abs(predicted.sum(axis=1) - 1).max() < _SUM:
            raise SeveralOutputs(f"{kind}: got probabilities that do not sum to 1, expected one class for each row")
        return predicted.reshape(len(rows), width).astype(np.float64)

    def count_other_classes(self, rows: Rows) -> int:
        """Number of rows whose predicted class is not the one of the highest probability."""
        sorted_rows = np.sort(probabilities := self.predict(rows), axis=1)
        is_clear = sorted_rows[:, -1] - sorted_rows[:, -2] > _CLEAR
        predicted = np.asarray(self.estimator.predict(self._form(rows))).reshape(len(rows))
        most = np.asarray(self.estimator.classes_)[probabilities.argmax(axis=1)]
        return int((is_clear & (predicted != most)).sum())

    def takes(self, rows: Rows) -> bool:
        """Whether it predicts these rows without an error."""
        try:
            self.predict(rows)
        except SeveralOutputs:
            raise
        except ExportError:
            return False
        return True

    def _form(self, rows: Rows) -> Any:
        if self.names is None and not self.categories:
            return rows if self.text else rows.astype(self.dtype)
        try:
            import pandas  # noqa: PLC0415 - where a model was fitted on a data frame alone
        except ImportError as exc:
            raise ExportError("it was fitted on a data frame, which needs pandas; next: install pandas") from exc

        columns = {}
        for index, name in enumerate(self.names or range(self.width)):
            values = rows[:, index]
            if index in self.categories:
                # pandas takes a missing value as None, not as a category.
                known = [None if is_missing(value) else value for value in values]
                columns[name] = pandas.Categorical(known, categories=list(self.categories[index]))
            else:
                columns[name] = values if index in self.text else values.astype(self.dtype)
        return pandas.DataFrame(columns)


def inspect(estimator: Any) -> Original:
    """Read which table an estimator takes.

    Raises:
        ExportError: it takes no table, or is not fitted.
    """
    kind = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except NotFittedError as exc:
        raise ExportError(f"{kind}: it is not fitted; next: call fit before you save it") from exc
    first = estimator
    if hasattr(estimator, "steps"):  # the first step of a pipeline may be None
        first = next(step for _, step in estimator.steps if step is not None and not isinstance(step, str))
    width = getattr(first, "n_features_in_", None)
    if not isinstance(width, int | np.integer):
        raise ExportError(
            f"{kind}: {type(first).__name__} has no number of columns (n_features_in_), as steps that take texts or "
            "images, or code of your own; expected steps of scikit-learn that take a table"
        )
    kinds = str(getattr(getattr(estimator, "_label_binarizer", None), "y_type_", ""))
    if getattr(estimator, "multilabel_", False) or kinds.startswith("multilabel"):
        raise ExportError(f"{kind}: got several labels for each row, expected one class")
    named = getattr(estimator, "feature_names_in_", None)
    categories: dict[int, list[Any]] = {}
    if boosters.is_xgboost(estimator):
        categories = boosters.of_wrapper(estimator).categories
    text = text_columns(estimator, range(int(width)))
    return Original(
        estimator=estimator,
        width=int(width),
        names=None if named is None else [str(name) for name in named],
        text=frozenset(text | {column for column, names in categories.items() if isinstance(names[0], str)}),
        categories=categories,
        dtype=np.float32 if scales_in_fp32(estimator) else np.float64,
    )


def scales_in_fp32(estimator: Any) -> bool:
    """Whether the first step was fitted on FP32 (`mean_` is FP32), so FP32 rows are not widened to FP64."""
    steps = getattr(estimator, "steps", None)
    mean = getattr(steps[0][1], "mean_", None) if steps else None
    return mean is not None and mean.dtype == np.float32


def text_columns(step: Any, columns: Sequence[int]) -> set[int]:
    """The columns in which a fitted step takes strings."""
    inner = next((getattr(step, name) for name in _WRAPPED if getattr(step, name, None) is not None), None)
    if inner is not None:
        return text_columns(inner, columns)
    if hasattr(step, "steps"):
        return _first_found((part for _, part in step.steps), columns)
    found: set[int] = set()
    for part, own in _parts(step, columns):
        found |= text_columns(part, own)
    remembered = getattr(step, "categories_", None) or [[value] for value in getattr(step, "statistics_", ())]
    if len(remembered) == len(columns):
        pairs = zip(columns, remembered, strict=True)
        found |= {column for column, values in pairs if any(isinstance(value, str) for value in values)}
    return found


_WRAPPED = ("best_estimator_", "regressor_", "_preprocessor")


def _first_found(steps: Iterable[Any], columns: Sequence[int]) -> set[int]:
    """Columns of strings of a pipeline: only imputers pass columns on to the next step, others make new ones."""
    for step in steps:
        found = text_columns(step, columns)
        if found or not hasattr(step, "statistics_"):
            return found
    return set()


def _parts(step: Any, columns: Sequence[int]) -> list[tuple[Any, list[int]]]:
    """The parts of a ColumnTransformer or a FeatureUnion, and the columns of each."""
    if hasattr(step, "transformers_"):
        names = list(getattr(step, "feature_names_in_", ()))
        chosen = [(part, chosen_indices(own, len(columns), names)) for _, part, own in step.transformers_]
        return [(part, [columns[place] for place in places]) for part, places in chosen]
    return [(part, list(columns)) for _, part in getattr(step, "transformer_list", ())]
