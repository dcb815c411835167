"""A request to try a model with, by what its metadata says that it takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from environment.project import in_project

_IMAGE = {"name": "image", "datatype": "BYTES", "shape": [-1]}


def find_image(metadata: Mapping[str, Any]) -> Path | None:
    """A shipped image for a model with a task: of one digit, or of many where it finds objects; None if it takes rows.

    Args:
        metadata: of `/v2/models/<model>`.
    """
    # A table may have one column of texts that is called image.
    if metadata["inputs"][0] != _IMAGE or "features" in metadata["parameters"]:
        return None
    has_objects = any(output["name"] == "num_detections" for output in metadata["outputs"])
    return in_project("loadtest/pictures") / ("digits.jpg" if has_objects else "seven.png")


def make_row(metadata: Mapping[str, Any]) -> list[Any]:
    """A row that a table model takes: the first category of a column where it lists them, else 1 as number or text.

    Args:
        metadata: as for `find_image`.
    """
    datatypes = [each["datatype"] for each in metadata["inputs"] for _ in range(max(each["shape"][-1], 1))]
    row: list[Any] = ["1" if datatype == "BYTES" else 1.0 for datatype in datatypes]
    parameters = metadata["parameters"]
    for name, categories in parameters.get("categories", {}).items():
        row[parameters["features"].index(name)] = categories[0]
    return row
