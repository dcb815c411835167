"""`iris`: which iris a flower is, from four lengths. XGBoost behind a StandardScaler, in one graph."""

from dataclasses import replace
from typing import cast

import numpy as np
from onnx import ModelProto
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from export.proof.session import Session
from export.sources.tabular import Table
from export.sources.tabular import prepare as prepare_table
from export.sources.xgboost import scaled
from export.writer.manifest import Source
from export.writer.repository import Version


def prepare(name: str, *, source: Source) -> Version:
    """Train on R. A. Fisher's 150 flowers (a fifth held out), convert and verify."""
    iris = load_iris()
    rows, held_out, labels, held_out_labels = train_test_split(
        iris.data.astype(np.float32), iris.target, test_size=0.2, stratify=iris.target, random_state=0
    )
    scaler = StandardScaler().fit(rows)
    # Mean and deviation as the graph has them, so that training sees the very numbers that serving does.
    scaler.mean_, scaler.scale_ = scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)
    model = XGBClassifier(n_estimators=40, max_depth=3, learning_rate=0.2, n_jobs=1, random_state=0)
    model.fit(scaler.transform(rows), labels)
    kinds = [str(kind) for kind in iris.target_names]
    table = Table(name, features=iris.feature_names, classes=kinds, missing=False)  # no flower lacked a length
    version = prepare_table(scaled(model, scaler), table, source=source)
    probabilities = Session(cast("ModelProto", version.graph), name=name).infer(held_out)["probabilities"]
    accuracy = round(float((probabilities.argmax(axis=1) == held_out_labels).mean()), 4)
    return replace(version, parity={**version.parity, "accuracy": accuracy})
