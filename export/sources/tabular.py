"""Exports a fitted estimator: its graph, its config, and the verification against the estimator."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError, first_line
from export.graph import compatibility
from export.proof.session import Session
from export.tables.estimator import Original, inspect, scales_in_fp32
from export.tables.nodes import Column, Nodes, inner
from export.tables.parity import Verification, find_missing, find_rows, verify, whole, with_missing
from export.tables.predictors import predict, sees_fp32
from export.writer import config
from export.writer.manifest import Source
from export.writer.repository import Version
from transformer.tasks import describe

_GOLDEN = 4
_MOST_INPUTS = 250  # where each column is one: golden.npz holds 256 arrays


@dataclass(frozen=True)
class Table:
    """Name of a table model, its columns, and what it is verified with.

    Attributes:
        name: of the model.
        features: names of the columns, or None to take what the estimator remembers.
        classes: names of the classes, or None likewise.
        rows: a CSV file of rows to verify it with, or None to make them from what the estimator remembers.
        missing: whether a row may lack a value where the estimator takes that.
    """

    name: str
    features: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    rows: Path | None = None
    missing: bool = True


def prepare(estimator: Any, table: Table, *, source: Source) -> Version:
    """Bring a fitted estimator into the form that is served, and verify it.

    Raises:
        ExportError: it cannot be written as a graph, the names do not fit, no row distinguishes it from a constant, or
            the graph differs from the estimator.
    """
    try:
        with warnings.catch_warnings():
            # About rows without names, unknown categories and deprecations.
            warnings.simplefilter("ignore")
            return _prepare(estimator, table, source)
    except ExportError:
        raise
    except Exception as exc:  # the user's estimator may lack, hold or raise anything
        kind = type(estimator).__name__
        raise ExportError(
            f"{kind}: its export failed: {type(exc).__name__}: {first_line(exc)}; next: --traceback shows where"
        ) from exc


def _prepare(estimator: Any, table: Table, source: Source) -> Version:
    original = inspect(estimator)
    output = "probabilities" if original.is_classifier else "values"
    features = _feature_names(original, table.features)
    nodes = Nodes("FP32" if sees_fp32(estimator) or scales_in_fp32(estimator) else "FP64")
    tensors = _inputs(original, features, nodes, output=output)
    written = _write(nodes, original, tensors)
    names = _class_names(estimator, table.classes) if original.is_classifier else {}
    graph = nodes.model(tensors, (written, output, len(names) or 1))
    compatibility.check(graph)
    session = Session(graph, name=table.name)

    def described(missing: Sequence[str]) -> Any:
        metadata = _metadata(features, names, nodes, missing)
        return config.describe_table(table.name, inputs=tensors, output=(output, len(names) or 1), metadata=metadata)

    verification, model_config = _verify(original, session, table, features, nodes, described)
    golden = {name: array[-_GOLDEN:] for name, array in verification.inputs.items()}
    return Version(
        graph=graph,
        config=model_config,
        task="tabular",
        interface=None,
        source=source,
        parity={
            "source": source.name,
            **verification.figures,
            "rows_from": table.rows.name if table.rows else "what the estimator remembers",
            **({"notes": nodes.notes} if nodes.notes else {}),
        },
        golden={**_as_bytes(golden), **session.infer(golden)},
    )


def _metadata(
    features: Sequence[str], names: Mapping[int, str], nodes: Nodes, missing: Sequence[str]
) -> dict[str, Any]:
    """Metadata of the config; `missing`: columns that may lack a value."""
    categories = {features[column]: values for column, values in sorted(nodes.only.items())}
    optional = {"names": names, "categories": categories, "missing": missing}
    return {"task": "tabular", "features": features} | {key: value for key, value in optional.items() if value}


def _verify(  # noqa: PLR0913, PLR0917 - one argument for each fact
    original: Original,
    session: Session,
    table: Table,
    features: Sequence[str],
    nodes: Nodes,
    described: Callable[[Sequence[str]], Any],
) -> tuple[Verification, Any]:
    """Verify the graph with rows, with missing values where estimator and graph take them; and its `ModelConfig`."""
    rows = find_rows(original, table.rows, features, nodes.notes)
    if original.is_classifier and (others := original.count_other_classes(whole(rows))):
        nodes.notes.append(
            f"on {others} of {len(whole(rows))} rows `predict` of the estimator returns another class than that of its "
            "highest probability, which is the one that is served"
        )
    missing = sorted(find_missing(original, rows)) if table.missing else []
    found = described([features[column] for column in missing])
    try:
        return verify(original, session, describe(found, version="0"), with_missing(rows, missing)), found
    except ExportError as exc:
        if not missing:
            raise
        # The graph may be correct for rows without missing values.
        found = described([])
        verification = verify(original, session, describe(found, version="0"), whole(rows))
        nodes.notes.append(f"missing values will be rejected, because the graph handles them differently: {exc}")
        return verification, found


def _as_bytes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays with strings as bytes, as golden.npz holds them."""
    return {
        name: np.char.encode(array.astype(np.str_)) if array.dtype == np.object_ else array
        for name, array in arrays.items()
    }


def _write(nodes: Nodes, original: Original, tensors: Mapping[str, tuple[str, int]]) -> str:
    """Write the nodes of the estimator; name of its output."""
    frame: list[Column] = []
    for name, (datatype, width) in tensors.items():
        frame += nodes.frame(inner(name), width, text=datatype == "BYTES", first=len(frame))
    return predict(nodes, original.estimator, frame)


def _inputs(original: Original, features: Sequence[str], nodes: Nodes, *, output: str) -> dict[str, tuple[str, int]]:
    """Datatype and width of each input: one of all numbers, or one for each column where there are strings."""
    if not original.text:
        return {"features": (nodes.number, original.width)}
    if original.width > _MOST_INPUTS:
        raise ExportError(
            f"got strings in a table of {original.width} columns, expected at most {_MOST_INPUTS}: each column is "
            "an input of its own there"
        )
    if output in features:
        raise ExportError(f"--features: got a column {output!r}, which is what the model's output is called")
    return {name: ("BYTES" if column in original.text else nodes.number, 1) for column, name in enumerate(features)}


def _feature_names(original: Original, given: Sequence[str] | None) -> list[str]:
    names = list(given or original.names or [f"f{index}" for index in range(original.width)])
    if len(names) != original.width or len(set(names)) != len(names):
        shown = ", ".join(names[:20])
        raise ExportError(f"--features: got {len(names)} names ({shown}), expected {original.width} of them, each once")
    return names


def _class_names(estimator: Any, given: Sequence[str] | None) -> dict[int, str]:
    names = [str(name) for name in estimator.classes_]
    if given is not None and (len(given) != len(names) or len(set(given)) != len(names)):
        raise ExportError(f"--classes: got {len(given)} names ({', '.join(given)}), expected {len(names)} of them")
    return dict(enumerate(given if given is not None else names))
