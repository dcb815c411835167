"""Fitted estimators. The import takes seconds (scikit-learn, XGBoost): tests import it in a fixture."""

import pickle
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

IRIS = load_iris()
NAMED = np.array(["setosa", "versicolor", "virginica"])[IRIS.target]
DIABETES = load_diabetes()
BOTH = (IRIS.target > 0).astype(int)


def classifier(estimator: Any, labels: Any = IRIS.target) -> Any:
    """A classifier, fitted to iris."""
    return estimator.fit(IRIS.data, labels)


def regressor(estimator: Any) -> Any:
    """A regressor, fitted to diabetes."""
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
    "function inside": lambda: classifier(make_pipeline(FunctionTransformer(np.tan), LogisticRegression(max_iter=500))),
    "no converter": lambda: regressor(KernelRidge()),
    "two labels": lambda: classifier(OneVsRestClassifier(LogisticRegression()), np.stack([BOTH, 1 - BOTH], axis=1)),
    "two forests": lambda: classifier(RandomForestClassifier(2), np.stack([BOTH, 1 - BOTH], axis=1)),
    "text": lambda: make_pipeline(CountVectorizer(), LogisticRegression()).fit(["a fine day", "no"], [0, 1]),
    # With whole numbers many points are equally far, and the choice among them is arbitrary.
    "ties": lambda: KNeighborsClassifier().fit(np.round(IRIS.data), IRIS.target),
    "constant": lambda: DecisionTreeClassifier(min_samples_split=1000).fit(IRIS.data, 1 - BOTH),
    "one value": lambda: regressor(DecisionTreeRegressor(min_samples_split=1000)),
    "two outputs": lambda: LinearRegression().fit(DIABETES.data, np.stack([DIABETES.target] * 2, axis=1)),
    "of XGBoost": lambda: classifier(XGBClassifier(n_estimators=2)),
}


def small_forest(labels: Any, rows: Any) -> Any:
    """An XGBoost classifier with ten trees."""
    return XGBClassifier(n_estimators=10, n_jobs=1, random_state=0).fit(rows, labels)


def small_regressor() -> Any:
    """An XGBoost regressor with ten trees, fitted to diabetes."""
    return XGBRegressor(n_estimators=10, n_jobs=1, random_state=0).fit(DIABETES.data, DIABETES.target)


def other_scaler() -> bytes:
    """A pickled scaler that --scaler rejects; a pipeline may have it."""
    return pickle.dumps(MinMaxScaler().fit(DIABETES.data))
