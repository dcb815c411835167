"""The fields and values that config.pbtxt of the repository may have.

Triton does what the file says: load a library, read a file, start a process. Every writer of the bucket can write it,
so nothing is accepted that `MODEL` does not list, and a field of a later Triton is rejected until it is listed.
Numbers that decide how much is allocated or started have limits.
"""

import operator
from collections.abc import Mapping, MutableSequence
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.errors import VersionRejected
from registry.judgement.limits import (
    MAX_DELAY_US,
    MAX_ELEMENTS,
    MAX_ENTRIES,
    MAX_INSTANCES,
    MAX_NAME,
    MAX_WARMUP_ELEMENTS,
)
from registry.judgement.metadata import check_metadata
from registry.judgement.rules import Allowed, MapRule, Rule, Table, each, enum, like, number, one_of, shorten
from registry.judgement.sums import check_sums
from registry.layout import LABELS, NAME

_ANY = Rule("a single value", lambda value: isinstance(value, str | int | float))
_NO = Rule("false", operator.not_)
_FLAG = like("(?i:true|false|on|off|1|0)", "true or false")
_YES_NO = like("(?i:yes|no)", "YES or NO")
_DEVICE = like(r"(?i:CPU|GPU|NPU|AUTO|MULTI|HETERO)[0-9A-Za-z.,:()-]{0,60}", "a device of OpenVINO, such as CPU")
_COUNT = number(0, 1024)
_BYTES = number(0, 2**63 - 1)
_FILE = like(NAME, "a file name without a folder")
_LABEL_FILE = like(f"{NAME}{LABELS}", "a file name that ends in .txt, .csv, .tsv, .names or .labels, without a folder")
_MODEL_FILE = like(rf"{NAME}\.(onnx|xml|plan)", "a file name that ends in .onnx, .xml or .plan, without a folder")
_NAME = Rule(f"at most {MAX_NAME} characters", lambda value: 0 < len(value) <= MAX_NAME)
_DIM = number(-1, MAX_ELEMENTS)
_BATCH = number(0, 2**20)
_SHAPES = like("[0-9A-Za-z_./:,-]+", "such as image:1x3x640x640")
# The name of an instance group becomes part of a shell command where the backend is Python-based: $(...) in it runs.
_IDENTIFIER = like("[0-9A-Za-z][0-9A-Za-z_.-]{0,62}", "at most 63 of 0-9 A-Z a-z _ . -")
# Any other key ends the whole server ("terminate called ... Invalid label name").
_LABEL = like("[A-Za-z][0-9A-Za-z_]*", "letters, digits, _")

_TENSOR: Table = {
    **each(_ANY, "is_shape_tensor", "is_non_linear_format_io"),
    "name": _NAME,
    "dims": _DIM,
    "data_type": enum(pb.DataType),
    "reshape": each(_DIM, "shape"),
}
_QUEUE_POLICY: Table = {
    **each(_ANY, "default_timeout_microseconds", "allow_timeout_override", "max_queue_size"),
    "timeout_action": enum(pb.ModelQueuePolicy.TimeoutAction),
}
_GRAPH: Table = {"batch_size": _BATCH, "input": MapRule(_NAME, {"dim": _DIM})}
# ONNX Runtime's CUDA takes addresses of functions too. Of its TensorRT, whatever reads or writes a file is left out:
# calibration tables, plugin libraries, dumps; engines may be kept in one folder.
_GPU_OPTIONS: Table = {
    **each(_FLAG, "cudnn_conv_use_max_workspace", "do_copy_in_default_stream", "use_ep_level_unified_stream"),
    **each(_FLAG, "use_tf32", "trt_build_heuristics_enable", "trt_context_memory_sharing_enable"),
    **each(_FLAG, "trt_cuda_graph_enable", "trt_detailed_build_log", "trt_dla_enable", "trt_sparsity_enable"),
    **each(_FLAG, "trt_force_sequential_engine_build", "trt_layer_norm_fp32_fallback"),
    **each(_COUNT, "trt_dla_core", "trt_max_partition_iterations", "trt_min_subgraph_size"),
    **each(_BYTES, "gpu_mem_limit", "max_workspace_size_bytes"),
    **each(_SHAPES, "trt_profile_max_shapes", "trt_profile_min_shapes", "trt_profile_opt_shapes"),
    "arena_extend_strategy": one_of("kNextPowerOfTwo", "kSameAsRequested"),
    "trt_engine_cache_enable": _FLAG,
    "trt_engine_cache_path": one_of("/tmp/tensorrt"),  # noqa: S108 - that of the container; export writes it
    "trt_engine_cache_prefix": _FILE,
    "cudnn_conv_algo_search": one_of("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "precision_mode": one_of("FP32", "FP16", "BF16", "INT8"),
    "trt_auxiliary_streams": number(-1, 64),
    "trt_builder_optimization_level": number(0, 5),
    "trt_tactic_sources": like("[A-Z0-9_,+-]+", "such as -CUDNN,+CUBLAS"),
}
_PARAMETERS: Table = {
    "metadata": _ANY,
    "reduces_pictures": one_of("true", "false"),
    # ONNX Runtime
    **each(_COUNT, "intra_op_thread_count", "inter_op_thread_count"),
    **each(_FLAG, "enable_mem_arena", "enable_mem_pattern", "share_session_between_instances"),
    **each(_FLAG, "session.use_device_allocator_for_initializers", "do_copy_in_default_stream"),
    "execution_mode": number(0, 1),
    "memory.enable_memory_arena_shrinkage": like("(cpu|gpu):[0-9]+(;(cpu|gpu):[0-9]+)*", "such as cpu:0;gpu:0"),
    "arena_extend_strategy": number(0, 1),
    "cudnn_conv_algo_search": number(0, 2),
    "gpu_mem_limit": _BYTES,
    # TensorRT
    "execution_context_allocation_strategy": one_of("STATIC", "ON_PROFILE_CHANGE"),
    # OpenVINO
    **each(_COUNT, "COMPILATION_NUM_THREADS", "INFERENCE_NUM_THREADS"),
    **each(_YES_NO, "ENABLE_BATCH_PADDING", "HINT_BF16", "RESHAPE_IO_LAYERS", "SKIP_OV_DYNAMIC_BATCHSIZE"),
    "TARGET_DEVICE": _DEVICE,
    "NUM_STREAMS": like("(?i:auto|numa)|[0-9]{1,3}", "AUTO, NUMA or a whole number"),
    "PERFORMANCE_HINT": one_of("LATENCY", "THROUGHPUT"),
}
MODEL: Table = {
    "name": _ANY,
    "platform": one_of("onnxruntime_onnx", "tensorrt_plan"),
    "backend": one_of("onnxruntime", "tensorrt", "openvino"),
    "version_policy": {"all": {}, "latest": each(_ANY, "num_versions"), "specific": each(_ANY, "versions")},
    "max_batch_size": number(1, 2**20),
    "input": {
        **_TENSOR,
        **each(_ANY, "allow_ragged_batch", "optional"),
        "format": enum(pb.ModelInput.Format),
    },
    "output": {**_TENSOR, "label_filename": _LABEL_FILE},
    "dynamic_batching": {
        "preferred_batch_size": _BATCH,
        "max_queue_delay_microseconds": number(0, MAX_DELAY_US),
        "preserve_ordering": _ANY,
        "priority_levels": _COUNT,
        "default_priority_level": _COUNT,
        "default_queue_policy": _QUEUE_POLICY,
        "priority_queue_policy": MapRule(_COUNT, _QUEUE_POLICY),
    },
    "instance_group": {
        "name": _IDENTIFIER,
        "kind": enum(pb.ModelInstanceGroup.Kind),
        "count": number(1, MAX_INSTANCES),
        "gpus": number(0, MAX_INSTANCES),
        "rate_limiter": {"resources": {"name": _IDENTIFIER, **each(_ANY, "global", "count")}, "priority": _ANY},
        "profile": _COUNT,
        "passive": _ANY,
        "host_policy": _IDENTIFIER,
    },
    "optimization": {
        **each(_ANY, "gather_kernel_buffer_threshold", "eager_batching"),
        "graph": {"level": number(-1, 2)},
        "priority": enum(pb.ModelOptimizationPolicy.ModelPriority),
        "input_pinned_memory": each(_ANY, "enable"),
        "output_pinned_memory": each(_ANY, "enable"),
        "cuda": {
            **each(_ANY, "graphs", "busy_wait_events", "output_copy_stream"),
            "graph_spec": {**_GRAPH, "graph_lower_bound": _GRAPH},
        },
        "execution_accelerators": {
            "gpu_execution_accelerator": {"name": one_of("tensorrt", "cuda"), "parameters": _GPU_OPTIONS},
            "cpu_execution_accelerator": {"name": one_of("openvino")},
        },
    },
    "default_model_filename": _MODEL_FILE,
    "cc_model_filenames": MapRule(like(r"[0-9]+\.[0-9]+", "a compute capability such as 9.0"), _MODEL_FILE),
    "metric_tags": MapRule(_LABEL, _ANY),
    "parameters": {key: {"string_value": rule} for key, rule in _PARAMETERS.items()},
    "model_warmup": {
        **each(_ANY, "batch_size", "count"),
        "name": _NAME,
        "inputs": MapRule(
            _NAME,
            {
                **each(_ANY, "zero_data", "random_data"),
                "data_type": enum(pb.DataType),
                "dims": number(1, MAX_WARMUP_ELEMENTS),
                "input_data_file": _FILE,
            },
        ),
    },
    "model_transaction_policy": {"decoupled": _NO},
    "response_cache": each(_ANY, "enable"),
}


def reject_unlisted(config: ModelConfig) -> None:
    """Accept a config that can do no harm in the server that loads it.

    Raises:
        VersionRejected: at the first field or value that is not on the list; the message begins with its path.
    """
    _check(config, MODEL, "")
    check_sums(config)
    check_metadata(config)


def _check(value: Any, allowed: Allowed, path: str) -> None:
    """Walk a message, a map, a repeated field or a single value."""
    if isinstance(value, MutableSequence | Mapping) and len(value) > MAX_ENTRIES:
        raise VersionRejected(f"{path}: got {len(value)} entries, expected at most {MAX_ENTRIES}")
    if isinstance(value, MutableSequence):
        for index, element in enumerate(value):
            _check(element, allowed, f"{path}[{index}]")
    elif isinstance(allowed, Rule):
        if not allowed.holds(value):
            raise VersionRejected(f"{path}: got {shorten(value)}, expected {allowed.expected}")
    elif isinstance(value, Mapping):
        for key in sorted(value):
            at = f"{path}[{shorten(key)}]"
            _check(value[key], _look_up(allowed, key, at), at)
    else:
        for field, content in value.ListFields():
            at = f"{path}.{field.name}" if path else field.name
            _check(content, _look_up(allowed, field.name, at), at)


def _look_up(allowed: MapRule | Table, key: Any, path: str) -> Allowed:
    """Return what is allowed at a field of a message, or at a key of a map."""
    if isinstance(allowed, MapRule):
        _check(key, allowed.key, f"the key of {path}")
        return allowed.value
    if key not in allowed:
        raise VersionRejected(f"{path}: is not accepted, expected only {', '.join(sorted(allowed)) or 'nothing'}")
    return allowed[key]
