"""Any ONNX file to a version that is served with its own tensors: what Triton's ONNX Runtime backend needs to load it.

Whether its first dimension counts items is found by running it: two items alone, then both together. Golden outputs are
those of ONNX Runtime for an input that is made up, or for one that the user has.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError
from export.graph import compatibility
from export.proof.session import LowPrecisionSession, Session
from export.sources.choice import Reporter
from export.sources.onnx_file import read_onnx
from export.writer.config import describe_tensors
from export.writer.manifest import Source, digest
from export.writer.profiles import describe_fast
from export.writer.repository import Version
from registry.errors import VersionRejected
from registry.golden_outputs import check_golden_outputs
from transformer.tasks import describe

Arrays = Mapping[str, NDArray[Any]]

TASK = "tensors"  # in manifest.json, of a version whose config names no task
# Operators beyond the standard that every build of ONNX Runtime has.
_DOMAINS = frozenset({"com.microsoft", "ai.onnx.ml"})
_SIZES = (32, 224, 16, 8, 128, 1, 2, 3, 64, 640)  # of free dims, tried in turn
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4  # a batch and its items differ by the order of sums
_SEED = 0


@dataclass(frozen=True)
class _Run:
    """Whether and how a file runs.

    Attributes:
        golden: inputs and outputs of one item, as the graph has their dims; empty where no input runs.
        batches: whether items can be put together in the first dimension.
        warnings: what could not be verified.
    """

    golden: Arrays
    batches: bool
    warnings: Sequence[str] = ()


def prepare(name: str, path: Path, *, inputs: Path | None, max_batch_size: int, report: Reporter) -> Version:
    """Bring a file into the form that is served, and run it.

    Args:
        name: of the model.
        path: of the ONNX file.
        inputs: an .npz file with an array for each input; None: they are made up.
        max_batch_size: items in one request to Triton, of a file that batches; 0: none does.
        report: shows the steps and the warnings.

    Raises:
        ExportError: Triton would not load it, or `inputs` do not run.
    """
    report.say(f"read {path.name}")
    model = read_onnx(path)
    session = Session(model, name=str(path))
    for tensor, found in {**session.inputs, **session.outputs}.items():
        if found.datatype == "TYPE_INVALID":
            raise ExportError(f"{path}: {tensor}: got a datatype that Triton does not have; next: a Cast in the graph")
    report.say("run it")
    given = _read_inputs(inputs, session) if inputs else None
    run = _try(session, given)
    for warning in run.warnings:
        report.warn(f"{path.name}: {warning}")
    graph = _declare_outputs(model, session, run.golden)
    compatibility.check(graph, beside=_DOMAINS)
    session = Session(graph, name=str(path))
    size = max_batch_size if run.batches else 0
    config = describe_tensors(name, session.inputs, session.outputs, max_batch_size=size)
    describe(config, version="0")
    golden = {tensor: _to_wire(array, bool(size)) for tensor, array in run.golden.items()}
    version = Version(
        graph=graph,
        config=config,
        task=TASK,
        interface=None,
        source=Source(path.name, digest(path)),
        parity={"compared_with": "ONNX Runtime", "batch": "verified" if run.batches else "none"},
        golden=golden,
    )
    return _add_fast(version, run.golden, report=report)


def _read_inputs(path: Path, session: Session) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            given = dict(arrays)
    except (OSError, ValueError) as exc:
        raise ExportError(f"--inputs {path}: got no .npz file ({exc}), expected an array for each input") from exc
    if given.keys() != session.inputs.keys():
        raise ExportError(f"--inputs {path}: got {sorted(given)}, expected {sorted(session.inputs)}")
    return {name: array.astype(object) if array.dtype.kind in "SU" else array for name, array in given.items()}


def _try(session: Session, given: Arrays | None) -> _Run:
    """Run items alone and together, with the inputs of a user or made-up ones of several sizes."""
    may_batch = all(tensor.shape[:1] == (-1,) for tensor in (*session.inputs.values(), *session.outputs.values()))
    if given is not None:
        outputs = session.infer(given)
        return _Run({**given, **outputs}, may_batch and _batches(session, given))
    reason = ""
    for size in _SIZES if any(-1 in tensor.shape for tensor in session.inputs.values()) else _SIZES[:1]:
        feeds = _make_up(session, size=size, may_batch=may_batch)
        try:
            outputs, again = session.infer(feeds), session.infer(feeds)
        except ExportError as exc:
            reason = reason or str(exc)
            continue
        batches = may_batch and _batches(session, feeds)
        warnings = [] if batches or not may_batch else ["a batch differs from its items, so that Triton makes none"]
        if not _same(outputs, again):
            warnings.append("two runs differ, so that no golden outputs verify it")
            return _Run({}, batches, warnings)
        finite = all(np.isfinite(each).all() for each in outputs.values() if each.dtype.kind == "f")
        if not finite:
            warnings.append("made-up inputs give NaN or infinity, so that no golden outputs verify it; next: --inputs")
        return _Run({**feeds, **outputs} if finite else {}, batches, warnings)
    what = f"no made-up input runs ({reason}), so that no golden outputs verify it, and Triton makes no batches"
    return _Run({}, batches=False, warnings=[f"{what}; next: --inputs FILE.npz"])


def _make_up(session: Session, *, size: int, may_batch: bool) -> dict[str, NDArray[Any]]:
    """An input of each tensor; free dims have a size, the first one is 1 where it may be the batch."""
    random = np.random.default_rng(_SEED)
    feeds = {}
    for name, tensor in session.inputs.items():
        shape = [size if dim < 0 else dim for dim in tensor.shape]
        if tensor.shape[:1] == (-1,) and may_batch:
            shape[0] = 1
        feeds[name] = _draw(random, tensor.datatype, tuple(shape))
    return feeds


def _draw(random: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype == "TYPE_STRING":
        return np.full(shape, "1", object)
    if datatype == "TYPE_BOOL":
        return random.integers(0, 2, shape).astype(bool)
    kind = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}.get(datatype)
    if kind is not None:
        return random.random(shape).astype(kind)
    whole = np.dtype(datatype.removeprefix("TYPE_").lower())
    # Small numbers, which are valid indices of most tables; pixels are all that they may be.
    return random.integers(0, 256 if datatype == "TYPE_UINT8" else 2, shape).astype(whole)


def _batches(session: Session, item: Arrays) -> bool:
    """Whether two items together have the outputs of each."""
    one = {name: array[:1] for name, array in item.items()}
    random = np.random.default_rng(_SEED + 1)
    other = {
        name: array if array.dtype == object else random.permuted(array.reshape(-1)).reshape(array.shape)
        for name, array in one.items()
    }
    try:
        alone = [session.infer(one), session.infer(other)]
        together = session.infer({name: np.concatenate([one[name], other[name]]) for name in one})
    except ExportError:
        return False
    return all(
        len(both) == 2 and _close(both[:1], first) and _close(both[1:], second)
        for both, first, second in zip(together.values(), *(each.values() for each in alone), strict=True)
    )


def _close(got: NDArray[Any], expected: NDArray[Any]) -> bool:
    if got.shape != expected.shape:
        return False
    if got.dtype.kind not in "fc":
        return bool(np.array_equal(got, expected))
    return bool(np.allclose(got, expected, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True))


def _same(outputs: Arrays, again: Arrays) -> bool:
    return all(_close(again[name], array) for name, array in outputs.items())


def _declare_outputs(model: ModelProto, session: Session, golden: Arrays) -> ModelProto:
    """Declare the dims of outputs that ONNX Runtime infers, and how many one has of which the file does not say that.

    Triton compares them with those of the config, and how much a runtime infers depends on its version. Of an output
    without them its backend makes a scalar.
    """
    declared = deepcopy(model)
    for output in declared.graph.output:
        tensor, shape = output.type.tensor_type, session.outputs[output.name].shape
        if not tensor.HasField("shape"):
            tensor.shape.SetInParent()
            for index in range(len(shape) or (golden[output.name].ndim if output.name in golden else 0)):
                tensor.shape.dim.add(dim_param=f"{output.name}/{index}")
        for dim, size in zip(tensor.shape.dim, shape, strict=False):
            if size >= 0:
                dim.dim_value = size
    return declared


def _to_wire(array: NDArray[Any], batched: bool) -> NDArray[Any]:
    """An array as the config has its dims: a scalar, or an item without dims of its own, has one."""
    if array.dtype == object:
        array = np.array([_encode(text) for text in array.reshape(-1)], np.bytes_).reshape(array.shape)
    return array.reshape(*array.shape, 1) if array.ndim < (2 if batched else 1) else array


def _encode(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _add_fast(version: Version, golden: Arrays, *, report: Reporter) -> Version:
    """A version with the profile `fast`, where OpenVINO gives the golden outputs."""
    inputs = {tensor.name: golden[tensor.name] for tensor in version.config.input if tensor.name in golden}
    if not inputs or version.graph is None:
        return version
    report.say("try the profiles that run here")
    profile = describe_fast(version.config)
    try:
        session = LowPrecisionSession(version.graph, name=f"{version.config.name} in OpenVINO")
        compatibility.check_loads(session.inputs, session.outputs, profile)
        outputs = {
            name: _to_wire(array, version.config.max_batch_size > 0) for name, array in session.infer(inputs).items()
        }
        check_golden_outputs(outputs, {name: version.golden[name] for name in outputs}, profile)
    except (ExportError, VersionRejected) as exc:
        report.warn(f"profile fast is left out: {exc}")
        return version
    return replace(version, profiles={"fast": profile})
