"""Categories, strings and missing values: the graph predicts what scikit-learn predicts; other values are rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from tests.support.tables import draw_people, export, exported
from transformer.errors import InvalidRequest

RNG = np.random.default_rng(5)
FRAME = draw_people(RNG, 400)
LABELS = ((FRAME.age > 50) ^ (FRAME.city == "Köln") ^ (FRAME.sex == "m")).astype(int)
HOLES = FRAME.copy()
HOLES.loc[::7, "city"], HOLES.loc[::5, "age"] = np.nan, np.nan
NUMBERS = np.column_stack([RNG.normal(size=(400, 2)), RNG.integers(0, 5, 400)])
ODD = (np.isin(NUMBERS[:, 2], [1, 3]) ^ (NUMBERS[:, 0] > 0)).astype(int)
BINS = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")

Made = Callable[[], Any]


def columns(text: Any, number: Any = "passthrough") -> ColumnTransformer:
    return ColumnTransformer([("t", text, ["city", "sex"]), ("n", number, ["age", "income (EUR)"])])


def filled(*steps: Any, strategy: str = "most_frequent") -> Any:
    return make_pipeline(SimpleImputer(strategy=strategy), *steps)


FRAMES: dict[str, Made] = {
    "one-hot": lambda: make_pipeline(
        columns(OneHotEncoder(handle_unknown="ignore"), StandardScaler()), LogisticRegression()
    ),
    "infrequent": lambda: make_pipeline(
        columns(OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=150, drop="first"), StandardScaler()),
        LogisticRegression(),
    ),
    "ordinal": lambda: make_pipeline(
        columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)), RandomForestClassifier(10)
    ),
    "target": lambda: make_pipeline(columns(TargetEncoder(), StandardScaler()), LogisticRegression()),
    "histogram": lambda: make_pipeline(
        columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        HistGradientBoostingClassifier(max_iter=10),
    ),
    "imputed": lambda: make_pipeline(
        columns(filled(OneHotEncoder(handle_unknown="ignore")), filled(StandardScaler(), strategy="median")),
        LogisticRegression(),
    ),
    "bins": lambda: make_pipeline(
        columns(
            OneHotEncoder(handle_unknown="ignore"),
            FeatureUnion([("bins", BINS), ("s", StandardScaler())]),
        ),
        LogisticRegression(),
    ),
}


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("name", FRAMES)
def test_strings_of_a_data_frame(tmp_path: Path, name: str) -> None:
    estimator = FRAMES[name]().fit(FRAME, LABELS)
    served = exported(tmp_path, "sklearn", estimator)
    assert {tensor.name: tensor.datatype for tensor in served.model.inputs} == {
        "age": "FP64", "income (EUR)": "FP64", "city": "BYTES", "sex": "BYTES",
    }  # fmt: skip
    strange = FRAME.assign(city=np.where(np.arange(400) % 3, FRAME.city, "Zürich"))
    for frame in (FRAME, strange):
        np.testing.assert_allclose(served.infer(frame), estimator.predict_proba(frame), atol=1e-6)


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_missing_strings_and_numbers_are_what_the_imputer_makes_of_them(tmp_path: Path, strategy: str) -> None:
    text = filled(OneHotEncoder(handle_unknown="ignore"), strategy=strategy)
    estimator = make_pipeline(columns(text, filled(StandardScaler(), strategy="median")), LogisticRegression())
    estimator.fit(HOLES, LABELS)
    served = exported(tmp_path, "sklearn", estimator)
    assert served.model.missing == {"age", "income (EUR)", "city", "sex"}
    np.testing.assert_allclose(served.infer(HOLES), estimator.predict_proba(HOLES), atol=1e-6)


def test_missing_value_is_a_category_where_it_was_one(tmp_path: Path) -> None:
    estimator = make_pipeline(columns(OneHotEncoder()), HistGradientBoostingClassifier(max_iter=10))
    estimator.fit(HOLES, LABELS)
    served = exported(tmp_path, "sklearn", estimator)
    assert served.model.categories == {"city": {"Köln", "Oslo", "Roma"}, "sex": {"f", "m"}}
    assert served.model.missing == {"age", "income (EUR)", "city"}
    np.testing.assert_allclose(served.infer(HOLES), estimator.predict_proba(HOLES), atol=1e-6)
    with pytest.raises(InvalidRequest, match=r"column 3 \(sex\): got None, expected .*; this model takes no missing"):
        served.infer([[30, 5e4, "Oslo", None]])
    with pytest.raises(InvalidRequest, match=r"column 2 \(city\): got 'Ulm', expected one of .*'Roma'\], or null"):
        served.infer([[30, 5e4, "Ulm", "f"]])


@pytest.mark.parametrize("categories", ["from_dtype", ["city", "sex"]])
def test_histogram_with_categories_of_its_own(tmp_path: Path, categories: Any) -> None:
    frame = HOLES.astype({"city": "category", "sex": "category"})
    estimator = HistGradientBoostingClassifier(max_iter=20, categorical_features=categories).fit(frame, LABELS)
    served = exported(tmp_path, "sklearn", estimator)
    np.testing.assert_allclose(served.infer(HOLES), estimator.predict_proba(frame), atol=1e-6)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()], ids=lambda encoder: type(encoder).__name__)
def test_numbers_that_are_categories_take_no_others(tmp_path: Path, encoder: Any) -> None:
    chosen = ColumnTransformer([("c", encoder, [2])], remainder="passthrough")
    estimator = make_pipeline(chosen, RandomForestClassifier(10, random_state=0)).fit(NUMBERS, ODD)
    served = exported(tmp_path, "sklearn", estimator)
    assert served.model.categories == {"f2": {0, 1, 2, 3, 4}}
    np.testing.assert_allclose(served.infer(NUMBERS), estimator.predict_proba(NUMBERS), atol=1e-6)
    for wrong in (99, 1.5, None):
        with pytest.raises(InvalidRequest, match=r"column 2 \(f2\): got .*, expected one of \[0.0, .*, 4.0\]"):
            served.infer([[0, 0, wrong]])


def test_histogram_with_codes_takes_strange_ones_as_scikit_learn_does(tmp_path: Path) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=20, categorical_features=[2]).fit(NUMBERS, ODD)
    served = exported(tmp_path, "sklearn", estimator)
    rows = np.vstack([NUMBERS, [[0.3, 0, code] for code in (7, 250, -1, np.nan, 1.5)]])
    np.testing.assert_allclose(served.infer(rows), estimator.predict_proba(rows), atol=1e-6)


def test_columns_by_name_of_numbers_alone_are_one_input(tmp_path: Path) -> None:
    numbers = FRAME[["age", "income (EUR)"]]
    chosen = ColumnTransformer([("s", StandardScaler(), ["income (EUR)"]), ("p", "passthrough", ["age"])])
    estimator = make_pipeline(chosen, LogisticRegression()).fit(numbers, LABELS)
    served = exported(tmp_path, "sklearn", estimator)
    assert [tensor.name for tensor in served.model.inputs] == ["features"]
    np.testing.assert_allclose(served.infer(numbers), estimator.predict_proba(numbers), atol=1e-6)


def test_encoder_behind_other_steps_is_rejected_where_strange_values_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimator = make_pipeline(BINS, OneHotEncoder(), LogisticRegression()).fit(NUMBERS, ODD)
    assert export(tmp_path, "sklearn", estimator) == 1
    assert "OneHotEncoder: got handle_unknown='error' after other steps" in capsys.readouterr().err


@pytest.mark.parametrize("functions", [{"func": np.log1p, "inverse_func": np.expm1}, {"transformer": StandardScaler()}])
def test_target_comes_back_in_its_own_units(tmp_path: Path, functions: dict[str, Any]) -> None:
    rows = NUMBERS[:, :2]
    estimator = TransformedTargetRegressor(Ridge(), **functions).fit(rows, np.exp(rows[:, 0]))
    np.testing.assert_allclose(
        exported(tmp_path, "sklearn", estimator).infer(rows)[:, 0], estimator.predict(rows), rtol=1e-6, atol=1e-6
    )
