"""Exports scikit-learn classifiers, regressors and pipelines."""

from typing import Any

from sklearn.base import is_classifier, is_regressor
from sklearn.pipeline import Pipeline

from export.errors import ExportError
from export.sources import tabular
from export.sources.tabular import Table
from export.tables.boosters import is_xgboost
from export.writer.manifest import Source
from export.writer.repository import Version


def prepare(estimator: Any, named: Table, *, source: Source) -> Version:
    """Bring a scikit-learn classifier, regressor or pipeline into the form that is served, and verify it.

    Raises:
        ExportError: it is of another kind, not fitted, without probabilities, or cannot be written or verified.
    """
    _check_estimator(estimator)
    return tabular.prepare(estimator, named, source=source)


def _check_estimator(estimator: Any) -> None:
    kind = type(estimator).__name__
    if is_xgboost(estimator) or (isinstance(estimator, Pipeline) and is_xgboost(estimator.steps[-1][1])):
        raise ExportError(f"{kind}: it holds an XGBoost model: use `python -m export xgboost`")
    if not hasattr(estimator, "fit") or not (is_classifier(estimator) or is_regressor(estimator)):
        raise ExportError(f"got {kind}, expected a fitted scikit-learn classifier, regressor or a pipeline of one")
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise ExportError(
            f"{kind}: got no predict_proba, expected probabilities: fit it with probability estimates, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV"
        )
