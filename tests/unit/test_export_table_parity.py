"""The verification of a table model can fail, and graphs agree with scikit-learn itself on rows near its own."""

import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from export.__main__ import main
from export.proof.session import Session
from export.tables import trees
from tests.support.tables import export, exported, read_served

WINE = load_wine()
NOISE = np.random.default_rng(0)
FAR = NOISE.uniform(1e6 - 3, 1e6 + 3, (400, 2))  # FP32 has sixteen values there
SECONDS = 1.7e9 + NOISE.uniform(0, 900, (400, 1))  # since 1970: FP32 has eight values there


def split(rows: Any) -> Any:
    """Labels by a line through the middle of the rows."""
    return (rows.sum(axis=1) > np.median(rows.sum(axis=1))).astype(int)


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler, RobustScaler])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(50, random_state=0),
        ExtraTreesClassifier(20, random_state=0),
        DecisionTreeClassifier(random_state=0),
        HistGradientBoostingClassifier(max_iter=10, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_scaled_trees_predict_as_scikit_learn_on_their_thresholds(tmp_path: Path, scaler: Any, model: Any) -> None:
    estimator = make_pipeline(scaler(), model).fit(WINE.data, WINE.target)
    served = exported(tmp_path, "sklearn", estimator)
    assert served.model.input.datatype == "FP64"
    np.testing.assert_allclose(served.infer(WINE.data), estimator.predict_proba(WINE.data), atol=1e-6)


@pytest.mark.parametrize("rows", [FAR, SECONDS], ids=["1e6", "seconds"])
@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler, RobustScaler])
def test_columns_far_from_zero_are_scaled_as_scikit_learn_does(tmp_path: Path, scaler: Any, rows: Any) -> None:
    estimator = make_pipeline(scaler(), LogisticRegression(C=1e4, max_iter=10_000)).fit(rows, split(rows))
    outputs = exported(tmp_path, "sklearn", estimator).infer(rows)
    expected = estimator.predict_proba(rows)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert set(expected.argmax(axis=1)) == {0, 1}


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(MinMaxScaler(), LogisticRegression(C=1e4, max_iter=10_000)).fit(FAR, split(FAR)),
        make_pipeline(StandardScaler(), LogisticRegression(C=1e4)).fit(SECONDS, split(SECONDS)),
        make_pipeline(StandardScaler(), Ridge()).fit(SECONDS, SECONDS[:, 0] - 1.7e9),
        make_pipeline(StandardScaler(), RandomForestClassifier(50, random_state=0)).fit(WINE.data, WINE.target),
    ],
    ids=["1e6", "seconds", "regressor", "forest"],
)
def test_graph_that_computes_in_fp32_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, estimator: Any
) -> None:
    monkeypatch.setattr("export.sources.tabular.sees_fp32", lambda _: True)
    assert export(tmp_path, "sklearn", estimator) == 1
    assert re.search(r"differ from the source by .* on \d+ of \d+ rows", capsys.readouterr().err)


def test_tree_whose_threshold_is_one_bit_off_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    move_thresholds(monkeypatch, "of_sklearn", lambda values: np.nextafter(values.astype(np.float32), np.float32(9e9)))
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(np.round(WINE.data), WINE.target)
    assert export(tmp_path, "sklearn", estimator) == 1
    assert "differ from the source" in capsys.readouterr().err


def move_thresholds(monkeypatch: pytest.MonkeyPatch, function: str, move: Callable[[Any], Any]) -> None:
    right = getattr(trees, function)

    def wrong(*arguments: Any, **more: Any) -> Any:
        tree = right(*arguments, **more)
        return replace(tree, threshold=move(tree.threshold))

    monkeypatch.setattr(f"export.tables.predictors.{function}", wrong)


AGES = NOISE.normal(50, 9, 400)
CITIES = NOISE.integers(0, 3, 400)


@pytest.mark.parametrize(
    ("function", "estimator"),
    [
        (
            "of_sklearn",
            make_pipeline(
                ColumnTransformer([("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1, 2])]),
                DecisionTreeRegressor(max_depth=3, random_state=0),
            ).fit(WINE.data[:, :3], WINE.target),
        ),
        (
            "of_histogram",
            HistGradientBoostingRegressor(max_iter=10, categorical_features=[1]).fit(
                np.column_stack([AGES, CITIES]), np.where(CITIES == 1, AGES, -AGES)
            ),
        ),
    ],
    ids=["behind an imputer", "beside categories"],
)
def test_threshold_behind_other_steps_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, function: str, estimator: Any
) -> None:
    assert "notes" not in exported(tmp_path, "sklearn", estimator).parity
    move_thresholds(monkeypatch, function, lambda values: values * (1 + 1e-7))
    assert export(tmp_path, "sklearn", estimator) == 1
    assert "values differ from the source" in capsys.readouterr().err


def wrong_inverse(_rows: Any) -> Any:
    raise KeyError("f3")


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (PolynomialFeatures(), r"PolynomialFeatures: rows at the .* \(it has no inverse\)"),
        (FunctionTransformer(np.sqrt), r"FunctionTransformer: .* \(most values do not come back through its inverse\)"),
        (FunctionTransformer(np.abs, wrong_inverse, check_inverse=False), r"\(its inverse fails: 'f3'\)"),
        (SimpleImputer(add_indicator=True), r"SimpleImputer: .* \(it adds or drops columns\)"),
    ],
    ids=["none", "another function", "fails", "more columns"],
)
def test_step_that_rows_cannot_be_brought_back_through_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: Any, why: str
) -> None:
    rows = np.where(NOISE.random((178, 2)) < 0.1, np.nan, WINE.data[:, :2])
    rows = rows if isinstance(step, SimpleImputer) else WINE.data[:, :2]
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    path = tmp_path / "rows.csv"
    np.savetxt(path, WINE.data[:, :2], delimiter=",")
    for model, more, is_noted in (
        (tree, [], True),
        (tree, ["--rows", str(path)], False),
        (LogisticRegression(), [], False),
    ):
        estimator = make_pipeline(step, StandardScaler(), model).fit(rows, WINE.target)
        notes = exported(tmp_path, "sklearn", estimator, more).parity.get("notes", [])
        outputs = capsys.readouterr().out
        for text in (" ".join(notes), outputs):
            assert bool(re.search(why + ".* next: --rows FILE.csv", text)) == is_noted, text
        shutil.rmtree(tmp_path / "repository")


# --rows

NAMES = ["a", "b"]
TABLE = np.array([[0.5, 10], [1.5, 20], [2.5, 30], [3.5, 40.5]])
PLAIN = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, [0, 0, 1, 1])


def write(folder: Path, text: str, *, encoding: str = "utf-8") -> list[str]:
    path = folder / "rows.csv"
    path.write_text(text, encoding=encoding)
    return ["--features", *NAMES, "--rows", str(path)]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("a,b\n0.5,10\n3.5,40.5\n", "utf-8"),
        ("a,b\n0.5,10\n3.5,40.5\n", "utf-8-sig"),
        ("a;b\r\n0,5;10\r\n3,5;40,5\r\n", "utf-8"),
        ("a\tb\n0.5\t10\n3.5\t40.5\n", "utf-8"),
        ("0.5,10\n3.5,40.5\n", "utf-8"),
        ('id,"b",y,a\nx,10,no,0.5\n\nz,40.5,yes,3.5\n', "utf-8"),
    ],
    ids=["commas", "byte-order mark", "semicolons and decimal commas", "tabs", "no names", "other columns too"],
)
def test_rows_of_a_csv_file_verify_a_model(tmp_path: Path, text: str, encoding: str) -> None:
    served = exported(tmp_path, "sklearn", PLAIN, write(tmp_path, text, encoding=encoding))
    assert served.parity["rows"] == 2
    assert served.parity["rows_from"] == "rows.csv"
    np.testing.assert_allclose(served.infer(TABLE), PLAIN.predict_proba(TABLE), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got no rows"),
        ("a,b\n", "got no rows below the names"),
        ("a,c\n1,2\n", "got columns a, c, expected 2; missing: b"),
        ("a,b\n1,x\n", "row 0, column 'b': got 'x', expected a number"),
        ("a,b\n1,2\n1\n", "row 1: got 1 cells, expected 2"),
        ("a,b\n0.5,10\n0.6,10\n", "the estimator predicts one class only (0) of 2: that verifies nothing"),
        ("a,b\n0.5,\n3.5,40.5\n", "fails on a row of the verification: Input X contains NaN."),
    ],
)
def test_rows_that_verify_nothing_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    close = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3)).fit(TABLE, [0, 0, 1, 1])
    assert export(tmp_path, "sklearn", close, write(tmp_path, text)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


def test_file_of_rows_that_is_absent_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path, "sklearn", PLAIN, ["--rows", str(tmp_path / "nowhere.csv")]) == 1
    assert "nowhere.csv: cannot be read" in capsys.readouterr().err


def test_one_class_at_different_probabilities_is_enough_of_a_users_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.tile(TABLE, (50, 1)), [0] * 199 + [1])
    served = exported(tmp_path, "sklearn", rare, write(tmp_path, "a,b\n0.5,10\n3.5,40.5\n"))
    assert served.parity["classes_seen"] == 1
    assert "the estimator predicts one class only (0), at different probabilities" in capsys.readouterr().out


# Pickles of other versions


def of_version(estimator: Any, version: bytes) -> bytes:
    data = pickle.dumps(estimator, protocol=0)
    assert sklearn.__version__.encode() in data
    return data.replace(sklearn.__version__.encode(), version)


def test_pickle_of_another_version_is_a_warning_where_it_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(of_version(PLAIN, b"1.2.2"))
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path)]) == 0
    assert f"made by scikit-learn 1.2.2, here is {sklearn.__version__}" in capsys.readouterr().out
    assert read_served(tmp_path).parity["probabilities"] < 1e-6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"cstandardscaler", b"cstandardscaler"), ""),
        ((b"sklearn.linear_model._logistic", b"sklearn.linear_model._loss"), "No module named"),
        ((b"scale_", b"skala_"), "its export failed: AttributeError"),
    ],
    ids=["as it is", "module", "attribute"],
)
def test_pickle_of_another_version_that_fails_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[bytes, bytes], reason: str
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(of_version(PLAIN, b"1.2.2").replace(*change))
    status = main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path / "r")])
    outputs = capsys.readouterr()
    assert status == bool(reason)
    if reason:
        assert "made by scikit-learn 1.2.2, here is" in outputs.err
        assert reason in outputs.err
        assert outputs.err.count("\n") == 1


def test_few_rows_of_huge_values_do_not_hide_the_differences_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = NOISE.normal(size=(400, 2))
    counts = NOISE.poisson(np.exp(rows @ [2.0, 1.0]))
    estimator = make_pipeline(StandardScaler(), PoissonRegressor(alpha=1e-3)).fit(rows, counts)
    exported(tmp_path, "sklearn", estimator)

    infer = Session.infer

    def infer_wrongly(session: Session, batch: Any) -> Any:
        return {name: values + np.float32(0.05) for name, values in infer(session, batch).items()}

    monkeypatch.setattr(Session, "infer", infer_wrongly)
    assert export(tmp_path, "sklearn", estimator) == 1
    assert re.search(r"values differ from the source by .* on \d+ of \d+ rows", capsys.readouterr().err)


@pytest.mark.parametrize("solver", ["svd", "lsqr"])
@pytest.mark.parametrize("labels", [WINE.target, WINE.target > 0], ids=["three", "two"])
def test_discriminants_are_served_as_they_predict(tmp_path: Path, labels: Any, solver: str) -> None:
    estimator = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver=solver)).fit(WINE.data, labels)
    outputs = exported(tmp_path, "sklearn", estimator).infer(WINE.data)
    np.testing.assert_allclose(outputs, estimator.predict_proba(WINE.data), atol=1e-6)
