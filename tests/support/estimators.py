"""Fitted estimators. To import this takes seconds (scikit-learn, XGBoost): tests take it by a fixture."""

import pickle
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier, XGBRegressor

IRIS = load_iris()
NAMED = np.array(["setosa", "versicolor", "virginica"])[IRIS.target]
DIABETES = load_diabetes()
BOTH_SEXES = (DIABETES.data[:, 1] > 0).astype(int)


def classifier(estimator: Any, labels: Any = IRIS.target) -> Any:
    """Fitted to iris."""
    return estimator.fit(IRIS.data, labels)


def regressor(estimator: Any) -> Any:
    """Fitted to diabetes."""
    return estimator.fit(DIABETES.data, DIABETES.target)


def logistic() -> Any:
    """The smallest classifier of iris."""
    return classifier(LogisticRegression(max_iter=500))


GOOD = {
    "scaled logistic": lambda: classifier(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), NAMED),
    "forest": lambda: classifier(RandomForestClassifier(20, random_state=0)),
    "calibrated": lambda: classifier(CalibratedClassifierCV(LinearSVC())),
    "regressing forest": lambda: regressor(RandomForestRegressor(20, random_state=0)),
    "scaled ridge": lambda: regressor(make_pipeline(StandardScaler(), Ridge())),
}
BAD = {
    "without probabilities": lambda: classifier(SVC()),
    "transformer": lambda: PCA(2).fit(IRIS.data),
    "not fitted": LogisticRegression,
    "no estimator": lambda: {"no": "estimator"},
    "function inside": lambda: classifier(
        make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500))
    ),
    "two outputs": lambda: LinearRegression().fit(DIABETES.data, np.stack([DIABETES.target] * 2, axis=1)),
    "of XGBoost": lambda: classifier(XGBClassifier(n_estimators=2)),
}


def small_forest(labels: Any, rows: Any) -> Any:
    """Of XGBoost, ten trees."""
    return XGBClassifier(n_estimators=10, n_jobs=1, random_state=0).fit(rows, labels)


def small_regressor() -> Any:
    """Of XGBoost, ten trees, on diabetes."""
    return XGBRegressor(n_estimators=10, n_jobs=1, random_state=0).fit(DIABETES.data, DIABETES.target)


def other_scaler() -> bytes:
    """A pickled pipeline with a scaler that is not understood."""
    return pickle.dumps(classifier(make_pipeline(MinMaxScaler(), XGBClassifier(n_estimators=2))))
