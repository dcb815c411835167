"""scikit-learn and XGBoost estimators through the command line, in this process."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from export.__main__ import main
from export.proof.session import Session
from export.writer.config import read_config
from transformer.tasks import describe
from transformer.tasks.tabular import TABULAR
from transformer.triton.model import Model


@pytest.fixture(scope="session")
def estimators() -> Any:
    """The module of that name: what imports for seconds is not imported to collect these tests."""
    from tests.support import estimators  # noqa: PLC0415

    return estimators


def served(repository: Path) -> tuple[Model, Session]:
    folder = repository / "made" / "1"
    config = read_config(folder / "config.pbtxt")
    return describe(config, version="1"), Session(folder / "model.onnx", name="made")


@pytest.mark.parametrize("name", ["scaled logistic", "forest", "calibrated", "regressing forest", "scaled ridge"])
@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_sklearn_estimator_is_served_as_it_predicts(tmp_path: Path, estimators: Any, name: str, suffix: str) -> None:
    estimator = estimators.GOOD[name]()
    path = tmp_path / f"estimator{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(estimator))
    else:
        joblib.dump(estimator, path)
    repository = tmp_path / "repository"
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(repository)]) == 0
    model, session = served(repository)
    rows = (estimators.IRIS if hasattr(estimator, "classes_") else estimators.DIABETES).data
    if hasattr(estimator, "classes_"):
        assert list(model.names.values()) == [str(label) for label in estimator.classes_]
        expected = estimator.predict_proba(rows)
    else:
        assert not model.names
        expected = estimator.predict(rows).reshape(-1, 1)
    output = session.infer(TABULAR.preprocess(rows, model))[model.outputs[0].name]
    np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6)


def test_columns_and_classes_get_the_names_of_the_options(tmp_path: Path, estimators: Any) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(estimators.logistic()))
    names = ["--features", "a", "b", "c", "d", "--classes", "x", "y", "z"]
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path), *names]) == 0
    model, _ = served(tmp_path)
    assert model.features == ("a", "b", "c", "d")
    assert model.names == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize("form", ["json", "ubj", "pickle", "pipeline", "scaler"])
@pytest.mark.parametrize("classes", [3, 2])
def test_xgboost_classifier_is_served_as_it_predicts(tmp_path: Path, estimators: Any, form: str, classes: int) -> None:
    rows = estimators.IRIS.data.astype(np.float32)
    labels = estimators.IRIS.target if classes == 3 else estimators.IRIS.target > 0
    scaler = estimators.StandardScaler().fit(rows)
    scaled = form in {"pipeline", "scaler"}
    model = estimators.small_forest(labels, scaler.transform(rows) if scaled else rows)
    path, more = tmp_path / f"model.{form}", []
    match form:
        case "json" | "ubj":
            model.save_model(path)
        case "pickle":
            path.write_bytes(pickle.dumps(model))
        case "pipeline":
            path = tmp_path / "pipeline.joblib"
            joblib.dump(estimators.make_pipeline(scaler, model), path)
        case "scaler":
            path = tmp_path / "model.json"
            model.save_model(path)
            joblib.dump(scaler, tmp_path / "scaler.joblib")
            more = ["--scaler", str(tmp_path / "scaler.joblib")]
    if path.suffix not in {".json", ".ubj"} or more:
        more.append("--allow-unpickling")
    assert main(["xgboost", "made", str(path), "--repository", str(tmp_path), *more]) == 0
    described, session = served(tmp_path)
    expected = model.predict_proba(scaler.transform(rows.astype(np.float64)) if scaled else rows)
    # The rows it was trained on lie on the thresholds of its trees: one wrong last bit shows here.
    output = session.infer(TABULAR.preprocess(rows, described))["probabilities"]
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_xgboost_regressor_is_served_as_it_predicts(tmp_path: Path, estimators: Any) -> None:
    model = estimators.small_regressor()
    model.save_model(tmp_path / "model.ubj")
    assert main(["xgboost", "made", str(tmp_path / "model.ubj"), "--repository", str(tmp_path)]) == 0
    described, session = served(tmp_path)
    assert (described.outputs[0].name, described.names) == ("values", {})
    rows = estimators.DIABETES.data.astype(np.float32)
    np.testing.assert_allclose(session.infer(rows)["values"][:, 0], model.predict(rows), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("without probabilities", "SVC: got no predict_proba"),
        ("transformer", "got PCA, expected a fitted scikit-learn classifier"),
        ("not fitted", "LogisticRegression: it is not fitted"),
        ("no estimator", "got dict, expected"),
        ("function inside", "FunctionTransformer: got tan, expected none or one of NumPy's log1p"),
        ("no converter", "KernelRidge: skl2onnx does not convert it: it has no converter for KernelRidge"),
        ("two outputs", "several outputs for each row are not served"),
        ("two labels", "OneVsRestClassifier: got several labels for each row, expected one class"),
        ("two forests", "several outputs for each row are not served"),
        ("text", "CountVectorizer has no number of columns"),
        ("ties", "probabilities differ from the source by"),
        ("constant", "the estimator predicts one class only (0) of 2: that verifies nothing; next: --rows FILE.csv"),
        ("one value", "the estimator predicts one value only: that verifies nothing; next: --rows FILE.csv"),
        ("of XGBoost", "use `python -m export xgboost`"),
    ],
)
def test_estimator_that_cannot_be_served_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], estimators: Any, name: str, message: str
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(estimators.BAD[name]()))
    repository = tmp_path / "repository"
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(repository)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not repository.exists()


@pytest.mark.parametrize(
    ("part", "function", "message"),
    [
        ("sklearn", "export.tables.skl2onnx.to_onnx", "does not convert it: ZeroDivisionError"),
        (
            "xgboost",
            "export.tables.boosters.add_trees",
            "XGBClassifier: its export failed: ZeroDivisionError: ZeroDivisionError; next: --traceback shows where",
        ),
    ],
)
def test_unforeseen_failure_is_reported_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    estimators: Any,
    part: str,
    function: str,
    message: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(estimators.logistic() if part == "sklearn" else estimators.BAD["of XGBoost"]()))
    monkeypatch.setattr(function, fail)
    command = [part, "made", str(path), "--allow-unpickling", "--repository", str(tmp_path / "repository")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert main([*command, "--traceback"]) == 1
    output = capsys.readouterr().err
    assert output.endswith(error)
    assert "in fail\n    raise ZeroDivisionError" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "a", "b"], "--features: got 2 names (a, b), expected 4"),
        (["--features", "a", "a", "b", "c"], "--features: got 4 names"),
        (["--classes", "a", "b"], "--classes: got 2 names (a, b), expected 3"),
    ],
)
def test_names_that_do_not_fit_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], estimators: Any, arguments: list[str], message: str
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(estimators.logistic()))
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
def test_nothing_is_unpickled_without_permission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path, mark = tmp_path / "trap.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Trap(mark)))
    arguments = [command, "made", str(path), "--repository", str(tmp_path / "repository")]
    assert main(arguments) == 1
    assert not mark.exists()
    assert "unpickling runs the code that the file holds" in capsys.readouterr().err
    assert main([*arguments, "--allow-unpickling"]) == 1, "it is no estimator"
    assert mark.exists(), "the trap works"


@pytest.mark.parametrize("content", [b"", b"hello", None], ids=["empty", "text", "truncated"])
def test_file_that_is_no_pickle_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], estimators: Any, content: bytes | None
) -> None:
    path = tmp_path / "estimator.pkl"
    path.write_bytes(pickle.dumps(estimators.logistic())[:-40] if content is None else content)
    assert main(["sklearn", "made", str(path), "--allow-unpickling", "--repository", str(tmp_path)]) == 1
    assert "got no pickled or joblib estimator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", b"{}", "got no XGBoost model"),
        ("model.ubj", b"", "got no XGBoost model"),
        ("model.json", None, "the file is missing"),
    ],
)
def test_file_that_is_no_xgboost_model_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ["xgboost", "made", str(tmp_path / name), "--allow-unpickling", "--repository", str(tmp_path / "r")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_scaler_of_an_unknown_kind_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], estimators: Any
) -> None:
    (tmp_path / "scaler.pkl").write_bytes(estimators.other_scaler())
    estimators.small_regressor().save_model(tmp_path / "model.json")
    arguments = ["--scaler", str(tmp_path / "scaler.pkl"), "--allow-unpickling", "--repository", str(tmp_path / "r")]
    assert main(["xgboost", "made", str(tmp_path / "model.json"), *arguments]) == 1
    assert "got MinMaxScaler as the scaler, expected StandardScaler" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ultralytics", "Bad_Name", "weights.onnx"], "model name: got 'Bad_Name'"),
        (["sklearn", "yolo.onnx", "estimator.pkl"], "model name: got 'yolo.onnx'"),
        (["xgboost", "a/b", "model.json"], "model name: got 'a/b'"),
        (["ultralytics", "made", "nowhere/weights.pt"], "nowhere/weights.pt: the file is missing"),
        (["ultralytics", "made", "nowhere/weights.onnx"], "nowhere/weights.onnx: the file is missing"),
    ],
)
def test_wrong_argument_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--repository", str(tmp_path / "repository")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_file_that_is_no_checkpoint_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert main(["ultralytics", "made", str(path), "--repository", str(tmp_path / "repository")]) == 1
    assert "expected a PyTorch checkpoint" in capsys.readouterr().err
