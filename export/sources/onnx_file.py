"""Reads ONNX files, and normalises them into the form that `export.graph` takes; with the onnx package alone."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from export.errors import ExportError, first_line
from export.graph.half_weights import restore_float
from export.graph.nodes import captured

# Names that `export.graph` and the interfaces give: a tensor of the file with such a name is renamed.
_INPUT = "images"
OUTPUTS = ("output0", "output1")  # the head, and the prototypes of masks
_REST = ("coefficients", "prototypes", "keypoints", "angles")
_MAPS = ("class_map", "depth")
_TAKEN = frozenset({_INPUT, *OUTPUTS, "image", "boxes", "scores", "classes", "probabilities", *_REST, *_MAPS})
_TAKEN_PREFIXES = ("fused/", "bins/", "half/", "source/")


def read_onnx(path: Path) -> ModelProto:
    """Load an ONNX file, with its external data.

    Raises:
        ExportError: the file is missing, not an ONNX file, or incomplete.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as exc:
        raise ExportError(f"{path}: the file is missing") from exc
    except (DecodeError, OSError, onnx.checker.ValidationError) as exc:
        reason = first_line(exc)
        raise ExportError(f"{path}: got no complete ONNX file ({reason}): is it truncated, or no ONNX?") from exc
    if not model.graph.node:
        raise ExportError(f"{path}: got no ONNX file ({path.stat().st_size} bytes without a graph)")
    _check_external(model, path)
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as exc:
        raise ExportError(f"{path}: its external data cannot be read: {first_line(exc)}") from exc
    return model


def normalise(model: ModelProto) -> ModelProto:
    """Normalise a detector that ONNX Runtime loads.

    Args:
        model: one input, the head as an output of three dimensions, and of a segmenter the prototypes as one of four,
            each FP32 or FP16.

    Returns:
        The same with sorted nodes, constants as initialisers, weights that are only stored in FP16 as FP32, an input
        The same with sorted nodes, constants as initialisers, weights that are only stored in FP16 as FP32, an input
        `images` and the outputs `output0` (the head) and `output1` (prototypes) in FP32, and no tensor with a name that
        `export.graph` gives.
    """
    normalised = deepcopy(model)
    graph = normalised.graph
    outputs = sorted(graph.output, key=lambda value: len(value.type.tensor_type.shape.dim))
    del graph.output[:]
    graph.output.extend(outputs)
    known = {initializer.name for initializer in graph.initializer}  # IR 3 lists them as inputs too
    for value in [value for value in graph.input if value.name in known]:
        graph.input.remove(value)
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:  # some tools write a free dim like that
                dim.ClearField("dim_value")
    _hoist_constants(graph)
    restore_float(graph)
    _rename(graph, _choose_names(graph))
    _convert_floats(graph)
    _sort(graph)
    return normalised


def _check_external(model: ModelProto, path: Path) -> None:
    """Check that each file of external weights is there, and as long as the weights need."""
    ends: dict[str, int] = {}
    for tensor in filter(uses_external_data, _tensors(model.graph)):
        try:
            info = ExternalDataInfo(tensor)
        except ValueError as exc:  # an offset or a length is not a number
            raise ExportError(f"{path}: external data of {tensor.name!r:.80}: {first_line(exc)}") from exc
        length = info.length or prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        ends[info.location] = max(ends.get(info.location, 0), (info.offset or 0) + length)
    for location, end in ends.items():
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise ExportError(f"{path}: external data: got {location!r:.80}, expected a file beside it")
        file = path.parent / location
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            raise ExportError(f"{file}: the file is missing, expected {end} bytes of weights of {path.name} in it")
        if size < end:
            raise ExportError(
                f"{file}: got {size} bytes, expected {end}, the weights of {path.name}: it is truncated; next: copy it "
                "again, together with the ONNX file"
            )


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All tensors of a graph, those inside its nodes included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in _inner(attribute):
                yield from _tensors(inner)


def _inner(attribute: onnx.AttributeProto) -> Iterable[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _hoist_constants(graph: GraphProto) -> None:
    """Turn Constant nodes into initialisers, so that weights are found in one place."""
    kept: list[NodeProto] = []
    for node in graph.node:
        value = _constant(node)
        if value is None:
            kept.append(node)
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"} or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    value = TensorProto()
    if attribute.name == "value":
        value.CopyFrom(attribute.t)
        return value
    datatype = {"value_float": np.float32, "value_int": np.int64}.get(attribute.name.removesuffix("s"))
    if datatype is None:  # strings, or a sparse tensor
        return None
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(attribute), datatype))


def _choose_names(graph: GraphProto) -> dict[str, str]:
    """New names for tensors with a name that `export.graph` gives, and for the input and the output."""
    used = set(_names(graph))
    names: dict[str, str] = {}
    for name in sorted(used):
        if name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
            new = f"source/{name}"
            while new in used:
                new += "_"
            used.add(new)
            names[name] = new
    for value, final in ((graph.input[0], _INPUT), *zip(graph.output, OUTPUTS, strict=False)):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT16:  # else there is a Cast between the two
            names[value.name] = final
        elif value.name not in names:
            names[value.name] = f"source/{value.name}"
    return names


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in _named(graph))
    for node in graph.node:
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            for inner in _inner(attribute):
                yield from _names(inner)


def _named(graph: GraphProto) -> Iterator[ValueInfoProto | TensorProto]:
    """All that has a name in a graph itself, except nodes."""
    yield from (*graph.input, *graph.output, *graph.value_info)
    yield from graph.initializer
    yield from (tensor.values for tensor in graph.sparse_initializer)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for value in _named(graph):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in _inner(attribute):
                _rename(inner, names)


def _convert_floats(graph: GraphProto) -> None:
    """Turn FP16 input and outputs into FP32."""
    source = graph.input[0]
    if _make_float(source):
        graph.node.append(helper.make_node("Cast", [_INPUT], [source.name], to=TensorProto.FLOAT16))
        source.name = _INPUT
    for target, final in zip(graph.output, OUTPUTS, strict=False):
        if _make_float(target):
            graph.node.append(helper.make_node("Cast", [target.name], [final], to=TensorProto.FLOAT))
            target.name = final


def _make_float(value: ValueInfoProto) -> bool:
    is_half: bool = value.type.tensor_type.elem_type == TensorProto.FLOAT16
    if is_half:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return is_half


def _sort(graph: GraphProto) -> None:
    """Put each node after those whose outputs it takes, which ONNX Runtime does not require; else the order stays."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _inner(attribute):
                _sort(inner)
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits_for = [
        {maker[name] for name in (*node.input, *captured(node)) if name in maker} - {index}
        for index, node in enumerate(graph.node)
    ]
    order: list[int] = []
    placed: set[int] = set()
    for start in range(len(waits_for)):
        pending = [start]
        while pending:
            missing = waits_for[pending[-1]] - placed
            if missing and len(pending) <= len(waits_for):
                pending.append(min(missing))
                continue
            index = pending.pop()
            if index not in placed:
                placed.add(index)
                order.append(index)
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)
