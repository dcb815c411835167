"""scikit-learn and XGBoost estimators through the command line, in this process."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier, XGBRegressor

from export.__main__ import main
from export.config import parse
from export.runtime import Session
from transformer.model import Model, describe

IRIS = load_iris()
NAMED = np.array(["setosa", "versicolor", "virginica"])[IRIS.target]
DIABETES = load_diabetes()
BOTH_SEXES = (DIABETES.data[:, 1] > 0).astype(int)


def classifier(estimator: Any, labels: Any = IRIS.target) -> Any:
    return estimator.fit(IRIS.data, labels)


def regressor(estimator: Any) -> Any:
    return estimator.fit(DIABETES.data, DIABETES.target)


def served(repository: Path) -> tuple[Model, Session]:
    folder = repository / "made" / "1"
    config = parse((folder / "config.pbtxt").read_text(encoding="utf-8"))
    return describe(config, version="1"), Session(folder / "model.onnx", name="made")


@pytest.mark.parametrize(
    "make",
    [
        lambda: classifier(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), NAMED),
        lambda: classifier(RandomForestClassifier(20, random_state=0)),
        lambda: classifier(CalibratedClassifierCV(LinearSVC())),
        lambda: regressor(RandomForestRegressor(20, random_state=0)),
        lambda: regressor(make_pipeline(StandardScaler(), Ridge())),
    ],
)
@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_sklearn_estimator_is_served_as_it_predicts(tmp_path: Path, make: Callable[[], Any], suffix: str) -> None:
    estimator = make()
    path = tmp_path / f"estimator{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(estimator))
    else:
        joblib.dump(estimator, path)
    repository = tmp_path / "repository"
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(repository)]) == 0
    model, session = served(repository)
    rows = (IRIS if hasattr(estimator, "classes_") else DIABETES).data.astype(np.float32)
    if hasattr(estimator, "classes_"):
        assert list(model.names.values()) == [str(name) for name in estimator.classes_]
        expected = estimator.predict_proba(rows)
    else:
        assert not model.names
        expected = estimator.predict(rows).reshape(-1, 1)
    output = session.infer(rows)[model.outputs[0].name]
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_columns_and_classes_get_the_names_that_the_user_says(tmp_path: Path) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(classifier(LogisticRegression(max_iter=500))))
    names = ["--features", "a", "b", "c", "d", "--classes", "x", "y", "z"]
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path), *names]) == 0
    model, _ = served(tmp_path)
    assert model.features == ("a", "b", "c", "d")
    assert model.names == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize("form", ["json", "ubj", "pickle", "pipeline", "scaler"])
@pytest.mark.parametrize("labels", [IRIS.target, IRIS.target > 0])
def test_xgboost_classifier_is_served_as_it_predicts(tmp_path: Path, form: str, labels: Any) -> None:
    rows = IRIS.data.astype(np.float32)
    scaler = StandardScaler().fit(rows)
    scaled = form in {"pipeline", "scaler"}
    model = XGBClassifier(n_estimators=10, n_jobs=1, random_state=0).fit(
        scaler.transform(rows) if scaled else rows, labels
    )
    path, more = tmp_path / f"model.{form}", []
    match form:
        case "json" | "ubj":
            model.save_model(path)
        case "pickle":
            path.write_bytes(pickle.dumps(model))
        case "pipeline":
            path = tmp_path / "pipeline.joblib"
            joblib.dump(make_pipeline(scaler, model), path)
        case "scaler":
            path = tmp_path / "model.json"
            model.save_model(path)
            joblib.dump(scaler, tmp_path / "scaler.joblib")
            more = ["--scaler", str(tmp_path / "scaler.joblib")]
    if path.suffix not in {".json", ".ubj"} or more:
        more.append("--allow-unpickling")
    assert main(["xgboost", "made", str(path), "--repository", str(tmp_path), *more]) == 0
    _, session = served(tmp_path)
    expected = model.predict_proba(scaler.transform(rows) if scaled else rows)
    # The rows it was trained on lie on the thresholds of its trees: one wrong last bit shows here.
    np.testing.assert_allclose(session.infer(rows)["probabilities"], expected, atol=1e-5)


def test_xgboost_regressor_is_served_as_it_predicts(tmp_path: Path) -> None:
    model = XGBRegressor(n_estimators=10, n_jobs=1, random_state=0).fit(DIABETES.data, DIABETES.target)
    model.save_model(tmp_path / "model.ubj")
    assert main(["xgboost", "made", str(tmp_path / "model.ubj"), "--repository", str(tmp_path)]) == 0
    described, session = served(tmp_path)
    assert (described.outputs[0].name, described.names) == ("values", {})
    rows = DIABETES.data.astype(np.float32)
    np.testing.assert_allclose(session.infer(rows)["values"][:, 0], model.predict(rows), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier(SVC()), "SVC: got no predict_proba"),
        (lambda: PCA(2).fit(IRIS.data), "got PCA, expected a fitted scikit-learn classifier"),
        (LogisticRegression, "LogisticRegression: it is not fitted"),
        (lambda: {"no": "estimator"}, "got dict, expected"),
        (
            lambda: classifier(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500))),
            "skl2onnx does not convert it: FunctionTransformer",
        ),
        (
            lambda: LinearRegression().fit(DIABETES.data, np.stack([DIABETES.target] * 2, axis=1)),
            "LinearRegression: got several outputs for each row",
        ),
        (lambda: classifier(XGBClassifier(n_estimators=2)), "use `python -m export xgboost`"),
    ],
)
def test_estimator_that_cannot_be_served_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[], Any], message: str
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(make()))
    repository = tmp_path / "repository"
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(repository)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not repository.exists()


@pytest.mark.parametrize(
    ("part", "made", "converter"),
    [
        ("sklearn", LogisticRegression(max_iter=500), "export.sklearn.to_onnx"),
        ("xgboost", XGBClassifier(n_estimators=2), "export.xgboost.convert_xgboost"),
    ],
)
def test_converter_that_gives_no_reason_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    made: Any,
    converter: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(classifier(made)))
    monkeypatch.setattr(converter, fail)
    assert main([part, "made", str(path), "--allow-unpickling", "--repository", str(tmp_path / "repository")]) == 1
    assert "does not convert it: NotImplementedError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "a", "b"], "--features: got 2 names (a, b), expected 4"),
        (["--features", "a", "a", "b", "c"], "--features: got 4 names"),
        (["--classes", "a", "b"], "--classes: got 2 names (a, b), expected 3"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(classifier(LogisticRegression(max_iter=500))))
    common = ["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path / "repository")]
    assert main([*common, *arguments]) == 1
    assert message in capsys.readouterr().err


class Trap:
    """Unpickling this leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("command", ["sklearn", "xgboost"])
def test_nothing_is_unpickled_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path, mark = tmp_path / "trap.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Trap(mark)))
    arguments = [command, "made", str(path), "--repository", str(tmp_path / "repository")]
    assert main(arguments) == 1
    assert not mark.exists()
    assert "unpickling runs whatever code the file holds" in capsys.readouterr().err
    assert main([*arguments, "--allow-unpickling"]) == 1, "it is no estimator"
    assert mark.exists(), "the trap works"


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(classifier(LogisticRegression(max_iter=500)))[:-40]])
def test_file_that_is_no_pickle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(content)
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path)]) == 1
    assert "got no pickled or joblib estimator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", b"{}", "got no XGBoost model"),
        ("model.ubj", b"", "got no XGBoost model"),
        ("model.json", None, "there is no such file"),
        (
            "pipeline.pkl",
            pickle.dumps(classifier(make_pipeline(MinMaxScaler(), XGBClassifier(n_estimators=2)))),
            "got MinMaxScaler as the scaler, expected StandardScaler",
        ),
    ],
)
def test_file_that_is_no_xgboost_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ["xgboost", "made", str(tmp_path / name), "--allow-unpickling", "--repository", str(tmp_path / "r")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ultralytics", "Bad_Name", "weights.onnx"], "model name: got 'Bad_Name'"),
        (["sklearn", "yolo.onnx", "estimator.pkl"], "model name: got 'yolo.onnx'"),
        (["xgboost", "a/b", "model.json"], "model name: got 'a/b'"),
        (["ultralytics", "made", "nowhere/weights.pt"], "nowhere/weights.pt: there is no such file"),
        (["ultralytics", "made", "nowhere/weights.onnx"], "nowhere/weights.onnx: there is no such file"),
    ],
)
def test_wrong_argument_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--repository", str(tmp_path / "repository")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_file_that_is_no_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert main(["ultralytics", "made", str(path), "--repository", str(tmp_path / "repository")]) == 1
    assert "no PyTorch checkpoint" in capsys.readouterr().err
