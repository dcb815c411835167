"""Tables with strings, missing values, categories and FP64 columns through the whole stack, in every protocol."""

import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from export.publish.server_client import connect
from stack.announce import example_body
from tests.support.stack import Stack, start_stack
from tests.support.tables import draw_people, export

RNG = np.random.default_rng(1)
FRAME = draw_people(RNG, 300)
FAR = RNG.uniform(1e6 - 3, 1e6 + 3, (300, 2))
HOLES = np.where(RNG.random((300, 2)) < 0.2, np.nan, RNG.normal(size=(300, 2)))

CITIES = FRAME[["city"]].set_axis(["image"], axis=1)


def people() -> Any:
    # A missing city is the most frequent one, where an unknown one is none.
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    parts = [("n", StandardScaler(), ["age", "income (EUR)"]), ("c", filled, ["city"]), ("s", OneHotEncoder(), ["sex"])]
    labels = ((FRAME.age > 50) ^ (FRAME.city == "Köln")).astype(int)
    return make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(FRAME, labels)


ESTIMATORS = {
    "people": people(),
    "far": make_pipeline(MinMaxScaler(), LogisticRegression(C=1e4)).fit(FAR, FAR[:, 0] > FAR[:, 1]),
    "holes": HistGradientBoostingClassifier(max_iter=10).fit(HOLES, np.nan_to_num(HOLES[:, 0]) > 0),
    "boosted": XGBClassifier(n_estimators=5, n_jobs=1).fit(HOLES, np.nan_to_num(HOLES[:, 0]) > 0),
    # A column may have the name that images have elsewhere.
    "labels": make_pipeline(OneHotEncoder(), LogisticRegression()).fit(CITIES, CITIES.image == "Oslo"),
}
ROWS: dict[str, Any] = {"far": FAR[:40], "holes": HOLES[:40], "boosted": HOLES[:40]}
PEOPLE = FRAME[:40].assign(city=["Köln", "Zürich", np.nan, "Roma"] * 10)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that serves the estimators as exported."""
    folder = tmp_path_factory.mktemp("tables")
    for name, estimator in ESTIMATORS.items():
        assert export(folder, "xgboost" if name == "boosted" else "sklearn", estimator, name=name) == 0
    with start_stack(folder / "repository", folder / "log") as stack:
        yield stack


def nulls(rows: Any) -> list[list[Any]]:
    """Rows with null for missing values, as in JSON."""
    frame = pandas.DataFrame(rows)
    kept: list[list[Any]] = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return kept


def probabilities(response: Any) -> NDArray[Any]:
    assert response.is_success, response.text
    return np.array([list(row["probabilities"].values()) for row in response.json()["predictions"]])


def send(library: Any, port: int, name: str, tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Probabilities, by one of Triton's clients."""
    datatypes = {"O": "BYTES", "f": "FP64"}
    inputs = []
    for tensor, array in tensors.items():
        given = library.InferInput(tensor, list(array.shape), datatypes[array.dtype.kind])
        given.set_data_from_numpy(array)
        inputs.append(given)
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        results: NDArray[Any] = client.infer(name, inputs).as_numpy("probabilities")
    return results


@pytest.mark.parametrize("name", ROWS)
def test_numbers_and_missing_values_in_every_protocol(tables: Stack, name: str) -> None:
    rows = ROWS[name]
    expected = ESTIMATORS[name].predict_proba(rows)
    results = {
        "v1": probabilities(tables.http.post(f"/v1/models/{name}:predict", json={"instances": nulls(rows)})),
        "/predict": probabilities(tables.http.post(f"/predict/{name}", json=nulls(rows))),
        "binary": send(tritonclient.http, tables.http_port, name, {"features": rows}),
        "gRPC": send(tritonclient.grpc, tables.grpc_port, name, {"features": rows}),
    }
    tensor = {"name": "features", "datatype": "FP64", "shape": list(rows.shape), "data": nulls(rows)}
    response = tables.http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})
    results["v2"] = np.reshape(response.json()["outputs"][1]["data"], expected.shape)
    for way, got in results.items():
        np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=way)


def columns(frame: pandas.DataFrame) -> dict[str, NDArray[Any]]:
    """Numbers as `[n]`, strings as `[n, 1]`, in another order than the model's."""
    texts = {name: np.array([[value.encode()] for value in frame[name].fillna("")], object) for name in ("sex", "city")}
    return {**texts, **{name: frame[name].to_numpy(float) for name in ("income (EUR)", "age")}}


def test_strings_in_every_protocol(tables: Stack) -> None:
    expected = ESTIMATORS["people"].predict_proba(PEOPLE)
    named = [dict(zip(PEOPLE.columns, row, strict=True)) for row in nulls(PEOPLE)]
    inputs = [
        {"name": name, "datatype": "BYTES" if name in {"city", "sex"} else "FP64", "shape": [len(PEOPLE)],
         "data": [row[name] for row in named]}
        for name in PEOPLE.columns
    ]  # fmt: skip
    response = tables.http.post("/v2/models/people/infer", json={"inputs": inputs})
    assert response.is_success, response.text
    results = {
        "v1": probabilities(tables.http.post("/v1/models/people:predict", json={"instances": nulls(PEOPLE)})),
        "v1 by name": probabilities(tables.http.post("/v1/models/people:predict", json={"instances": named})),
        "/predict": probabilities(tables.http.post("/predict/people", json=named)),
        "v2": np.reshape(response.json()["outputs"][1]["data"], expected.shape),
        "binary": send(tritonclient.http, tables.http_port, "people", columns(PEOPLE)),
        "gRPC": send(tritonclient.grpc, tables.grpc_port, "people", columns(PEOPLE)),
    }
    for way, got in results.items():
        np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=way)


def test_column_named_image_is_no_image(tables: Stack) -> None:
    cities = ["Köln", "Roma"]
    expected = ESTIMATORS["labels"].predict_proba(pandas.DataFrame({"image": cities}))
    named = [{"image": city} for city in cities]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": cities}
    response = tables.http.post("/v2/models/labels/infer", json={"inputs": [tensor]})
    assert response.is_success, response.text
    results = {
        "v1": probabilities(tables.http.post("/v1/models/labels:predict", json={"instances": named})),
        "/predict": probabilities(tables.http.post("/predict/labels", json=named)),
        "v2": np.reshape(response.json()["outputs"][1]["data"], expected.shape),
        "gRPC": send(tritonclient.grpc, tables.grpc_port, "labels", {"image": np.array(cities, object)}),
    }
    for way, got in results.items():
        np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=way)


def test_metadata_says_what_columns_take(tables: Stack) -> None:
    metadata = tables.http.get("/v2/models/people").json()
    assert metadata["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "income (EUR)", "datatype": "FP64", "shape": [-1]},
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "sex", "datatype": "BYTES", "shape": [-1]},
    ]
    parameters = metadata["parameters"]
    assert parameters["features"] == ["age", "income (EUR)", "city", "sex"]
    assert parameters["missing"] == ["city"]
    assert parameters["categories"] == {"sex": ["f", "m"]}


AGE = {"name": "age", "datatype": "FP64", "shape": [1], "data": [30]}
REST = [
    {"name": "income (EUR)", "datatype": "FP64", "shape": [1], "data": [5e4]},
    {"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Oslo"]},
]
SEX = {"name": "sex", "datatype": "BYTES", "shape": [1], "data": ["f"]}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/predict/people", [None, 5e4, "Oslo", "f"], "column 0: got None, expected an FP32 number; this model takes"),
        ("/predict/people", [30, 5e4, "Oslo", "x"], "column 3 (sex): got 'x', expected one of ['f', 'm']"),
        ("/predict/people", [30, 5e4, 7, "f"], "column 2 (city): got 7, expected a string, or null"),
        ("/predict/far", [1e6, None], "column 1: got None, expected an FP32 number; this model takes no missing value"),
        ("/v2/models/people/infer", [AGE | {"data": [None]}, *REST, SEX], "'age': data: got null; this model takes no"),
        ("/v2/models/people/infer", [AGE, *REST, SEX | {"data": [None]}], "'sex': data: got null; this model takes no"),
        ("/v2/models/people/infer", [AGE, *REST, SEX | {"data": ["x"]}], "column sex (sex): got 'x', expected one of"),
        ("/v2/models/people/infer", [AGE, *REST, SEX | {"shape": [2], "data": ["f", "m"]}], "columns of different len"),
        ("/v2/models/people/infer", [AGE, *REST, SEX | {"shape": [1, 1, 1]}], "expected [n] or [n, 1]"),
        ("/v2/models/people/infer", [AGE, *REST], "people takes 'age' FP64 [-1]"),
        (
            "/v2/models/far/infer",
            [{"name": "features", "datatype": "FP64", "shape": [1, 2], "data": [1, None]}],
            "row 0, column 1: got nan, expected an FP32 number; this model takes no missing value there",
        ),
    ],
)  # fmt: skip
def test_value_that_a_column_does_not_take_is_rejected(tables: Stack, path: str, body: Any, says: str) -> None:
    response = tables.http.post(path, json={"inputs": body} if path.startswith("/v2") else body)
    assert response.status_code == 400, response.text
    assert says in response.json()["error"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_publish_sends_a_row_that_the_table_takes(tables: Stack, name: str) -> None:
    with connect(str(tables.http.base_url)) as server:
        assert server is not None
        response = server.try_example(name)
    assert (response.version, response.failed) == ("1", False), response.summary


@pytest.mark.parametrize("name", ESTIMATORS)
def test_stack_suggests_a_row_that_the_table_takes(tables: Stack, name: str) -> None:
    _, content_type, _, row = shlex.split(example_body(tables.http.get(f"/v2/models/{name}").json()))
    headers = dict([content_type.split(": ")])
    response = tables.http.post(f"/predict/{name}", content=row, headers=headers)
    assert response.status_code == 200, response.text


def test_synchroniser_tried_every_model_with_its_golden_input(tables: Stack) -> None:
    models = httpx.get(f"{tables.sync}/status", trust_env=False).json()["models"]
    states = {name: model["versions"]["1"]["state"] for name, model in models.items()}
    assert states == dict.fromkeys(ESTIMATORS, "serving")
