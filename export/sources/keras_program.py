"""Loads models of Keras and TensorFlow, runs them, and converts them to ONNX; TensorFlow is imported here alone.

One way leads to ONNX: through the signature of a SavedModel, which Keras writes of a `.keras` or `.h5`. What it
is compared with is the model itself: Keras' own `predict`, or the signature.
"""

import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError, first_line
from export.sources.keras_file import Kind

Arrays = Mapping[str, NDArray[Any]]

OPSET = 17  # as other exports; Triton 24.10 takes 21
DEFAULT_SIGNATURE = "serving_default"
_PACKAGES = ("tensorflow", "keras", "tf2onnx")


@dataclass(frozen=True)
class Program:
    """A model that runs.

    Attributes:
        name: of what is compared, for parity.json.
        inputs: shape, -1 where a dim is free, and datatype of each by name.
        outputs: names.
        predict: outputs by name for inputs by name, each with a batch dimension.
        graph: the same as ONNX, with the same names.
    """

    name: str
    inputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    outputs: tuple[str, ...]
    predict: Callable[[Arrays], Arrays]
    graph: onnx.ModelProto


def read_program(path: Path, kind: Kind, *, signature: str | None, allowed: bool, where: str) -> Program:
    """Load a model and convert it.

    Args:
        path: of the file or folder; an admitted copy, see `keras_file.check_file`.
        kind: what it is.
        signature: of a SavedModel with several; None: `serving_default`, or the only one.
        allowed: whether the user permits to run the code that it may hold.
        where: names it in messages.

    Raises:
        ExportError: TensorFlow is missing, the model cannot be loaded, or has parts that ONNX does not have.
    """
    _need_tensorflow(where)
    with _quiet():
        if kind == "saved_model":
            return _read_saved_model(path, signature, where=where)
        if signature is not None:
            raise ExportError(f"--signature: got {where}, expected it only for a SavedModel")
        model = _load_keras(path, allowed=allowed, where=where)
        with tempfile.TemporaryDirectory(prefix="nereid-keras-") as folder:
            model.export(folder, verbose=False)
            program = _read_saved_model(Path(folder), None, where=where)
        predict = _predict(model, program.inputs, program.outputs)
        return Program("Keras' predict", program.inputs, program.outputs, predict, program.graph)


def _need_tensorflow(where: str) -> None:
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(
            f"{where}: a model of Keras or TensorFlow needs {', '.join(missing)}, not installed here; next: "
            f"make export MODEL=... WEIGHTS={where}, or make .venv/.keras"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Import TensorFlow, and let it and what it imports write nothing but errors of ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the user's ~/.keras may name another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow  # noqa: PLC0415 - only where a model of Keras is exported

        loggers = [tensorflow.get_logger(), *(logging.getLogger(name) for name in ("absl", "tf2onnx"))]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _load_keras(path: Path, *, allowed: bool, where: str) -> Any:
    import keras  # noqa: PLC0415 - only where a model of Keras is exported

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not allowed)
        if not isinstance(model, keras.Model):
            raise TypeError(f"got {type(model).__name__}, no model")
    except Exception as exc:  # layers may raise anything
        raise ExportError(f"{where}: Keras {keras.__version__} does not load it: {first_line(exc)}") from exc
    if not model.built or not getattr(model, "inputs", None):
        raise ExportError(
            f"{where}: got a model whose input has no shape yet, expected one with keras.Input, or one that was "
            "called before it was saved"
        )
    return model


def _predict(model: Any, inputs: Mapping[str, Any], outputs: tuple[str, ...]) -> Callable[[Arrays], Arrays]:
    """Keras' own `predict`; it gives outputs in the order in which a SavedModel numbers them."""
    import keras  # noqa: PLC0415 - as above

    names = [tensor.name for tensor in model.inputs]

    def run(arrays: Arrays) -> Arrays:
        given = [arrays[name] for name in (names if set(names) == set(inputs) else inputs)]
        packed = keras.tree.pack_sequence_as(model._inputs_struct, given) if len(given) > 1 else given[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = keras.tree.flatten(model.predict(packed, batch_size=len(given[0]), verbose=0))
        return dict(zip(outputs, map(np.asarray, predicted), strict=True))

    return run


def _read_saved_model(folder: Path, signature: str | None, *, where: str) -> Program:
    import tensorflow as tf  # noqa: PLC0415 - only where a model of Keras is exported

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as exc:  # operators may raise anything
        raise ExportError(f"{where}: TensorFlow {tf.__version__} does not load it: {first_line(exc)}") from exc
    chosen = _choose_signature(loaded.signatures, signature, where=where)
    run = loaded.signatures[chosen]
    specs = run.structured_input_signature[1]
    odd = [
        f"{name} {spec.dtype.name}"
        for name, spec in specs.items()
        if not (spec.dtype.is_floating or spec.dtype.is_integer)
    ]
    if odd or any(spec.shape.rank is None for spec in specs.values()):
        raise ExportError(f"{where}: inputs: got {', '.join(odd) or 'one of any rank'}, expected tensors of numbers")
    outputs = tuple(sorted(run.structured_outputs))  # as TensorFlow flattens them

    def predict(arrays: Arrays) -> Arrays:
        given = {name: tf.constant(array) for name, array in arrays.items()}
        predicted = loaded.signatures[chosen](**given)
        return {name: predicted[name].numpy() for name in outputs}

    inputs = {
        name: (tuple(-1 if dim is None else dim for dim in spec.shape), np.dtype(spec.dtype.as_numpy_dtype))
        for name, spec in specs.items()
    }
    graph = _convert(run, outputs, where=where)
    return Program(f"the SavedModel's {chosen}", inputs, outputs, predict, graph)


def _choose_signature(signatures: Mapping[str, Any], wanted: str | None, *, where: str) -> str:
    known = sorted(signatures)
    if not known:
        raise ExportError(
            f"{where}: got a SavedModel without a signature, expected {DEFAULT_SIGNATURE}; next: write it with "
            "model.export('folder')"
        )
    chosen = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in known else known[0])
    if chosen not in known or (wanted is None and len(known) > 1 and chosen != DEFAULT_SIGNATURE):
        raise ExportError(f"{where}: --signature: got {wanted or 'none'}, expected one of {', '.join(known)}")
    return chosen


def _convert(run: Any, outputs: Sequence[str], *, where: str) -> onnx.ModelProto:
    """A signature as ONNX, with its names of inputs and outputs."""
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415 - as above
        convert_variables_to_constants_v2,
    )
    from tf2onnx import convert  # noqa: PLC0415

    try:
        frozen = convert_variables_to_constants_v2(run, lower_control_flow=False, aggressive_inlining=True)
        graph = frozen.graph.as_graph_def(add_shapes=True)
        for part in (*graph.node, *graph.library.function):
            for mark in ("_XlaMustCompile", "_noinline"):  # Keras compiles convolutions of several groups
                part.attr.pop(mark, None)
        names = {tensor.name: tensor.name.partition(":")[0] for tensor in frozen.inputs}
        renamed = dict(zip((tensor.name for tensor in frozen.outputs), outputs, strict=True))
        model: onnx.ModelProto
        model, _ = convert.from_graph_def(
            graph,
            input_names=list(names),
            output_names=list(renamed),
            opset=OPSET,
            custom_op_handlers={"Erfc": (_write_erfc, [])},  # of GELU, which tf2onnx does not know
            tensors_to_rename=names | renamed,
        )
    except Exception as exc:  # tf2onnx raises anything
        raise ExportError(f"{where}: tf2onnx does not convert it: {first_line(exc)}") from exc
    unknown = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)})
    if unknown:
        raise ExportError(
            f"{where}: operators: got {', '.join(unknown)} of TensorFlow, which tf2onnx does not convert; next: "
            "write an ONNX file with another converter"
        )
    for value in (*model.graph.input, *model.graph.output):
        batch = value.type.tensor_type.shape.dim[0] if value.type.tensor_type.shape.dim else None
        if batch is not None and not batch.dim_value:
            batch.dim_param = "batch"
    return model


def _write_erfc(context: Any, node: Any, name: str, _: Sequence[Any]) -> None:
    """1 - erf(x), as a handler of tf2onnx."""
    kind, shape = context.get_dtype(node.output[0]), context.get_shape(node.output[0])
    outputs, source = node.output[:], node.input[0]
    context.remove_node(name)
    error = context.make_node("Erf", [source], dtypes=[kind], shapes=[shape])
    one = context.make_const(f"{name}/one", np.array(1, np.float32))
    context.make_node(
        "Sub", [one.output[0], error.output[0]], outputs=outputs, name=name, dtypes=[kind], shapes=[shape]
    )
