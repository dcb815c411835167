"""XGBoost's models of every kind: the graph predicts what XGBoost predicts."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures

from export.__main__ import main
from tests.support.tables import Served, export, exported, read_served

RNG = np.random.default_rng(3)
ROWS = RNG.normal(size=(300, 4)).round(2)
HOLES = np.where(RNG.random(ROWS.shape) < 0.1, np.nan, ROWS)
CODES = np.column_stack([RNG.integers(0, 12, 300), ROWS[:, 1:]])
LABELS = (ROWS @ [1, 2, -1, 0.5] + RNG.normal(size=300) > 0).astype(int)
BY_CODE = (np.isin(CODES[:, 0], [1, 3, 7, 11]) ^ (CODES[:, 1] > 0.5)).astype(int)
AMOUNTS = np.abs(ROWS @ [1, 2, 3, 4.0]) + 0.1
SMALL: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}
# Rows to predict: those of the training and others.
MORE_ROWS = np.vstack([ROWS, np.random.default_rng(4).normal(size=(200, 4))])


def check(served: Served, model: Any, rows: Any) -> None:
    expected = model.predict_proba(rows) if served.model.names else model.predict(rows).reshape(-1, 1)
    np.testing.assert_allclose(served.infer(rows), expected, rtol=2e-6, atol=2e-6)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(**SMALL),
        xgboost.XGBClassifier(booster="dart", rate_drop=0.3, **SMALL),
        xgboost.XGBClassifier(booster="gblinear", n_estimators=8),
        xgboost.XGBRFClassifier(**SMALL),
        xgboost.XGBClassifier(num_parallel_tree=3, **SMALL),
        make_pipeline(MinMaxScaler(), xgboost.XGBClassifier(**SMALL)),
        make_pipeline(PolynomialFeatures(), MinMaxScaler(), xgboost.XGBClassifier(**SMALL)),
    ],
    ids=["trees", "dart", "linear", "forest", "parallel trees", "scaled", "polynomial"],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS + (ROWS[:, 0] > 1)], ids=["2 classes", "3 classes"])
def test_classifier(tmp_path: Path, model: Any, labels: Any) -> None:
    model.fit(ROWS, labels)
    check(exported(tmp_path, "xgboost", model), model, MORE_ROWS)


def test_base_score_of_two_classes(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(base_score=0.9, **SMALL).fit(ROWS, LABELS)
    check(exported(tmp_path, "xgboost", model), model, MORE_ROWS)


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(objective="reg:logistic", **SMALL),
        xgboost.XGBRegressor(objective="binary:logistic", **SMALL),
    ],
    ids=["classifier", "regressor"],
)
def test_class_of_the_model_decides_the_output(tmp_path: Path, model: Any) -> None:
    model.fit(ROWS, LABELS)
    check(exported(tmp_path, "xgboost", model), model, MORE_ROWS)


def test_several_labels_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = xgboost.XGBClassifier(**SMALL).fit(ROWS, np.column_stack([LABELS, 1 - LABELS]))
    assert export(tmp_path, "xgboost", model) == 1
    assert "XGBClassifier: got several labels for each row, expected one class" in capsys.readouterr().err


@pytest.mark.parametrize(
    "objective",
    [
        "reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "count:poisson",
        "reg:gamma", "reg:tweedie", "survival:cox", "reg:logistic",
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "ubj", "joblib"])
def test_regressor(tmp_path: Path, objective: str, suffix: str) -> None:
    targets = LABELS if objective == "reg:logistic" else AMOUNTS
    model = xgboost.XGBRegressor(objective=objective, **SMALL).fit(ROWS, targets)
    path = tmp_path / f"model.{suffix}"
    if suffix == "joblib":
        joblib.dump(model.get_booster(), path)  # a bare Booster, as xgboost.train gives it
    else:
        model.save_model(path)
    assert main(["xgboost", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path)]) == 0
    check(read_served(tmp_path), model, MORE_ROWS)


def test_ranker(tmp_path: Path) -> None:
    model = xgboost.XGBRanker(**SMALL).fit(ROWS, LABELS, group=[150, 150])
    check(exported(tmp_path, "xgboost", model), model, MORE_ROWS)


@pytest.mark.parametrize("missing", [np.nan, -999.0])
def test_missing_values(tmp_path: Path, missing: float) -> None:
    rows = np.where(np.isnan(HOLES), missing, HOLES)
    model = xgboost.XGBClassifier(missing=missing, **SMALL).fit(rows, LABELS)
    served = exported(tmp_path, "xgboost", model)
    assert served.model.missing == set(served.model.features)
    check(served, model, rows)
    nulls = [[None if np.isnan(value) else value for value in row] for row in HOLES]
    np.testing.assert_allclose(served.infer(nulls), model.predict_proba(HOLES), atol=2e-6)


@pytest.mark.parametrize("onehot", [1, 100], ids=["sets", "one against the rest"])
def test_codes_of_categories(tmp_path: Path, onehot: int) -> None:
    types = ["c", "q", "q", "q"]
    model = xgboost.XGBClassifier(enable_categorical=True, feature_types=types, max_cat_to_onehot=onehot, **SMALL)
    model.fit(CODES, BY_CODE)
    served = exported(tmp_path, "xgboost", model)
    strange = [[code, 0.4, 0, 0] for code in (0, 3, 11, 12, 500, 2**24, 2**25, -1, 3.5)]
    check(served, model, np.vstack([CODES, np.array(strange, float)]))


@pytest.mark.parametrize("onehot", [1, 100], ids=["sets", "one against the rest"])
def test_names_of_categories_of_a_data_frame(tmp_path: Path, onehot: int) -> None:
    frame = pandas.DataFrame({
        "city": pandas.Categorical(RNG.choice(["Bonn", "Ulm", "Essen", "Kiel"], 300)),
        "size": ROWS[:, 0],
        "floors": pandas.Categorical(RNG.choice([10, 20, 35], 300)),
    })  # fmt: skip
    labels = frame.city.isin(["Bonn", "Kiel"]) ^ (frame["size"] > 0) ^ (frame.floors == 20)
    frame.loc[::9, "city"] = None
    model = xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=onehot, **SMALL).fit(frame, labels)
    served = exported(tmp_path, "xgboost", model)
    assert [tensor.datatype for tensor in served.model.inputs] == ["BYTES", "FP32", "FP32"]
    assert served.model.categories == {"city": {"Bonn", "Ulm", "Essen", "Kiel"}, "floors": {10, 20, 35}}
    check(served, model, frame)


def test_rounds_after_the_best_one_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = xgboost.XGBClassifier(n_estimators=60, max_depth=6, early_stopping_rounds=3, n_jobs=1)
    model.fit(ROWS[:150], LABELS[:150], eval_set=[(ROWS[150:], LABELS[150:])], verbose=False)
    model.save_model(tmp_path / "model.json")
    total, best = model.get_booster().num_boosted_rounds(), model.best_iteration + 1
    assert best < total
    assert main(["xgboost", "made", str(tmp_path / "model.json"), "--repository", str(tmp_path)]) == 0
    assert f"got {total} rounds of trees, the best is number {best}" in " ".join(capsys.readouterr().out.split())
    check(read_served(tmp_path), model, MORE_ROWS)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (xgboost.XGBClassifier(objective="binary:hinge", **SMALL), "fit it with binary:logistic"),
        (xgboost.XGBClassifier(objective="binary:logitraw", **SMALL), "fit it with binary:logistic"),
        (xgboost.XGBRegressor(objective="reg:quantileerror", quantile_alpha=[0.1, 0.5], **SMALL), "several outputs"),
    ],
)
def test_model_without_one_output_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Any, message: str
) -> None:
    assert export(tmp_path, "xgboost", model.fit(ROWS, LABELS)) == 1
    assert message in capsys.readouterr().err


def test_softmax_is_distinguished_from_softprob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = LABELS + (ROWS[:, 0] > 1)
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(ROWS, labels), 3)
    booster.save_model(tmp_path / "model.json")
    assert main(["xgboost", "made", str(tmp_path / "model.json"), "--repository", str(tmp_path / "r")]) == 1
    assert "objective multi:softmax" in (output := capsys.readouterr().err)
    assert "fit it with multi:softprob" in output


def test_names_of_categories_beyond_ascii_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pandas.DataFrame({"city": pandas.Categorical(RNG.choice(["Köln", "Ulm"], 300)), "size": ROWS[:, 0]})
    model = xgboost.XGBClassifier(enable_categorical=True, **SMALL).fit(frame, LABELS)
    assert export(tmp_path, "xgboost", model) == 1
    assert "beyond ASCII" in capsys.readouterr().err
