"""Train `digits`, convert and verify it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, compose, helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from export.errors import ExportError
from export.examples.digits.frame import FEATURES, SIDE, Floats, describe_graph, frame
from export.examples.digits.renderings import Digits, Image, load_plain, render_split
from export.graph.nodes import prune
from export.sources import task_graph
from export.tables.nodes import OPSETS
from export.tables.skl2onnx import convert
from export.writer import config
from export.writer.manifest import Source
from export.writer.repository import Version
from transformer.tasks import describe
from transformer.tasks.classify import Classification, fill
from transformer.triton.model import Model

Track = Callable[[Iterable[int], str], Iterable[int]]

MIN_ACCURACY = 0.97

_COPIES = 4  # renderings of each training digit
_TRAIN_SIDES = (16, 64)  # pixels; what is larger looks the same after scaling to SIDE
_HELD_OUT_SIDES = (12, 400)
_COMPARED = 4  # every fourth image: the comparison infers each twice, which takes longer than the training
_SEED = 0


def prepare(name: str, *, source: Source, track: Track) -> Version:
    """Train, convert and verify.

    Args:
        name: of the model.
        source: for the manifest.
        track: wraps a loop, to show its progress under a name.

    Raises:
        ExportError: the graph differs from the classifier, or the classifier reads too few digits.
    """
    described = _describe(name)
    model = describe(described, version="0")
    held_out = {
        "plain": load_plain("held-out"),
        "rendered": render_split("held-out", sides=_HELD_OUT_SIDES, seed=_SEED),
    }
    # Threads that wait for each other in turns of microseconds: with one, training is as fast and the machine is free.
    with threadpool_limits(1):
        classifier = _train(model, track=track)
        accuracy = _measure_accuracy(classifier, held_out, model)
        version = task_graph.prepare(
            _convert(classifier),
            described,
            predict=lambda image: Classification(classifier.predict_proba(_see([image], model))[0]),
            items=[image for images, _ in held_out.values() for image in images[::_COMPARED]],
            source=source,
        )
    return replace(
        version, parity={"source": f"{type(classifier).__name__} of scikit-learn", **version.parity, **accuracy}
    )


def _describe(name: str) -> Any:
    """`ModelConfig`."""
    metadata = {"task": "classify", "imgsz": [SIDE, SIDE], "channels": 1, "names": {n: str(n) for n in range(10)}}
    return config.describe_classifier(name, size_hw=(SIDE, SIDE), channels=1, metadata=metadata)


def _see(images: Sequence[Image], model: Model) -> Floats:
    """What the classifier sees of images, which are preprocessed as they are when it is served: `(N, FEATURES)`."""
    return frame(np.stack([fill(image, model) for image in images]))


def _train(model: Model, *, track: Track) -> CalibratedClassifierCV:
    sets = [load_plain("train")]
    copies = track(range(_COPIES), "digits: draw training images")
    sets.extend(render_split("train", sides=_TRAIN_SIDES, seed=_SEED + copy) for copy in copies)
    cells = _see([image for images, _ in sets for image in images], model)
    labels = np.concatenate([labels for _, labels in sets])
    # All images of one digit go to the same fold, else probabilities would be fitted on digits of the training.
    digits = np.tile(np.arange(len(sets[0][1])), len(sets))
    folds = list(GroupKFold(2).split(cells, labels, digits))
    classifier = CalibratedClassifierCV(SVC(C=5), cv=folds, ensemble=False)
    for _ in track(range(1), "digits: train"):
        classifier.fit(cells, labels)
    return classifier


def _convert(classifier: CalibratedClassifierCV) -> ModelProto:
    """The frame and the classifier in one graph."""
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    head = convert(classifier, number="FP32", width=FEATURES)
    _keep_output(head)
    eye = helper.make_model(describe_graph(), opset_imports=opsets, ir_version=head.ir_version)
    joined = compose.merge_models(eye, compose.add_prefix(head, "svc/"), io_map=[("cells", "svc/features")])
    _keep_output(joined)
    return joined


def _keep_output(graph: ModelProto) -> None:
    """Leave one output, the last (the first is the label), as `probabilities` `(batch, 10)`.

    The converter stamps the oldest opsets that would do; here all get the same, so that graphs can be joined.
    """
    last, name = graph.graph.output[-1].name, "probabilities"
    for node in graph.graph.node:
        node.output[:] = [name if output == last else output for output in node.output]
        node.input[:] = [name if used == last else used for used in node.input]
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10]))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.graph.value_info[:], graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSETS.items())
    prune(graph.graph)


def _measure_accuracy(
    classifier: CalibratedClassifierCV, held_out: Mapping[str, Digits], model: Model
) -> dict[str, float]:
    """The share of digits that the classifier reads, for parity.json."""
    accuracy = {
        f"accuracy_{kind}": round(float((classifier.predict(_see(images, model)) == labels).mean()), 4)
        for kind, (images, labels) in held_out.items()
    }
    if min(accuracy.values()) < MIN_ACCURACY:
        raise ExportError(f"held-out digits: got {accuracy}, expected at least {MIN_ACCURACY}")
    return accuracy
