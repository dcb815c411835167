"""Exports estimators by the command line, in this process, and predicts with the exported version."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
from numpy.typing import NDArray

from export.__main__ import main
from export.proof.session import Session
from export.writer.config import read_config
from transformer.tasks import describe
from transformer.tasks.tabular import TABULAR
from transformer.triton.model import Model


def draw_people(rng: np.random.Generator, count: int) -> pandas.DataFrame:
    """Rows with two columns of numbers and two of strings."""
    return pandas.DataFrame({
        "age": rng.integers(18, 90, count) / 1.0,
        "income (EUR)": rng.normal(5e4, 1e4, count),
        "city": rng.choice(["Köln", "Oslo", "Roma"], count),
        "sex": rng.choice(["f", "m"], count),
    })  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A version, with the transformer's description and an ONNX Runtime session.

    Attributes:
        model: its description.
        session: its graph.
        parity: content of parity.json.
    """

    model: Model
    session: Session
    parity: Mapping[str, Any]

    def infer(self, rows: Any) -> NDArray[np.float32]:
        """Probabilities or values for rows as a client sends them; a data frame's NaN is null."""
        if hasattr(rows, "astype") and hasattr(rows, "columns"):
            rows = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
        return TABULAR.postprocess([self.session.infer(TABULAR.preprocess(rows, self.model))], self.model).values


def read_served(repository: Path, name: str = "made") -> Served:
    """Read version 1 of a model."""
    folder = repository / name / "1"
    config = read_config(folder / "config.pbtxt")
    parity = json.loads((folder / "parity.json").read_bytes())
    return Served(describe(config, version="1"), Session(folder / "model.onnx", name=name), parity)


def export(folder: Path, part: str, estimator: Any, more: Sequence[str] = (), *, name: str = "made") -> int:
    """Exit status of `python -m export <part> <name> <estimator>` into `folder/repository`."""
    path = folder / "estimator.joblib"
    joblib.dump(estimator, path)
    return main([part, name, str(path), "--allow-unpickling", "--repository", str(folder / "repository"), *more])


def exported(folder: Path, part: str, estimator: Any, more: Sequence[str] = ()) -> Served:
    """Export an estimator; the version."""
    assert export(folder, part, estimator, more) == 0
    return read_served(folder / "repository")
