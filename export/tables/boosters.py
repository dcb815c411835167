"""XGBoost models (gbtree, dart, gblinear) as nodes of a graph, read from XGBoost's own JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xgboost
from sklearn.exceptions import NotFittedError

from export.errors import ExportError
from export.tables.categories import find_index
from export.tables.nodes import Column, Frame, Nodes
from export.tables.trees import Tree, add_trees, of_xgboost

# The link function from the sum of the trees to what `predict` returns; its inverse is applied to the base score.
_LINKS: Mapping[str, str] = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "Sigmoid"),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"), "Exp"),
    "multi:softprob": "Softmax",
    **dict.fromkeys(("reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror"), ""),
    **dict.fromkeys(("reg:linear", "reg:quantileerror", "reg:expectileerror"), ""),
    **dict.fromkeys(("rank:pairwise", "rank:ndcg", "rank:map"), ""),
}
_INSTEAD = {
    "multi:softmax": "multi:softprob",
    "binary:hinge": "binary:logistic",
    "binary:logitraw": "binary:logistic",
}


@dataclass(frozen=True)
class Booster:
    """The facts of a model that its graph needs.

    Attributes:
        learner: as XGBoost writes it.
        missing: number that stands for a missing value beside NaN; NaN for none.
        rounds: number of rounds that count.
        is_classifier: whether `predict_proba` of the model is exported, whatever its objective.
    """

    learner: Mapping[str, Any]
    missing: float
    rounds: int
    is_classifier: bool

    @property
    def objective(self) -> str:
        """Name of the objective of its training."""
        return str(self.learner["objective"]["name"])

    @property
    def categories(self) -> dict[int, list[Any]]:
        """Names of the categories of the data frame that it was fitted on, by column."""
        encodings = _model(self.learner).get("cats", {}).get("enc", ())
        return {column: names for column, entry in enumerate(encodings) if (names := _names(entry))}


def is_xgboost(estimator: Any) -> bool:
    """Whether it is a model or a Booster of XGBoost."""
    return type(estimator).__module__.split(".")[0] == "xgboost"


def as_model(booster: xgboost.Booster) -> xgboost.XGBModel:
    """A bare Booster as the model that scikit-learn's interface gives it.

    Raises:
        ExportError: its objective has no such output.
    """
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    _check_objective(objective)
    kind = xgboost.XGBClassifier if objective.startswith(("binary:", "multi:")) else xgboost.XGBRegressor
    model = kind()
    model.load_model(bytearray(booster.save_raw("ubj")))
    return model


def of_wrapper(model: xgboost.XGBModel) -> Booster:
    """Read a fitted model.

    Raises:
        ExportError: it is not fitted, or its objective has no output that is served.
    """
    try:
        booster = model.get_booster()
    except NotFittedError as exc:
        raise ExportError(f"{type(model).__name__}: it is not fitted; next: call fit before you save it") from exc
    learner = json.loads(booster.save_raw("json"))["learner"]
    _check_objective(learner["objective"]["name"])
    best = learner.get("attributes", {}).get("best_iteration")
    rounds = booster.num_boosted_rounds()
    return Booster(
        learner,
        missing=float("nan") if model.missing is None else float(model.missing),
        rounds=min(rounds, int(best) + 1) if best is not None else rounds,
        is_classifier=isinstance(model, xgboost.XGBClassifier),
    )


def _check_objective(objective: str) -> None:
    if objective in _INSTEAD:
        raise ExportError(
            f"objective {objective}: its output is not a probability, expected {_INSTEAD[objective]}: fit it with "
            f"{_INSTEAD[objective]}"
        )
    if objective not in _LINKS:
        raise ExportError(f"objective {objective}: unknown, expected one of {', '.join(sorted(_LINKS))}")


def add_booster(nodes: Nodes, booster: Booster, frame: Frame) -> str:
    """Probabilities or values, `(batch, outputs)`.

    Raises:
        ExportError: it has more than one value for each row.
    """
    link = _LINKS[booster.objective]
    width = int(booster.learner["learner_model_param"]["num_feature"])
    if width != len(frame):
        raise ExportError(f"XGBoost: got a table of {len(frame)} columns, expected {width}, those of the model")
    rows = _read_rows(nodes, booster, frame)
    base = _base(booster, link)
    if booster.learner["gradient_booster"]["name"] == "gblinear":
        summed = _add_linear(nodes, booster, rows, np.full_like(base, base[0]))  # XGBoost takes the first for all
    else:
        trees = trees_of(booster, outputs=len(base))
        if booster.rounds < (total := _rounds(booster)):
            nodes.notes.append(
                f"got {total} rounds of trees, the best is number {booster.rounds} (early stopping): those up to it "
                "are exported, as XGBoost's scikit-learn interface predicts with them"
            )
        summed = add_trees(nodes, rows, trees, width=width, base=base, mode="BRANCH_LT", number="FP32")
    output = nodes.cast(nodes.add(link, summed) if link else summed, nodes.number)  # Softmax is over the last axis
    if not booster.is_classifier or booster.objective == "multi:softprob":
        return output
    if len(base) > 1:
        raise ExportError("XGBClassifier: got several labels for each row, expected one class")
    return nodes.both(output)


def _read_rows(nodes: Nodes, booster: Booster, frame: Frame) -> str:
    """Rows in FP32 as XGBoost reads them, missing values as NaN, names of categories as their codes."""
    names = booster.categories
    columns: list[Column] = []
    for place, column in enumerate(frame):
        known = names.get(place)
        if known is None:
            columns.append(column)
            continue
        if column.origin is None:
            raise ExportError("XGBoost: got categories after other steps, expected them in columns of the table")
        nodes.only[column.origin] = known
        codes = nodes.constant([*range(len(known)), np.nan])
        coded = nodes.add("Gather", codes, find_index(nodes, column, known, "XGBoost"), axis=0)
        columns += nodes.frame(nodes.add("Reshape", coded, nodes.constant([-1, 1], np.int64)), 1)
    if any(column.text for column in columns):
        raise ExportError("XGBoost: got columns of strings, expected numbers")
    rows = nodes.cast(nodes.join(columns), "FP32")
    if np.isnan(booster.missing):
        return rows
    missing = nodes.add("Equal", rows, nodes.constant(booster.missing, np.float32))
    return nodes.add("Where", missing, nodes.constant(np.nan, np.float32), rows)


def trees_of(booster: Booster, *, outputs: int | None = None) -> list[Tree]:
    """The trees of a booster, up to the last round that counts."""
    outputs = len(_base(booster, "")) if outputs is None else outputs
    gradient_booster, model = booster.learner["gradient_booster"], _model(booster.learner)
    last = int(model["iteration_indptr"][booster.rounds]) if "iteration_indptr" in model else len(model["trees"])
    weights = gradient_booster.get("weight_drop") or [1.0] * len(model["trees"])
    return [
        of_xgboost(tree, weight=weight, output=output, outputs=outputs)
        for tree, output, weight in list(zip(model["trees"], model["tree_info"], weights, strict=True))[:last]
    ]


def _add_linear(nodes: Nodes, booster: Booster, rows: str, base: Any) -> str:
    """A missing value adds nothing."""
    weights = np.asarray(booster.learner["gradient_booster"]["model"]["weights"], np.float32).reshape(-1, len(base))
    zero = nodes.constant(0, np.float32)
    present = nodes.add("Where", nodes.add("IsNaN", rows), zero, rows)
    product = nodes.add("MatMul", present, nodes.constant(weights[:-1], np.float32))
    return nodes.add("Add", product, nodes.constant((weights[-1] + base)[None], np.float32))


def _base(booster: Booster, link: str) -> Any:
    text = booster.learner["learner_model_param"]["base_score"]
    base = np.asarray(json.loads(text) if text.startswith("[") else [float(text)], np.float64)
    param = booster.learner["learner_model_param"]
    outputs = max(int(param.get("num_class", 0)), int(param.get("num_target", 1)), 1)
    base = np.broadcast_to(base, outputs)
    with np.errstate(divide="ignore"):
        score = {"Sigmoid": lambda: np.log(base / (1 - base)), "Exp": lambda: np.log(base)}.get(link, lambda: base)()
    return score.astype(np.float32)


def _rounds(booster: Booster) -> int:
    model = _model(booster.learner)
    return len(model["iteration_indptr"]) - 1 if "iteration_indptr" in model else booster.rounds


def _model(learner: Mapping[str, Any]) -> Mapping[str, Any]:
    booster = learner["gradient_booster"]
    model: Mapping[str, Any] = booster.get("gbtree", booster)["model"]
    return model


def _names(entry: Mapping[str, Any]) -> list[Any]:
    """Names in Arrow's form: the bytes of all strings, and the offset at which each begins and ends."""
    offsets: Sequence[int] = entry.get("offsets", ())
    if not offsets:
        return list(entry["values"])
    data = bytes(value % 256 for value in entry["values"])
    if not data.isascii():
        raise ExportError("XGBoost: got names of categories beyond ASCII, which it truncates; expected ASCII")
    return [data[start:end].decode() for start, end in pairwise(offsets)]
