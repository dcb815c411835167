"""Table models: what an estimator's graph has to become, and the proof that it says what the estimator says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler

from export import compatibility, config
from export.errors import ExportError
from export.graph import prune
from export.manifest import Source
from export.repository import Version
from export.runtime import Session
from transformer.model import describe
from transformer.tasks import tabular

OPSETS = {"": 17, "ai.onnx.ml": 3}
TOLERANCE = 1e-3

_ROWS = 256


@dataclass(frozen=True)
class Table:
    """What a table model is called and what its columns are.

    Attributes:
        name: of the model.
        features: names of the columns, or None to take what the estimator remembers.
        classes: names of the classes, or None likewise.
    """

    name: str
    features: Sequence[str] | None = None
    classes: Sequence[str] | None = None


def prove(  # noqa: PLR0913 - one argument for each fact
    graph: ModelProto, estimator: Any, table: Table, *, columns: int, scaler: Any, source: Source
) -> Version:
    """Turn a converted graph into a version.

    Args:
        graph: input `features`; its last output holds probabilities or values.
        estimator: the source; a classifier or a regressor.
        table: names.
        columns: how many.
        scaler: a StandardScaler that rows meet first, or anything else.
        source: for the manifest.

    Raises:
        ExportError: the names do not fit, or the graph differs from the estimator.
    """
    classifier = is_classifier(estimator)
    output = "probabilities" if classifier else "values"
    described = _describe(estimator, table, columns=columns)
    model = describe(described, version="0")
    keep_output(graph, name=output, width=len(model.names) or 1)
    compatibility.check(graph)
    session = Session(graph, name=table.name)
    rows = tabular.preprocess(_draw_rows(graph, columns=columns, scaler=scaler).tolist(), model)
    expected = estimator.predict_proba(rows) if classifier else estimator.predict(rows)
    if isinstance(expected, list) or (not classifier and expected.size != len(rows)):
        raise ExportError(f"{type(estimator).__name__}: got several outputs for each row, expected one class or value")
    exported = tabular.postprocess(session.infer(rows), model)
    golden = rows[:4]
    return Version(
        graph=graph,
        config=described,
        task="tabular",
        interface=None,
        source=source,
        parity=_compare(exported, expected.reshape(exported.shape), output=output, source=source.name),
        golden={"features": golden, **session.infer(golden)},
    )


def _describe(estimator: Any, table: Table, *, columns: int) -> Any:
    """`ModelConfig`, with names from the user or from what the estimator remembers."""
    features = list(table.features or remembered_features(estimator) or [f"f{index}" for index in range(columns)])
    if len(features) != columns or len(set(features)) != columns:
        raise ExportError(f"--features: got {len(features)} names ({', '.join(features)}), expected {columns} of them")
    metadata: dict[str, Any] = {"task": "tabular", "features": features}
    if is_classifier(estimator):
        metadata["names"] = _class_names(estimator, table.classes)
    return config.describe_table(table.name, columns=columns, metadata=metadata)


def _compare(exported: NDArray[np.float32], expected: NDArray[Any], *, output: str, source: str) -> dict[str, Any]:
    """Content of parity.json; values of a regressor are compared relative to their size.

    Raises:
        ExportError: not finite, no probabilities, or too far apart.
    """
    if not np.isfinite(exported).all():
        raise ExportError(f"{output}: got NaN or infinite ones: the model is broken")
    if output == "probabilities" and (exported.min() < -TOLERANCE or exported.max() > 1 + TOLERANCE):
        raise ExportError(f"probabilities: got {exported.min():.4g} to {exported.max():.4g}, expected 0 to 1")
    size = 1.0 if output == "probabilities" else max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(exported - expected).max()) / size
    if not difference <= TOLERANCE:
        raise ExportError(f"{output} differ from the source: got {difference:.4g}, expected at most {TOLERANCE}")
    return {"source": source, "tolerance": {output: TOLERANCE}, output: difference, "rows": len(exported)}


def _draw_rows(graph: ModelProto, *, columns: int, scaler: Any) -> NDArray[np.float32]:
    """Rows that go through many leaves and around the mean: by the scaler where there is one, else by thresholds."""
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(_ROWS, columns))
    if isinstance(scaler, StandardScaler):
        scale = scaler.scale_ if scaler.scale_ is not None else 1.0
        mean = scaler.mean_ if scaler.mean_ is not None else 0.0
        return np.asarray(mean + scale * noise, np.float32)
    rows = noise
    for column, thresholds in _thresholds(graph).items():
        spread = max(float(np.std(thresholds)), 1e-3)
        rows[:, column] = rng.choice(thresholds, _ROWS) + 0.1 * spread * noise[:, column]
    return rows.astype(np.float32)


def _thresholds(graph: ModelProto) -> dict[int, NDArray[np.float64]]:
    """Where the trees of a graph split, by column."""
    found: dict[int, list[float]] = {}
    for node in graph.graph.node:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        modes, columns = values["nodes_modes"], values["nodes_featureids"]
        for mode, column, threshold in zip(modes, columns, values["nodes_values"], strict=True):
            if mode != b"LEAF":
                found.setdefault(column, []).append(threshold)
    return {column: np.array(thresholds) for column, thresholds in found.items()}


def keep_output(graph: ModelProto, *, name: str, width: int) -> None:
    """Leave one output, the last (a classifier's first is its label), under `name`, `(batch, width)`.

    The converters stamp the oldest opsets that would do; here all get the same, so that graphs can be joined.
    """
    last = graph.graph.output[-1].name
    for node in graph.graph.node:
        node.output[:] = [name if output == last else output for output in node.output]
        node.input[:] = [name if used == last else used for used in node.input]
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.graph.value_info[:], graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSETS.items())
    prune(graph.graph)


def _class_names(estimator: Any, given: Sequence[str] | None) -> dict[int, str]:
    names = [str(name) for name in estimator.classes_]
    if given is not None and (len(given) != len(names) or len(set(given)) != len(names)):
        raise ExportError(f"--classes: got {len(given)} names ({', '.join(given)}), expected {len(names)} of them")
    return dict(enumerate(given if given is not None else names))


def remembered_features(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def is_xgboost(estimator: Any) -> bool:
    return type(estimator).__module__.split(".")[0] == "xgboost"
