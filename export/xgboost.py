"""XGBoost models to a proven version: one graph with their scaler."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from onnx import ModelProto, helper, numpy_helper
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from export.errors import ExportError, first_line
from export.manifest import Source
from export.pickles import SUFFIXES, unpickle
from export.repository import Version
from export.table import Table, is_xgboost, prove, remembered_features

_CONVERTER_OPSET = 15  # the newest that onnxmltools 1.16 writes


def read(path: Path, *, scaler: Path | None, allowed: bool) -> tuple[Any, StandardScaler | None]:
    """An XGBoost model and its scaler, from XGBoost's own file or from pickles.

    Raises:
        ExportError: a file is something else, or a pickle that the user did not allow.
    """
    model = unpickle(path, allowed=allowed) if path.suffix in SUFFIXES else _load_native(path)
    scaling = None if scaler is None else unpickle(scaler, allowed=allowed)
    if isinstance(model, Pipeline):
        if scaling is not None or len(model.steps) != 2:
            steps = [type(step).__name__ for _, step in model.steps]
            raise ExportError(f"{path}: got a pipeline of {steps}, expected a StandardScaler and an XGBoost model")
        scaling, model = model[0], model[1]
    if not is_xgboost(model):
        raise ExportError(f"{path}: got {type(model).__name__}, expected XGBClassifier or XGBRegressor")
    if scaling is not None and not isinstance(scaling, StandardScaler):
        raise ExportError(f"{scaler or path}: got {type(scaling).__name__} as the scaler, expected StandardScaler")
    return model, scaling


def prepare(model: Any, scaler: StandardScaler | None, *, table: Table, source: Source) -> Version:
    """Bring an XGBoost model, with its scaler in the same graph, into the form that is served, and prove it.

    Args:
        model: `XGBClassifier` or `XGBRegressor`, fitted.
        scaler: what its rows went through before, or None.
        table: names.
        source: for the manifest.

    Raises:
        ExportError: it cannot be converted, or differs from its source.
    """
    columns = int(model.n_features_in_)
    if scaler is not None and int(scaler.n_features_in_) != columns:
        raise ExportError(f"scaler: got {scaler.n_features_in_} columns, expected {columns}, those of the model")
    graph = _convert(model, columns=columns)
    estimator = model
    if scaler is not None:
        _scale_first(graph, scaler)
        estimator = Pipeline([("scaler", scaler), ("model", model)])
    remembered = scaler if scaler is not None else model
    named = Table(table.name, table.features or remembered_features(remembered), table.classes)
    return prove(graph, estimator, named, columns=columns, scaler=scaler, source=source)


def _load_native(path: Path) -> xgboost.XGBModel:
    """XGBoost's own JSON or UBJSON."""
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    try:
        objective = json.loads(xgboost.Booster(model_file=path).save_config())["learner"]["objective"]["name"]
        regression = not objective.startswith(("binary:", "multi:"))
        model = xgboost.XGBRegressor() if regression else xgboost.XGBClassifier()
        model.load_model(path)
    except (xgboost.core.XGBoostError, ValueError, TypeError, KeyError) as exc:
        words = f"got no XGBoost model ({first_line(exc)}): a pickle has to end in .pkl or .joblib"
        raise ExportError(f"{path}: {words}") from exc
    return model


def _convert(model: xgboost.XGBModel, *, columns: int) -> ModelProto:
    # The converter wants columns called f0, f1, ...; the names go into config.pbtxt.
    booster = model.get_booster()
    names, booster.feature_names = booster.feature_names, None
    try:
        graph: ModelProto = convert_xgboost(
            model, initial_types=[("features", FloatTensorType([None, columns]))], target_opset=_CONVERTER_OPSET
        )
    except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError) as exc:
        raise ExportError(f"{type(model).__name__}: onnxmltools does not convert it: {first_line(exc)}") from exc
    finally:
        booster.feature_names = names
    return graph


def _scale_first(graph: ModelProto, scaler: StandardScaler) -> None:
    """Subtract and divide in FP32, as scikit-learn 1.9 does with FP32 rows.

    The Scaler operator multiplies by an inverse: the last bit may then differ, and a row that lies on a threshold of a
    tree (XGBoost puts them on values of the training data) goes another way.
    """
    source, nodes = "features", []
    for operator, value in (("Sub", scaler.mean_), ("Div", scaler.scale_)):
        if value is not None:
            constant, target = f"scaler/{operator.lower()}/value", f"scaler/{operator.lower()}"
            graph.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), constant))
            nodes.append(helper.make_node(operator, [source, constant], [target]))
            source = target
    for node in graph.graph.node:
        node.input[:] = [source if name == "features" else name for name in node.input]
    body = [*nodes, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(body)
