"""config.pbtxt of the repository: parsed, checked, and composed into the one that Triton gets."""

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelVersionPolicy

from registry.errors import VersionRejected
from registry.judgement.allowlist import reject_unlisted

MAX_BYTES = 1024 * 1024
MAX_REASON = 200
MAX_TOGETHER = 16  # versions of a model that serve at once: each takes the memory of all
_ENGINES_KEPT, _ENGINES_PREFIX = "trt_engine_cache_enable", "trt_engine_cache_prefix"
# Backends by platform, for a config that names no backend.
_BACKENDS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
# Files that a backend reads where a config names none, in Triton's order.
_DEFAULTS = {"tensorrt": "model.plan", "onnxruntime": "model.onnx", "openvino": "model.xml"}
_SUFFIXES = {"tensorrt": (".plan",), "onnxruntime": (".onnx",), "openvino": (".xml", ".onnx")}
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Policy:
    """Which versions a model selects: the newest `latest`, or those in `specific`; all where both are None."""

    latest: int | None
    specific: frozenset[int] | None

    def __str__(self) -> str:
        if self.specific is not None:
            return f"specific {', '.join(map(str, sorted(self.specific)))}"
        return "all" if self.latest is None else f"latest {self.latest}"

    def match(self, available: Collection[int]) -> list[int]:
        """Return the available versions that the policy selects, ascending."""
        if self.specific is not None:
            return sorted(self.specific.intersection(available))
        return sorted(available)[-self.latest :] if self.latest else sorted(available)

    def select(self, available: Collection[int]) -> list[int]:
        """Return the selected versions that may serve together, ascending: the newest, where they are too many."""
        return self.match(available)[-MAX_TOGETHER:]


def parse(text: bytes, *, where: str) -> ModelConfig:
    """Read a config.pbtxt.

    Args:
        text: The file.
        where: Names it in messages.

    Raises:
        VersionRejected: it is invalid.
    """
    if len(text) > MAX_BYTES:
        raise VersionRejected(f"{where}: got {len(text)} bytes, expected at most {MAX_BYTES}")
    if text.startswith(_MARK):
        raise VersionRejected(
            f"{where}: begins with a byte-order mark, which Triton does not read: expected UTF-8 without one"
        )
    try:
        return text_format.Parse(text.decode("utf-8"), ModelConfig())
    except text_format.ParseError as exc:
        reason = str(exc).split(" : ", 1)[-1][:MAX_REASON]  # which may quote a whole line
        raise VersionRejected(f"{where}: line {exc.GetLine()}, column {exc.GetColumn()}: {reason}") from None
    except ValueError as exc:  # not UTF-8; a number that no enum can have
        raise VersionRejected(f"{where}: {exc}") from None


def check(config: ModelConfig, *, where: str) -> None:
    """Accept a config that can do no harm in the server that loads it.

    Args:
        config: As the bucket has it.
        where: Names it in messages.

    Raises:
        VersionRejected: a field or a value that is not on the list.
    """
    try:
        reject_unlisted(config)
        read_policy(config)
    except VersionRejected as exc:
        raise VersionRejected(f"{where}: {exc}") from None


def read_policy(config: ModelConfig | None) -> Policy:
    """Return the version policy as Triton understands it; `latest` 1 where there is none.

    Raises:
        VersionRejected: `specific` names no version, or one below 1.
    """
    if config is None or not config.HasField("version_policy"):
        return Policy(latest=1, specific=None)
    choice = config.version_policy.WhichOneof("policy_choice")
    if choice == "latest":
        return Policy(latest=config.version_policy.latest.num_versions or 1, specific=None)
    if choice == "specific":
        versions = frozenset(config.version_policy.specific.versions)
        if not versions or min(versions) < 1:
            raise VersionRejected(
                f"version_policy.specific.versions: got {sorted(versions)[:3]}, expected numbers from 1 on"
            )
        return Policy(latest=None, specific=versions)
    return Policy(latest=None, specific=None)


def resolve(config: ModelConfig | None, files: Collection[str] = (), *, plans: bool = False) -> ModelConfig:
    """Return the config with the backend and the file that Triton would choose, among the supported ones.

    Triton would also choose by what else lies in the folder (`model.py` is Python), or by what follows a dot in the
    model's name.

    Args:
        config: The version's, or the model's where it has none, or None.
        files: Names of those in the version's folder.
        plans: Whether TensorRT's plans may be loaded; one beside another model is passed over where not.
    """
    resolved = ModelConfig() if config is None else deepcopy(config)
    filename = resolved.default_model_filename
    if not resolved.backend:
        present = [backend for backend, name in _DEFAULTS.items() if name in files]
        if not plans and len(present) > 1:
            present = [backend for backend in present if backend != "tensorrt"]
        named = next((backend for backend, name in _DEFAULTS.items() if filename.endswith(Path(name).suffix)), None)
        found = present[0] if present and not filename else None
        backend = _BACKENDS.get(resolved.platform) or (filename and named) or found or "onnxruntime"
        if not resolved.platform:
            resolved.backend = backend
    backend = backend_of(resolved)
    if not filename:
        default = _DEFAULTS[backend]
        is_onnx = backend == "openvino" and default not in files and "model.onnx" in files
        resolved.default_model_filename = "model.onnx" if is_onnx else default
    return resolved


def backend_of(config: ModelConfig) -> str:
    """Return the backend of a config that `resolve` returned."""
    return config.backend or _BACKENDS[config.platform]


def check_formats(config: ModelConfig, *, plans: bool) -> None:
    """Check that each file has the format of its backend: files that hold ONNX are judged, and end in .onnx.

    Args:
        config: As it serves, with its profile; of `resolve`.
        plans: Whether TensorRT's plans may be loaded: they are code.

    Raises:
        VersionRejected: ONNX would be read from a file that ends otherwise, or a plan from one that ends so, or at all.
    """
    backend = backend_of(config)
    if backend == "tensorrt" and not plans:
        raise VersionRejected(
            "backend tensorrt: a plan is code; expected onnxruntime or openvino, or PREDICTOR_PLANS=true"
        )
    suffixes = _SUFFIXES[backend]
    names = {"default_model_filename": config.default_model_filename} | {
        f"cc_model_filenames['{capability}']": name for capability, name in config.cc_model_filenames.items()
    }
    for where, name in names.items():
        if not name.endswith(suffixes):
            expected = " or ".join(suffixes)
            raise VersionRejected(f"{where}: got {name!r}, expected a file that ends in {expected}: {backend} reads it")


def builds_engines(config: ModelConfig) -> bool:
    """Whether ONNX Runtime's TensorRT builds engines, with the first request at the latest: minutes."""
    return any(accelerator.name == "tensorrt" for accelerator in _gpu_accelerators(config))


def keeps_engines(config: ModelConfig) -> bool:
    """Whether ONNX Runtime's TensorRT keeps the engines that it builds."""
    return any(accelerator.parameters.get(_ENGINES_KEPT) for accelerator in _gpu_accelerators(config))


def name_engines(config: ModelConfig, prefix: str) -> None:
    """Have engines kept under a prefix, in place: they are code, and found again by nothing but their names."""
    for accelerator in _gpu_accelerators(config):
        accelerator.parameters[_ENGINES_PREFIX] = prefix


def _gpu_accelerators(config: ModelConfig) -> Any:
    return config.optimization.execution_accelerators.gpu_execution_accelerator


def contract(config: ModelConfig) -> bytes:
    """Return what the tensors and their labels mean: where it is equal, one description fits two versions."""
    kept = ModelConfig(max_batch_size=config.max_batch_size, input=config.input, output=config.output)
    _copy_metadata(config, kept)
    return _serialise(kept)


def meaning(config: ModelConfig) -> bytes:
    """Return the part of `contract` that a response depends on: all except how many items Triton takes at once."""
    kept = ModelConfig.FromString(contract(config))
    kept.ClearField("max_batch_size")
    return _serialise(kept)


def with_policy_cleared(config: ModelConfig) -> bytes:
    """Return the config without the model's name and the version policy."""
    rest = deepcopy(config)
    rest.ClearField("name")
    rest.ClearField("version_policy")
    return _serialise(rest)


def compose(own: ModelConfig | None, *, versions: Collection[int]) -> bytes:
    """Return the config.pbtxt that Triton gets.

    It has no name, so that the same folder loads under a candidate's; it names the judged backend and file.

    Args:
        own: Checked; the version's config, or the model's where it has none, or None.
        versions: Those that are loaded.
    """
    composed = resolve(own)
    composed.ClearField("name")
    composed.version_policy.CopyFrom(ModelVersionPolicy(specific={"versions": sorted(set(versions))}))
    return write(composed)


def complete(config: ModelConfig, found: ModelConfig) -> ModelConfig:
    """Return a config with the tensors that it lacks, and the batch size with them.

    Args:
        config: Of `compose`.
        found: Inputs, outputs, batch size and batching of the model; what the config has stays.
    """
    completed = deepcopy(config)
    for field in ("input", "output"):
        if not getattr(completed, field):
            getattr(completed, field).MergeFrom(getattr(found, field))
    completed.max_batch_size = completed.max_batch_size or found.max_batch_size
    if found.HasField("dynamic_batching") and not completed.HasField("dynamic_batching"):
        completed.dynamic_batching.SetInParent()
    return completed


def write(config: ModelConfig) -> bytes:
    """Return the text of a config.

    Raises:
        VersionRejected: it is too long: control characters are longer when they are written.
    """
    text: bytes = text_format.MessageToString(config, as_utf8=True).encode()
    if len(text) > MAX_BYTES:
        raise VersionRejected(f"config.pbtxt: got {len(text)} bytes when it is composed, expected at most {MAX_BYTES}")
    return text


def in_openvino(own: ModelConfig | None) -> ModelConfig | None:
    """Return the config of a version for OpenVINO in FP32, with the batches that it has now; None where it has none.

    For the embedded Triton alone: the C++ backend takes no batch but a full one, and reads neither parameter below.

    Args:
        own: As of `resolve`.
    """
    is_plain = own is not None and own.input and own.output and not own.HasField("optimization")
    if own is None or not is_plain or backend_of(own) != "onnxruntime":
        return None
    if any(group.kind == ModelInstanceGroup.KIND_GPU for group in own.instance_group):
        return None
    if own.parameters.keys() - {"metadata", "profile"}:
        return None  # how ONNX Runtime is to run it
    derived = deepcopy(own)
    derived.backend, derived.platform = "openvino", ""
    derived.ClearField("parameters")
    _copy_metadata(own, derived)
    # One stream of all threads, as ONNX Runtime has: several would take more memory than the pod was given for it.
    settings = {"ANY_BATCH": "YES", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    for name, value in settings.items():
        derived.parameters[name].string_value = value
    for group in derived.instance_group:
        group.count = max(group.count, 1)
    return derived


def merge_variant(variant: ModelConfig, own: ModelConfig | None) -> ModelConfig:
    """Return a profile's config: how to run, from the variant; what it means, from the version.

    Args:
        variant: Checked. Its tensors and batch size hold where it has any; its metadata where the version has none.
        own: As of `compose`.
    """
    composed = deepcopy(variant)
    if own is not None:
        for field in ("input", "output"):
            if not getattr(composed, field):
                getattr(composed, field).MergeFrom(getattr(own, field))
        composed.max_batch_size = composed.max_batch_size or own.max_batch_size
        _copy_metadata(own, composed)
    return composed


def _copy_metadata(source: ModelConfig, target: ModelConfig) -> None:
    if "metadata" in source.parameters:  # reading a key that is absent would add it
        target.parameters["metadata"].CopyFrom(source.parameters["metadata"])


def _serialise(config: ModelConfig) -> bytes:
    data: bytes = config.SerializeToString(deterministic=True)
    return data
