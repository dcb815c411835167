"""scikit-learn classifiers, regressors and pipelines to a proven version."""

import warnings
from typing import Any

from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier, is_regressor
from sklearn.pipeline import Pipeline

from export.errors import ExportError, first_line
from export.manifest import Source
from export.repository import Version
from export.table import OPSETS, Table, is_xgboost, prove


def prepare(estimator: Any, table: Table, *, source: Source) -> Version:
    """Bring a scikit-learn classifier, regressor or pipeline into the form that is served, and prove it.

    Raises:
        ExportError: it is something else, is not fitted, has no probabilities, or no converter.
    """
    columns = _check_estimator(estimator)
    graph = convert(estimator, columns=columns, classifier=is_classifier(estimator))
    scaler = estimator[0] if isinstance(estimator, Pipeline) else None
    return prove(graph, estimator, table, columns=columns, scaler=scaler, source=source)


def convert(estimator: Any, *, columns: int, classifier: bool) -> ModelProto:
    """ONNX graph `features` FP32 `(batch, columns)` -> `probabilities` or `values`.

    Raises:
        ExportError: skl2onnx has no converter for a part of it.
    """
    options = {"zipmap": False} if classifier else None
    try:
        with warnings.catch_warnings():
            # skl2onnx 1.20 reads attributes that scikit-learn 1.9 deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            graph: ModelProto = to_onnx(
                estimator,
                initial_types=[("features", FloatTensorType([None, columns]))],
                options=options,
                target_opset=OPSETS,
            )
    except (RuntimeError, NotImplementedError, ValueError, TypeError, NameError) as exc:
        kind = type(estimator).__name__
        raise ExportError(f"{kind}: skl2onnx does not convert it: {first_line(exc)}") from exc
    return graph


def _check_estimator(estimator: Any) -> int:
    kind = type(estimator).__name__
    parts = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    if any(is_xgboost(part) for part in parts):
        raise ExportError(f"{kind}: it holds an XGBoost model: use `python -m export xgboost`")
    if not hasattr(estimator, "fit") or not (is_classifier(estimator) or is_regressor(estimator)):
        raise ExportError(f"got {kind}, expected a fitted scikit-learn classifier, regressor or a pipeline of one")
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise ExportError(
            f"{kind}: got no predict_proba, expected probabilities: fit it with probability estimates, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV"
        )
    columns = getattr(estimator, "n_features_in_", None)
    if columns is None:
        raise ExportError(f"{kind}: it is not fitted: call fit before you save it")
    return int(columns)
