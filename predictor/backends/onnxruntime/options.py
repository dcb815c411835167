"""Converts `config.pbtxt` to the options of an ONNX Runtime session, by the rules of the C++ backend (r24.10)."""

from collections.abc import Mapping
from typing import Any

import onnxruntime

from environment.cpus import cpu_limit
from predictor.backends.errors import ModelRejectedError

# Threads of ONNX Runtime spin while they wait for work. From image to boxes, YOLOv8n 480x640 on 2 cores took 46 ms
# without spinning, 41 with 20 us, 40 with 60 us, which spans the gap between two layers, and no less with 200; beside a
# busy process 67, 76, 81 and 95 ms. With more cores the default is harmless.
FEW_CORES = 4
SPIN_US = 50

_ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_DEVICE_ALLOCATOR = "session.use_device_allocator_for_initializers"
_GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_EXECUTION_MODES = {
    0: onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    1: onnxruntime.ExecutionMode.ORT_PARALLEL,
}
_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def compose_session_options(config: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    """Return the options of a session, from the parameters and the optimization of a model.

    Args:
        config: ModelConfig as JSON.

    Raises:
        ModelRejectedError: the C++ backend rejects a value.
    """
    options = onnxruntime.SessionOptions()
    parameters = _read_parameters(config)
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _GRAPH_LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    mode = _parse_int(parameters, "execution_mode")
    if mode not in _EXECUTION_MODES:
        raise ModelRejectedError(f"execution_mode must be 0 or 1, got {mode}")
    options.execution_mode = _EXECUTION_MODES[mode]
    if (threads := _parse_int(parameters, "intra_op_thread_count")) > 0:
        options.intra_op_num_threads = threads
    if (threads := _parse_int(parameters, "inter_op_thread_count")) > 0:
        options.inter_op_num_threads = threads
    options.enable_cpu_mem_arena = _parse_bool(parameters, "enable_mem_arena", default=True)
    options.enable_mem_pattern = _parse_bool(parameters, "enable_mem_pattern", default=True)
    # Only validated: each instance is a process of its own here, and shares no session.
    _parse_bool(parameters, "share_session_between_instances", default=False)
    if _DEVICE_ALLOCATOR in parameters:
        options.add_session_config_entry(_DEVICE_ALLOCATOR, parameters[_DEVICE_ALLOCATOR])
    if cpu_limit() <= FEW_CORES:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def compose_run_options(config: Mapping[str, Any]) -> onnxruntime.RunOptions:
    """Return the options of each run."""
    options = onnxruntime.RunOptions()
    parameters = _read_parameters(config)
    if _ARENA_SHRINKAGE in parameters:
        options.add_run_config_entry(_ARENA_SHRINKAGE, parameters[_ARENA_SHRINKAGE])
    return options


def read_threads(config: Mapping[str, Any]) -> int:
    """How many threads a run has, as far as the config says; 0: ONNX Runtime decides."""
    return _parse_int(_read_parameters(config), "intra_op_thread_count")


def select_providers(config: Mapping[str, Any]) -> list[str]:
    """Return ONNX Runtime's execution providers for the CPU accelerators of a model, the best first.

    `gpu_execution_accelerator` is for instances on a GPU only.

    Raises:
        ModelRejectedError: an accelerator is unknown, or this ONNX Runtime was built without it.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    providers = []
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            raise ModelRejectedError(f"unknown Execution Accelerator '{accelerator['name']}' is requested")
        if "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers():
            raise ModelRejectedError(
                "Execution Accelerator 'openvino' is requested, and the ONNX Runtime of the embedded Triton is built "
                "without OpenVINO; remove the accelerator, or serve this model from NVIDIA's image"
            )
        providers.append("OpenVINOExecutionProvider")
    return [*providers, "CPUExecutionProvider"]


def _read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}


def _parse_int(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name, "0")
    try:
        return int(text)
    except ValueError:
        raise ModelRejectedError(f"parameter '{name}' must be a whole number, got '{text}'") from None


def _parse_bool(parameters: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = parameters.get(name, str(default))
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ModelRejectedError(f"parameter '{name}' must be true or false, got '{text}'") from None
