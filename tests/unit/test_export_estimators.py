"""Estimators and steps of users, compared with what scikit-learn predicts for the same rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_selection import RFE, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from export.tables.nodes import Nodes
from export.tables.preprocessing import transform
from tests.support.tables import export, exported

WINE = load_wine()
ROWS, LABELS = StandardScaler().fit_transform(WINE.data), WINE.target
LOGISTIC = LogisticRegression()
FITTED: dict[str, Callable[[], Any]] = {
    "weights of columns": lambda: make_pipeline(
        ColumnTransformer(
            [("a", StandardScaler(), [0, 1]), ("b", MinMaxScaler(), [1, 2])],
            remainder="passthrough",
            transformer_weights={"a": 3.0, "remainder": 0.5},
        ),
        LOGISTIC,
    ).fit(ROWS, LABELS),
    "nothing first": lambda: make_pipeline("passthrough", None, StandardScaler(), LOGISTIC).fit(ROWS, LABELS),
    "frozen and calibrated": lambda: CalibratedClassifierCV(
        FrozenEstimator(RandomForestClassifier(5, random_state=0).fit(ROWS, LABELS))
    ).fit(ROWS, LABELS),
    "frozen pipeline, calibrated": lambda: CalibratedClassifierCV(
        FrozenEstimator(make_pipeline(StandardScaler(), LOGISTIC).fit(ROWS, LABELS > 0))
    ).fit(ROWS, LABELS > 0),
    "frozen step and member": lambda: VotingClassifier(
        [
            ("a", make_pipeline(FrozenEstimator(StandardScaler().fit(ROWS)), LOGISTIC)),
            ("b", FrozenEstimator(GaussianNB().fit(ROWS, LABELS))),
        ],
        voting="soft",
    ).fit(ROWS, LABELS),
    "selected": lambda: make_pipeline(RFE(LOGISTIC, n_features_to_select=4), SelectKBest(k=3), LOGISTIC).fit(
        ROWS, LABELS
    ),
    "sparse rows": lambda: SVC(probability=True, random_state=0).fit(csr_matrix(ROWS), LABELS > 0),
}


class Centre(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A step as users write it."""

    def fit(self, rows: Any, _labels: Any = None) -> "Centre":
        self.middle_ = rows.mean(axis=0)
        return self

    def transform(self, rows: Any) -> Any:
        return rows - self.middle_


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.filterwarnings("ignore")
def test_estimators_are_served_as_they_predict(tmp_path: Path, name: str) -> None:
    estimator = FITTED[name]()
    np.testing.assert_allclose(
        exported(tmp_path, "sklearn", estimator).infer(ROWS), estimator.predict_proba(ROWS), atol=1e-6
    )


def test_step_of_the_users_own_is_rejected_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path, "sklearn", make_pipeline(Centre(), LOGISTIC).fit(ROWS, LABELS)) == 1
    output = capsys.readouterr().err
    assert "Pipeline: Centre has no number of columns" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    "chosen", [FixedThresholdClassifier(LOGISTIC, threshold=0.9), TunedThresholdClassifierCV(LOGISTIC)]
)
def test_threshold_of_the_estimators_own_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: Any
) -> None:
    assert export(tmp_path, "sklearn", make_pipeline(StandardScaler(), chosen).fit(ROWS, LABELS > 0)) == 1
    assert f"{type(chosen).__name__}: got a threshold of its own" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_rows_whose_class_is_not_the_most_probable_are_reported(tmp_path: Path) -> None:
    noise = np.random.default_rng(5)
    rows, labels = noise.normal(size=(120, 3)), (noise.random(120) < 0.3).astype(int)
    estimator = SVC(probability=True, random_state=0).fit(rows, labels)
    count = (estimator.predict(rows) != estimator.predict_proba(rows).argmax(axis=1)).sum()
    assert count > 0
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",")
    notes = exported(tmp_path, "sklearn", estimator, ["--rows", str(tmp_path / "rows.csv")]).parity["notes"]
    says = "`predict` of the estimator returns another class than that of its highest"
    assert f"on {count} of 120 rows {says}" in notes[-1]


@pytest.mark.parametrize("names", [np.arange(3000.0), np.array([f"city {n}" for n in range(3000)], object)])
def test_thousands_of_categories_make_no_square_table(names: Any) -> None:
    nodes = Nodes()
    encoder = OneHotEncoder(handle_unknown="ignore").fit(names[:, None])
    columns = transform(nodes, encoder, nodes.frame("rows", 1, text=names.dtype == object, first=0))
    graph = nodes.model({"rows": ("FP64", 1)}, (nodes.join(columns), "coded", 3000))
    assert len(columns) == 3000
    assert graph.ByteSize() < 1e6
