"""Classifiers and regressors as nodes: probabilities `(batch, classes)` or values `(batch, 1)`."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np
from sklearn import ensemble, tree
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from export.errors import ExportError
from export.tables import boosters, support_vectors
from export.tables.nodes import Column, Frame, Nodes, as_rows
from export.tables.preprocessing import reject_text, transform, transform_all
from export.tables.skl2onnx import convert_part
from export.tables.trees import add_trees, of_histogram, of_sklearn


def predict(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """Name of the output of a fitted estimator for columns.

    Raises:
        ExportError: it cannot be written as a graph.
    """
    write = next((_WRITERS[base] for base in type(estimator).__mro__ if base in _WRITERS), None)
    if write is not None:
        return write(nodes, estimator, frame)
    if boosters.is_xgboost(estimator):
        return boosters.add_booster(nodes, boosters.of_wrapper(estimator), frame)
    return _as_part(nodes, estimator, frame)


def sees_fp32(estimator: Any) -> bool:
    """Whether an estimator rounds its rows to FP32 before all else."""
    if hasattr(estimator, "best_estimator_"):
        return sees_fp32(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        return len(estimator.steps) == 1 and sees_fp32(estimator.steps[0][1])
    return _WRITERS.get(type(estimator)) is _forest or boosters.is_xgboost(estimator)


def _chain(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    return predict(nodes, estimator.steps[-1][1], transform_all(nodes, estimator.steps[:-1], frame))


def _searched(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    return predict(nodes, estimator.best_estimator_, frame)


def _forest(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """Add the trees of a forest, or one tree; return the name of the summed output, in the graph's number type.

    Rows are cast to FP32 first and thresholds compared in FP64, as scikit-learn does.
    """
    reject_text(frame, estimator)
    members = list(getattr(estimator, "estimators_", [estimator]))
    outputs = len(estimator.classes_) if is_classifier(estimator) else 1
    trees = [of_sklearn(member, outputs=outputs, share=1 / len(members)) for member in members]
    rows = nodes.cast(nodes.join(frame), "FP32")
    summed = add_trees(nodes, rows, trees, width=len(frame), base=0, mode="BRANCH_LEQ")
    return nodes.cast(summed, nodes.number)


def _histogram(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """Add the trees of a HistGradientBoosting estimator; return the name of its output.

    Rows keep their precision: scikit-learn compares them with the thresholds in FP64.
    """
    columns, known = list(frame), {}
    if estimator._preprocessor is not None:
        _, encoder, chosen = estimator._preprocessor.transformers_[0]
        rest = [column for column, is_category in zip(frame, chosen, strict=True) if not is_category]
        columns = transform(
            nodes, encoder, [column for column, is_category in zip(frame, chosen, strict=True) if is_category]
        )
        columns += rest
        known = {place: frozenset(range(len(names))) for place, names in enumerate(encoder.categories_)}
    reject_text(columns, estimator)
    outputs = estimator.n_trees_per_iteration_
    trees = [
        of_histogram(member, known, output=output, outputs=outputs)
        for iteration in estimator._predictors
        for output, member in enumerate(iteration)
    ]
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)
    raw = add_trees(nodes, nodes.join(columns), trees, width=len(columns), base=base, mode="BRANCH_LEQ")
    raw = nodes.cast(raw, nodes.number)
    if is_classifier(estimator):
        return nodes.add("Softmax", raw, axis=1) if outputs > 1 else nodes.both(nodes.add("Sigmoid", raw))
    link = type(estimator._loss.link).__name__
    if link not in {"IdentityLink", "LogLink"}:
        raise ExportError(f"{type(estimator).__name__}: got {link}, expected IdentityLink or LogLink")
    return nodes.add("Exp", raw) if link == "LogLink" else raw


def _add_up(nodes: Nodes, parts: Iterable[str]) -> str:
    """The sum of tensors, of which there is one or more."""
    return reduce(partial(nodes.add, "Add"), parts)


def _discriminate(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """A linear discriminant analysis; of two classes skl2onnx doubles the scores."""
    reject_text(frame, estimator)
    scores = _score(nodes, estimator, frame)
    return (
        nodes.add("Softmax", scores, axis=1)
        if len(estimator.classes_) > 2
        else nodes.both(nodes.add("Sigmoid", scores))
    )


def _score(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """The decision function of a linear model: `(batch, 1)` of two classes."""
    product = nodes.add("MatMul", nodes.join(frame), nodes.constant(np.atleast_2d(estimator.coef_).T))
    return nodes.add("Add", product, nodes.constant(as_rows(estimator.intercept_)))


def _vote(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    weights = estimator._weights_not_none
    weights = np.ones(len(estimator.estimators_)) if weights is None else np.asarray(weights, np.float64)
    members = zip(estimator.estimators_, weights / weights.sum(), strict=True)
    parts = (nodes.add("Mul", predict(nodes, member, frame), nodes.constant(weight)) for member, weight in members)
    return _add_up(nodes, parts)


def _stack(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """Outputs of the members, and the columns themselves where they pass through, as input of the final estimator."""
    columns: list[Column] = []
    for member, method in zip(estimator.estimators_, estimator.stack_method_, strict=True):
        if method != "predict_proba" and is_classifier(estimator):
            raise ExportError(
                f"{type(estimator).__name__}: got stack_method {method} of {type(member).__name__}, expected "
                "predict_proba of each"
            )
        output = predict(nodes, member, frame)
        width = len(member.classes_) if is_classifier(estimator) else 1
        part = nodes.frame(output, width)
        columns += part[1:] if width == 2 else part
    if estimator.passthrough:
        columns += frame
    return predict(nodes, estimator.final_estimator_, columns)


def _bag(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """The mean of members that take some of the columns each."""
    if is_classifier(estimator) and not all(hasattr(member, "predict_proba") for member in estimator.estimators_):
        raise ExportError(f"{type(estimator).__name__}: got members without predict_proba, expected it of each")
    outputs = []
    for member, places in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        output = predict(nodes, member, [frame[place] for place in places])
        if is_classifier(estimator) and len(member.classes_) < len(estimator.classes_):
            # A member without all classes; its own are indices of the classes of the ensemble.
            seen = np.eye(len(estimator.classes_))[np.asarray(member.classes_, np.int64)]
            output = nodes.add("MatMul", output, nodes.constant(seen))
        outputs.append(output)
    return nodes.add("Div", _add_up(nodes, outputs), nodes.constant(len(outputs)))


def _calibrate(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """The mean of members whose scores go through a curve for each class."""
    if len(estimator.classes_) > 2 and isinstance(estimator.calibrated_classifiers_[0].estimator, _MACHINES):
        return _as_part(nodes, estimator, frame)
    outputs = []
    for member in estimator.calibrated_classifiers_:
        if len(member.classes) != len(estimator.classes_) or member.method not in {"sigmoid", "isotonic"}:
            raise ExportError(
                f"CalibratedClassifierCV: got method {member.method} and {len(member.classes)} classes in a fold, "
                f"expected sigmoid or isotonic and {len(estimator.classes_)}"
            )
        scores = _decide(nodes, member.estimator, frame, binary=len(member.classes) == 2)
        curves = [
            _curve(nodes, curve, nodes.add("Gather", scores, nodes.constant([place], np.int64), axis=1))
            for place, curve in enumerate(member.calibrators)
        ]
        is_binary = len(curves) == 1
        outputs.append(nodes.both(curves[0]) if is_binary else _shares(nodes, nodes.add("Concat", *curves, axis=1)))
    return nodes.add("Div", _add_up(nodes, outputs), nodes.constant(len(outputs)))


def _decide(nodes: Nodes, estimator: Any, frame: Frame, *, binary: bool) -> str:
    """Input of a calibration: the decision function, else probabilities (of two classes, that of the second)."""
    if isinstance(estimator, FrozenEstimator):
        return _decide(nodes, estimator.estimator, frame, binary=binary)
    if isinstance(estimator, Pipeline):
        columns = transform_all(nodes, estimator.steps[:-1], frame)
        return _decide(nodes, estimator.steps[-1][1], columns, binary=binary)
    weights = getattr(estimator, "coef_", None) if not isinstance(estimator, _MACHINES) else None
    if isinstance(estimator, _MACHINES) and binary:
        reject_text(frame, estimator)
        return support_vectors.decide(nodes, estimator, nodes.join(frame))
    if hasattr(estimator, "decision_function"):
        if not isinstance(weights, np.ndarray):
            raise ExportError(
                f"CalibratedClassifierCV: got {type(estimator).__name__}, expected a linear model or one "
                "without a decision_function"
            )
        reject_text(frame, estimator)
        return _score(nodes, estimator, frame)
    output = predict(nodes, estimator, frame)
    return nodes.add("Gather", output, nodes.constant([1], np.int64), axis=1) if binary else output


def _curve(nodes: Nodes, curve: Any, score: str) -> str:
    if hasattr(curve, "a_"):
        slope = nodes.add("Mul", score, nodes.constant(-curve.a_))
        return nodes.add("Sigmoid", nodes.add("Sub", slope, nodes.constant(curve.b_)))
    # Isotonic: how far the score reaches into each segment, times its slope.
    edges, heights = np.asarray(curve.X_thresholds_, np.float64), np.asarray(curve.y_thresholds_, np.float64)
    if len(edges) < 2:
        return nodes.add("Add", nodes.add("Mul", score, nodes.constant(0)), nodes.constant(heights[0]))
    widths = np.diff(edges)
    into = nodes.add("Max", nodes.add("Sub", score, nodes.constant(as_rows(edges[:-1]))), nodes.constant(0))
    into = nodes.add("Min", into, nodes.constant(as_rows(widths)))
    climbed = nodes.add("MatMul", into, nodes.constant((np.diff(heights) / widths)[:, None]))
    return nodes.add("Add", climbed, nodes.constant(heights[0]))


def _shares(nodes: Nodes, curves: str) -> str:
    """Each divided by their sum; all equal where the sum is 0."""
    total = nodes.add("ReduceSum", curves, nodes.constant([1], np.int64), keepdims=1)
    nothing = nodes.add("Equal", total, nodes.constant(0))
    ones = nodes.add("Add", nodes.add("Mul", curves, nodes.constant(0)), nodes.constant(1))
    weights = nodes.add("Where", nothing, ones, curves)
    return nodes.add("Div", weights, nodes.add("ReduceSum", weights, nodes.constant([1], np.int64), keepdims=1))


def _machine(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """A support vector machine of two classes or of values; of more classes skl2onnx writes it."""
    reject_text(frame, estimator)
    if not is_classifier(estimator):
        return support_vectors.decide(nodes, estimator, nodes.join(frame))
    if len(estimator.classes_) > 2:
        return _as_part(nodes, estimator, frame)
    decision = support_vectors.decide(nodes, estimator, nodes.join(frame))
    return nodes.both(support_vectors.probability(nodes, estimator, decision))


def _as_part(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    reject_text(frame, estimator)
    (tensor,), _ = convert_part(nodes, estimator, nodes.join(frame), width=len(frame))
    return tensor


def _reject_threshold(_nodes: Nodes, estimator: Any, _frame: Frame) -> str:
    raise ExportError(
        f"{type(estimator).__name__}: got a threshold of its own, while the class of the highest probability is "
        "served; next: export its estimator_, and let the client compare the probabilities with the threshold"
    )


def _transformed(nodes: Nodes, estimator: Any, frame: Frame) -> str:
    """The output of a regressor, transformed back into the units of its target."""
    output = nodes.frame(predict(nodes, estimator.regressor_, frame), 1)
    back = estimator.transformer_
    if isinstance(back, FunctionTransformer):
        turned = FunctionTransformer(back.inverse_func, kw_args=back.inv_kw_args)
        return nodes.join(transform(nodes, turned, output))
    if not isinstance(back, StandardScaler):
        raise ExportError(
            f"TransformedTargetRegressor: got {type(back).__name__}, expected a function or StandardScaler"
        )
    tensor = nodes.join(output)
    for operator, value in (("Mul", back.scale_), ("Add", back.mean_)):
        tensor = tensor if value is None else nodes.add(operator, tensor, nodes.constant(as_rows(value)))
    return tensor


_MACHINES = (SVC, NuSVC, SVR, NuSVR)
_WRITERS: Mapping[type, Callable[[Nodes, Any, Frame], str]] = {
    **dict.fromkeys(_MACHINES, _machine),
    LinearDiscriminantAnalysis: _discriminate,
    FrozenEstimator: lambda nodes, frozen, frame: predict(nodes, frozen.estimator, frame),
    Pipeline: _chain,
    FixedThresholdClassifier: _reject_threshold,
    TunedThresholdClassifierCV: _reject_threshold,
    GridSearchCV: _searched,
    RandomizedSearchCV: _searched,
    CalibratedClassifierCV: _calibrate,
    TransformedTargetRegressor: _transformed,
    ensemble.BaggingClassifier: _bag,
    ensemble.BaggingRegressor: _bag,
    tree.DecisionTreeClassifier: _forest,
    tree.DecisionTreeRegressor: _forest,
    ensemble.RandomForestClassifier: _forest,
    ensemble.RandomForestRegressor: _forest,
    ensemble.ExtraTreesClassifier: _forest,
    ensemble.ExtraTreesRegressor: _forest,
    ensemble.HistGradientBoostingClassifier: _histogram,
    ensemble.HistGradientBoostingRegressor: _histogram,
    ensemble.VotingClassifier: _vote,
    ensemble.VotingRegressor: _vote,
    ensemble.StackingClassifier: _stack,
    ensemble.StackingRegressor: _stack,
}
