"""Reads XGBoost models: its own JSON and UBJSON, and pickles of models and of pipelines that end in one."""

from pathlib import Path
from typing import Any

import xgboost
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from export.errors import ExportError, first_line
from export.sources.pickles import SUFFIXES, unpickle
from export.tables.boosters import as_model, is_xgboost


def read(path: Path, *, scaler: Path | None, allowed: bool) -> Any:
    """An XGBoost model, or a pipeline that ends in one, from XGBoost's own file or from pickles.

    Raises:
        ExportError: a file is of another kind, or a pickle without the user's permission.
    """
    model = unpickle(path, allowed=allowed) if path.suffix in SUFFIXES else _load_native(path)
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    if not is_xgboost(last):
        raise ExportError(
            f"{path}: got {type(last).__name__}, expected a model of XGBoost, or a pipeline that ends in one"
        )
    if isinstance(model, xgboost.Booster):
        model = as_model(model)
    if scaler is None:
        return model
    scaling = unpickle(scaler, allowed=allowed)
    if not isinstance(scaling, StandardScaler):
        raise ExportError(f"{scaler}: got {type(scaling).__name__} as the scaler, expected StandardScaler")
    if isinstance(model, Pipeline):
        raise ExportError(f"{path}: got a pipeline and --scaler {scaler}, expected one of them")
    return scaled(model, scaling)


def scaled(model: xgboost.XGBModel, scaler: StandardScaler) -> Pipeline:
    """A model behind its scaler.

    Raises:
        ExportError: they have different columns.
    """
    if int(scaler.n_features_in_) != int(model.n_features_in_):
        raise ExportError(f"scaler: got {scaler.n_features_in_} columns, expected {model.n_features_in_}, the model's")
    return Pipeline([("scaler", scaler), ("model", model)])


def _load_native(path: Path) -> xgboost.XGBModel:
    """XGBoost's own JSON or UBJSON."""
    if not path.is_file():
        raise ExportError(f"{path}: the file is missing")
    try:
        return as_model(xgboost.Booster(model_file=path))
    except (xgboost.core.XGBoostError, ValueError, TypeError, KeyError) as exc:
        words = f"got no XGBoost model ({first_line(exc)}): a pickle has to end in .pkl or .joblib"
        raise ExportError(f"{path}: {words}") from exc
