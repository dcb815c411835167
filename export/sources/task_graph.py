"""An ONNX graph of any task, with the program that it was made from, to a verified version.

How a checkpoint becomes a graph is a matter of each kind of checkpoint, and stands in the other modules of this folder.
"""

from collections.abc import Callable
from typing import Any

import onnx

from export.graph import compatibility
from export.proof.session import Session
from export.proof.task_parity import verify_images, verify_rows
from export.writer.manifest import Source
from export.writer.repository import Version
from transformer.tasks import describe, takes_images


def prepare(
    graph: onnx.ModelProto, config: Any, *, predict: Callable[[Any], Any], items: Any, source: Source
) -> Version:
    """Verify a graph against its source program.

    Args:
        graph: model.onnx.
        config: `ModelConfig`, see `writer.config.describe_model`; names model and task.
        predict: the source program: an image or rows in, the task's prediction out.
        items: images, RGB `(height, width, 3)`, or rows, on which both are compared.
        source: for the manifest.

    Raises:
        ExportError: the graph cannot be served, or differs from its source.
    """
    compatibility.check(graph)
    session = Session(graph, name=config.name)
    model = describe(config, version="0")
    if takes_images(model):
        parity, golden = verify_images(session, model, predict, images=items)
    else:
        parity, golden = verify_rows(session, model, predict, rows=items)
    return Version(
        graph=graph,
        config=config,
        task=str(model.task),
        interface=None,
        source=source,
        parity=parity,
        golden=golden,
    )
