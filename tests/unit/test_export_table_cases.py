"""The tables of ../shared/cases: files of users, compared with what the program that made each predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import xgboost

from export.__main__ import main
from tests.support.stack import ROOT
from tests.support.tables import read_served

CASES = ROOT.parent / "shared" / "cases" / "tables"
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(400, 4))
HOLES = np.where(RNG.random(NORMAL.shape) < 0.2, np.nan, NORMAL)
CODED = np.column_stack([RNG.uniform(18, 90, 400), RNG.uniform(1e4, 9e4, 400), RNG.integers(0, 4, 400)])
FIRST_CODED = np.column_stack([RNG.integers(0, 4, 400), NORMAL[:, :2]])
PEOPLE = pandas.DataFrame({
    "age": RNG.uniform(18, 90, 400),
    "income (EUR)": RNG.uniform(1e4, 9e4, 400),
    "city": RNG.choice(["Köln", "Oslo", "Roma", "Bern"], 400),
})  # fmt: skip


def run(folder: Path, name: str) -> int:
    if not CASES.is_dir():
        pytest.skip("../shared/cases is absent: files that are no part of the project")
    part = "sklearn" if name.startswith(("sk-", "vac-")) else "xgboost"
    return main([part, "made", str(CASES / name), "--allow-unpickling", "--repository", str(folder)])


def near(estimator: Any) -> Any:
    """Rows where its scaler was fitted."""
    scaler = estimator[0]
    if hasattr(scaler, "data_min_"):
        return RNG.uniform(scaler.data_min_, scaler.data_max_, (400, len(scaler.data_min_)))
    return scaler.mean_ + scaler.scale_ * RNG.normal(size=(400, len(scaler.mean_)))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("vac-v-minmax-1e6.joblib", near),
        ("sk-epoch-logit.joblib", near),
        ("sk-onehot-err.joblib", CODED),
        ("sk-onehot-int.joblib", FIRST_CODED),
        ("sk-ordinal.joblib", CODED),
        ("sk-imputer.joblib", HOLES),
        ("sk-hgb-nan.joblib", HOLES),
        ("sk-numct.joblib", PEOPLE[["age", "income (EUR)"]]),
        ("sk-mixed.joblib", PEOPLE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_export_of_a_case_predicts_as_scikit_learn(tmp_path: Path, name: str, rows: Any) -> None:
    assert run(tmp_path, name) == 0
    estimator = joblib.load(CASES / name)
    rows = rows(estimator) if callable(rows) else rows
    expected = estimator.predict_proba(rows)
    np.testing.assert_allclose(read_served(tmp_path).infer(rows), expected, atol=1e-6)
    assert len(set(expected.argmax(axis=1))) > 1


@pytest.mark.parametrize(
    ("name", "rows", "types"),
    [
        ("xgb-cat.json", FIRST_CODED, ["c", "q", "q"]),
        ("xgb-nan.json", HOLES, None),
        ("xgb-dart.json", NORMAL, None),
        ("bst-logistic.joblib", NORMAL, None),
        ("bst-reg-logistic.json", NORMAL, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_export_of_a_case_predicts_as_xgboost(
    tmp_path: Path, name: str, rows: Any, types: Sequence[str] | None
) -> None:
    assert run(tmp_path, name) == 0
    path = CASES / name
    booster = joblib.load(path) if path.suffix == ".joblib" else xgboost.Booster(model_file=path)
    served = read_served(tmp_path)
    expected = booster.predict(xgboost.DMatrix(rows, feature_types=types, enable_categorical=True))
    np.testing.assert_allclose(served.infer(rows)[:, -1], expected, rtol=2e-6, atol=2e-6)


def test_rounds_after_the_best_one_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "xgb-early.json") == 0
    booster = xgboost.Booster(model_file=CASES / "xgb-early.json")
    rounds, best = booster.num_boosted_rounds(), booster.best_iteration + 1
    assert best < rounds
    output = " ".join(capsys.readouterr().out.split())
    assert f"got {rounds} rounds of trees, the best is number {best}" in output
    rows = np.random.default_rng(1).normal(size=(200, 6))
    expected = booster.predict(xgboost.DMatrix(rows), iteration_range=(0, best))
    np.testing.assert_allclose(read_served(tmp_path).infer(rows)[:, 1], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bst-multi-softmax.json", "objective multi:softmax: its output is not a probability, expected multi:softprob"),
        ("sk-pipe.joblib", "made by scikit-learn 1.2.2, here is"),
    ],
)
def test_rejection_of_a_case_is_one_line_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert run(tmp_path, name) == 1
    output = capsys.readouterr().err
    assert message in output
    assert output.count("next: ") <= 1
    assert output.count("\n") == 1
