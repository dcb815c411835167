"""Turns a TensorRT engine that Ultralytics wrote into a version."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.graph.head import count_classes
from export.sources.exported_detector import read_form, read_model
from export.sources.tensorrt import PLANS, find_capability, read_engine
from export.writer import config
from export.writer.manifest import Source, digest
from export.writer.profiles import describe_engine
from export.writer.repository import Version


def import_engine(name: str, path: Path) -> Version:
    """A version of an engine as it is: its outputs are not compared with anything.

    Raises:
        ExportError: it cannot be served, or there is no GPU here, whose compute capability names the file.
    """
    engine = read_engine(path)
    capability = find_capability()
    described = _config(name, engine.metadata, where=str(path))
    read_model(described)
    return Version(
        graph=None,
        config=describe_engine(described, capability=capability),
        task="detect",
        interface="ultralytics",
        source=Source(path.name, digest(path)),
        parity={"source": path.name, "not_compared": "an engine is its own source"},
        golden={},
        plans={PLANS[capability]: engine.plan},
    )


def _config(name: str, found: Mapping[str, Any], *, where: str) -> Any:
    """`ModelConfig` of an engine with this metadata."""
    form = read_form(found, where=where)
    metadata = {
        "task": "detect",
        "imgsz": list(form["imgsz"]),
        "stride": form["stride"],
        "channels": 3,
        "args": {"dynamic": True},
        "end2end": bool(found.get("end2end", False)),
        "names": form["names"],
    }
    return config.describe_detector(
        name, interface="ultralytics", size_hw=None, classes=count_classes(form["names"]), metadata=metadata
    )
