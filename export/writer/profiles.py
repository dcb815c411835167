"""Profiles of a detector: whole configs of their own, for other hardware or less precision, beside config.pbtxt.

The synchroniser reads `<version>/<profile>.pbtxt`; a Triton without it reads `<model>/configs/<profile>.pbtxt`, if
it is started with `--model-config-name=<profile>`.

    fast      model.onnx in OpenVINO, in bf16 where the CPU has it
    int8      model.int8.onnx in OpenVINO; what is not quantised runs in bf16
    gpu       model.onnx in ONNX Runtime with TensorRT, FP16, which builds its engine when it loads
    tensorrt  a plan that `python -m export tensorrt` has built beside it, FP16
"""

import ast
from copy import deepcopy
from typing import Any

from export.sources.tensorrt import BATCHES, PLANS
from export.writer.config import batch_requests

PROFILES = frozenset({"fast", "int8", "gpu", "tensorrt"})
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
# The cache must outlive the process where builds should not be repeated: mount a volume there.
ENGINE_CACHE = "/tmp/tensorrt"  # noqa: S108 - in a container; ONNX Runtime makes the last folder only
_WORKSPACE_BYTES = 1 << 30


def describe_profiles(config: Any, *, digest: str, int8: bool) -> dict[str, Any]:
    """`ModelConfig` of every profile of a detector.

    Args:
        config: `ModelConfig` of config.pbtxt.
        digest: of model.onnx, hexadecimal.
        int8: whether there is a model.int8.onnx.
    """
    profiles = {"fast": _openvino(config, ONNX)}
    if int8:
        profiles["int8"] = _openvino(config, INT8)
    return profiles | {"gpu": _gpu(config, digest=digest), "tensorrt": _tensorrt(config)}


def describe_fast(config: Any) -> Any:
    """`ModelConfig` of the profile `fast` of a model without a task."""
    profile = _openvino(config, ONNX)
    del profile.parameters["reduces_pictures"]
    return profile


def _copy(config: Any, *, backend: str) -> Any:
    """A copy without the fields that say how it runs."""
    profile = deepcopy(config)
    profile.backend = backend
    for field in ("instance_group", "dynamic_batching"):
        profile.ClearField(field)
    return profile


def _openvino(config: Any, filename: str) -> Any:
    """Triton's C++ OpenVINO backend fixes the batch to `max_batch_size`, so only 1 serves a single image well."""
    profile = _copy(config, backend="openvino")
    profile.default_model_filename = filename
    if config.max_batch_size:
        profile.max_batch_size = 1
        batch_requests(profile)
    # Instances and threads depend on the machine that serves.
    group = profile.instance_group.add()
    group.kind = group.KIND_CPU
    profile.parameters["HINT_BF16"].string_value = "YES"
    # Less precision moves boxes more than this: the transformer decodes a large JPEG at the size that it needs.
    profile.parameters["reduces_pictures"].string_value = "true"
    return profile


def _gpu(config: Any, *, digest: str) -> Any:
    """TensorRT inside ONNX Runtime.

    ONNX Runtime finds an engine in its cache by the names in a graph, not by its weights: without a prefix of its own,
    a new version would be served by the engine of the version before.
    """
    profile = _on_gpu(config, backend="onnxruntime")
    accelerator = profile.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    least, usual, most = (_shapes(profile, batch) for batch in BATCHES)
    options = {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": ENGINE_CACHE,
        "trt_engine_cache_prefix": f"{config.name}-{digest[:12]}",
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": usual,
        "trt_profile_max_shapes": most,
    }
    for key, value in options.items():
        accelerator.parameters[key] = value
    return profile


def _tensorrt(config: Any) -> Any:
    profile = _on_gpu(config, backend="tensorrt")
    for capability, filename in PLANS.items():
        profile.cc_model_filenames[capability] = filename
    return profile


def _on_gpu(config: Any, *, backend: str) -> Any:
    """A profile for images of one size, which batch, with a warm-up of every batch that TensorRT builds for."""
    profile = _copy(config, backend=backend)
    metadata = ast.literal_eval(profile.parameters["metadata"].string_value)
    height, width = metadata["imgsz"]
    source = profile.input[0]
    source.dims[:] = [height, width, 3] if source.name == "image" else [3, height, width]
    profile.parameters["metadata"].string_value = repr({**metadata, "args": {"dynamic": False}})
    group = profile.instance_group.add(count=1)
    group.kind = group.KIND_GPU
    batch_requests(profile)
    profile.dynamic_batching.preferred_batch_size[:] = BATCHES[1:]
    profile.dynamic_batching.max_queue_delay_microseconds = 0
    for batch in BATCHES:
        sample = profile.model_warmup.add(name=f"batch-{batch}", batch_size=batch)
        tensor = sample.inputs[source.name]
        tensor.data_type = source.data_type
        tensor.dims[:] = source.dims
        tensor.random_data = True
    return profile


def _shapes(profile: Any, batch: int) -> str:
    """Shapes of the input, and of the tensors after it: ONNX Runtime needs that of the tensor where TensorRT begins.

    TensorRT transposes no UINT8, so that is not the image itself.
    """
    source = profile.input[0]
    if source.name != "image":
        return f"{source.name}:{_times([batch, *source.dims])}"
    height, width, channels = source.dims
    planes = _times([batch, channels, height, width])
    inner = [f"{name}:{planes}" for name in ("fused/planes", "fused/pixels", "images")]
    return ",".join([f"image:{_times([batch, height, width, channels])}", *inner])


def _times(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def describe_engine(config: Any, *, capability: str) -> Any:
    """`ModelConfig` of an engine that Ultralytics built: one GPU, all sizes that it was built for."""
    described = _copy(config, backend="tensorrt")
    described.cc_model_filenames[capability] = PLANS[capability]
    group = described.instance_group.add(count=1)
    group.kind = group.KIND_GPU
    batch_requests(described)
    return described
