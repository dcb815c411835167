"""What config.pbtxt of the repository may say.

Triton does what it says: load a library, read a file, start a process. Whoever can write to the bucket writes it, so
nothing is accepted that `_MODEL` does not list, and a field that a later Triton adds is refused until it is listed.
Numbers that decide how much is allocated or started are bounded.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.errors import VersionRejected
from registry.layout import LABELS, NAME

MAX_ENTRIES = 8192  # of a list or a map: a table with an input for each column has thousands
MAX_NAME = 512  # characters of a tensor's name: exporters write paths of modules
MAX_TENSOR_DIMS = 16  # NumPy's and Triton's clients take 32
MAX_ELEMENTS = 2**26  # of a tensor: a picture of 4,700 x 4,700 in FP32, 256 MiB; the trial holds one twice
MAX_BATCH_ELEMENTS = 2**29  # of a batch that OpenVINO makes room for when it loads: 64 pictures of 1280 x 1280, 2 GiB
MAX_SIDE_PX = 8192  # of `imgsz`: twice what the largest aerial models take
MAX_STRIDE = 1024  # of a grid: detectors have 8 to 128
MAX_CHANNELS = 64  # of a picture: satellites have 13
MAX_LABELS = 100_000  # ImageNet-21k has 21,843
MAX_LABEL = 1000  # characters of a label or of a feature's name
MAX_DELAY_US = 60_000_000  # that a request may wait for others to join it: a minute is longer than any client waits
MAX_INSTANCES = 64  # each is a process or a stream with its own copy of what it works on
MAX_THREADS = 1024  # of all instances: what the largest machines have
MAX_WARMUP_RUNS = 1000
MAX_WARMUP_ELEMENTS = 100_000_000  # of all runs together: 20 pictures of 1280 x 1280


class _Rule(NamedTuple):
    """What one value may be."""

    expected: str
    holds: Callable[[Any], bool]


class _Map(NamedTuple):
    """A map whose keys are the model's own."""

    key: _Rule
    value: "_Allowed"


# Of a message by field, of a map with fixed keys by key. A repeated field has the rule of its elements.
_Allowed: TypeAlias = "_Rule | _Map | Mapping[str, _Allowed]"
_Table: TypeAlias = Mapping[str, _Allowed]


def _one_of(*values: str) -> _Rule:
    return _Rule(f"one of {', '.join(values)}", lambda value: value in values)


def _enum(wrapper: Any) -> _Rule:
    return _Rule(f"one of {', '.join(wrapper.keys())}", lambda value: value in wrapper.values())


def _like(pattern: str, expected: str) -> _Rule:
    return _Rule(expected, lambda value: re.fullmatch(pattern, value) is not None)


def _number(low: int, high: int) -> _Rule:
    """Accept an integer, or a string that is one: so are the options of backends."""

    def holds(value: Any) -> bool:
        return re.fullmatch("-?[0-9]{1,19}", str(value)) is not None and low <= int(value) <= high

    return _Rule(f"a whole number from {low} to {high}", holds)


def _each(rule: _Rule, *names: str) -> dict[str, _Allowed]:
    return dict.fromkeys(names, rule)


_ANY = _Rule("a single value", lambda value: isinstance(value, str | int | float))
_NO = _Rule("false", operator.not_)
_FLAG = _like("(?i:true|false|on|off|1|0)", "true or false")
_YES_NO = _like("(?i:yes|no)", "YES or NO")
_DEVICE = _like(r"(?i:CPU|GPU|NPU|AUTO|MULTI|HETERO)[0-9A-Za-z.,:()-]{0,60}", "a device of OpenVINO, such as CPU")
_COUNT = _number(0, 1024)
_BYTES = _number(0, 2**63 - 1)
_FILE = _like(NAME, "a file name without a folder")
_LABEL_FILE = _like(f"{NAME}{LABELS}", "a file name that ends in .txt, .csv, .tsv, .names or .labels, without a folder")
_MODEL_FILE = _like(rf"{NAME}\.(onnx|xml|plan)", "a file name that ends in .onnx, .xml or .plan, without a folder")
_NAME = _Rule(f"at most {MAX_NAME} characters", lambda value: 0 < len(value) <= MAX_NAME)
_DIM = _number(-1, MAX_ELEMENTS)
_BATCH = _number(0, 2**20)
_SHAPES = _like("[0-9A-Za-z_./:,-]+", "such as image:1x3x640x640")
# The name of an instance group becomes part of a shell command where the backend is Python-based: $(...) in it runs.
_IDENTIFIER = _like("[0-9A-Za-z][0-9A-Za-z_.-]{0,62}", "at most 63 of 0-9 A-Z a-z _ . -")
# Any other key ends the whole server ("terminate called ... Invalid label name").
_LABEL = _like("[A-Za-z][0-9A-Za-z_]*", "letters, digits, _")

_TENSOR: _Table = {
    **_each(_ANY, "is_shape_tensor", "is_non_linear_format_io"),
    "name": _NAME,
    "dims": _DIM,
    "data_type": _enum(pb.DataType),
    "reshape": _each(_DIM, "shape"),
}
_QUEUE_POLICY: _Table = {
    **_each(_ANY, "default_timeout_microseconds", "allow_timeout_override", "max_queue_size"),
    "timeout_action": _enum(pb.ModelQueuePolicy.TimeoutAction),
}
_THREADS = ("intra_op_thread_count", "inter_op_thread_count", "INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS")
_GRAPH: _Table = {"batch_size": _BATCH, "input": _Map(_NAME, {"dim": _DIM})}
# ONNX Runtime's CUDA takes addresses of functions too. Of its TensorRT, whatever reads or writes a file is left out:
# calibration tables, plugin libraries, dumps; engines may be kept in one folder.
_GPU_OPTIONS: _Table = {
    **_each(_FLAG, "cudnn_conv_use_max_workspace", "do_copy_in_default_stream", "use_ep_level_unified_stream"),
    **_each(_FLAG, "use_tf32", "trt_build_heuristics_enable", "trt_context_memory_sharing_enable"),
    **_each(_FLAG, "trt_cuda_graph_enable", "trt_detailed_build_log", "trt_dla_enable", "trt_sparsity_enable"),
    **_each(_FLAG, "trt_force_sequential_engine_build", "trt_layer_norm_fp32_fallback"),
    **_each(_COUNT, "trt_dla_core", "trt_max_partition_iterations", "trt_min_subgraph_size"),
    **_each(_BYTES, "gpu_mem_limit", "max_workspace_size_bytes"),
    **_each(_SHAPES, "trt_profile_max_shapes", "trt_profile_min_shapes", "trt_profile_opt_shapes"),
    "arena_extend_strategy": _one_of("kNextPowerOfTwo", "kSameAsRequested"),
    "trt_engine_cache_enable": _FLAG,
    "trt_engine_cache_path": _one_of("/tmp/tensorrt"),  # noqa: S108 - that of the container; export writes it
    "trt_engine_cache_prefix": _FILE,
    "cudnn_conv_algo_search": _one_of("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "precision_mode": _one_of("FP32", "FP16", "BF16", "INT8"),
    "trt_auxiliary_streams": _number(-1, 64),
    "trt_builder_optimization_level": _number(0, 5),
    "trt_tactic_sources": _like("[A-Z0-9_,+-]+", "such as -CUDNN,+CUBLAS"),
}
_PARAMETERS: _Table = {
    "metadata": _ANY,
    "reduces_pictures": _one_of("true", "false"),
    # ONNX Runtime
    **_each(_COUNT, "intra_op_thread_count", "inter_op_thread_count"),
    **_each(_FLAG, "enable_mem_arena", "enable_mem_pattern", "share_session_between_instances"),
    **_each(_FLAG, "session.use_device_allocator_for_initializers", "do_copy_in_default_stream"),
    "execution_mode": _number(0, 1),
    "memory.enable_memory_arena_shrinkage": _like("(cpu|gpu):[0-9]+(;(cpu|gpu):[0-9]+)*", "such as cpu:0;gpu:0"),
    "arena_extend_strategy": _number(0, 1),
    "cudnn_conv_algo_search": _number(0, 2),
    "gpu_mem_limit": _BYTES,
    # TensorRT
    "execution_context_allocation_strategy": _one_of("STATIC", "ON_PROFILE_CHANGE"),
    # OpenVINO
    **_each(_COUNT, "COMPILATION_NUM_THREADS", "INFERENCE_NUM_THREADS"),
    **_each(_YES_NO, "ENABLE_BATCH_PADDING", "HINT_BF16", "RESHAPE_IO_LAYERS", "SKIP_OV_DYNAMIC_BATCHSIZE"),
    "TARGET_DEVICE": _DEVICE,
    "NUM_STREAMS": _like("(?i:auto|numa)|[0-9]{1,3}", "AUTO, NUMA or a whole number"),
    "PERFORMANCE_HINT": _one_of("LATENCY", "THROUGHPUT"),
}
_MODEL: _Table = {
    "name": _ANY,
    "platform": _one_of("onnxruntime_onnx", "tensorrt_plan"),
    "backend": _one_of("onnxruntime", "tensorrt", "openvino"),
    "version_policy": {"all": {}, "latest": _each(_ANY, "num_versions"), "specific": _each(_ANY, "versions")},
    "max_batch_size": _number(1, 2**20),
    "input": {
        **_TENSOR,
        **_each(_ANY, "allow_ragged_batch", "optional"),
        "format": _enum(pb.ModelInput.Format),
    },
    "output": {**_TENSOR, "label_filename": _LABEL_FILE},
    "dynamic_batching": {
        "preferred_batch_size": _BATCH,
        "max_queue_delay_microseconds": _number(0, MAX_DELAY_US),
        "preserve_ordering": _ANY,
        "priority_levels": _COUNT,
        "default_priority_level": _COUNT,
        "default_queue_policy": _QUEUE_POLICY,
        "priority_queue_policy": _Map(_COUNT, _QUEUE_POLICY),
    },
    "instance_group": {
        "name": _IDENTIFIER,
        "kind": _enum(pb.ModelInstanceGroup.Kind),
        "count": _number(1, MAX_INSTANCES),
        "gpus": _number(0, MAX_INSTANCES),
        "rate_limiter": {"resources": {"name": _IDENTIFIER, **_each(_ANY, "global", "count")}, "priority": _ANY},
        "profile": _COUNT,
        "passive": _ANY,
        "host_policy": _IDENTIFIER,
    },
    "optimization": {
        **_each(_ANY, "gather_kernel_buffer_threshold", "eager_batching"),
        "graph": {"level": _number(-1, 2)},
        "priority": _enum(pb.ModelOptimizationPolicy.ModelPriority),
        "input_pinned_memory": _each(_ANY, "enable"),
        "output_pinned_memory": _each(_ANY, "enable"),
        "cuda": {
            **_each(_ANY, "graphs", "busy_wait_events", "output_copy_stream"),
            "graph_spec": {**_GRAPH, "graph_lower_bound": _GRAPH},
        },
        "execution_accelerators": {
            "gpu_execution_accelerator": {"name": _one_of("tensorrt", "cuda"), "parameters": _GPU_OPTIONS},
            "cpu_execution_accelerator": {"name": _one_of("openvino")},
        },
    },
    "default_model_filename": _MODEL_FILE,
    "cc_model_filenames": _Map(_like(r"[0-9]+\.[0-9]+", "a compute capability such as 9.0"), _MODEL_FILE),
    "metric_tags": _Map(_LABEL, _ANY),
    "parameters": {key: {"string_value": rule} for key, rule in _PARAMETERS.items()},
    "model_warmup": {
        **_each(_ANY, "batch_size", "count"),
        "name": _NAME,
        "inputs": _Map(
            _NAME,
            {
                **_each(_ANY, "zero_data", "random_data"),
                "data_type": _enum(pb.DataType),
                "dims": _number(1, MAX_WARMUP_ELEMENTS),
                "input_data_file": _FILE,
            },
        ),
    },
    "model_transaction_policy": {"decoupled": _NO},
    "response_cache": _each(_ANY, "enable"),
}


def refuse_unlisted(config: ModelConfig) -> None:
    """Accept a config that can do no harm in the server that loads it.

    Raises:
        VersionRejected: at the first field or value that is not on the list; the message begins with its path.
    """
    _check(config, _MODEL, "")
    _check_sums(config)


def _check(value: Any, allowed: _Allowed, path: str) -> None:
    """Walk a message, a map, a repeated field or a single value."""
    if isinstance(value, MutableSequence | Mapping) and len(value) > MAX_ENTRIES:
        raise VersionRejected(f"{path}: got {len(value)} entries, expected at most {MAX_ENTRIES}")
    if isinstance(value, MutableSequence):
        for index, element in enumerate(value):
            _check(element, allowed, f"{path}[{index}]")
    elif isinstance(allowed, _Rule):
        if not allowed.holds(value):
            raise VersionRejected(f"{path}: got {_shorten(value)}, expected {allowed.expected}")
    elif isinstance(value, Mapping):
        for key in sorted(value):
            at = f"{path}[{_shorten(key)}]"
            _check(value[key], _look_up(allowed, key, at), at)
    else:
        for field, content in value.ListFields():
            at = f"{path}.{field.name}" if path else field.name
            _check(content, _look_up(allowed, field.name, at), at)


def _look_up(allowed: _Map | _Table, key: Any, path: str) -> _Allowed:
    """Return what is allowed at a field of a message, or at a key of a map."""
    if isinstance(allowed, _Map):
        _check(key, allowed.key, f"the key of {path}")
        return allowed.value
    if key not in allowed:
        raise VersionRejected(f"{path}: is not accepted, expected only {', '.join(sorted(allowed)) or 'nothing'}")
    return allowed[key]


def _check_sums(config: ModelConfig) -> None:
    """Check what no single value shows."""
    batching = config.dynamic_batching
    delay = batching.max_queue_delay_microseconds
    if delay and (batching.HasField("default_queue_policy") or batching.priority_queue_policy):
        raise VersionRejected(
            f"dynamic_batching.max_queue_delay_microseconds: got {delay}, expected 0 beside a queue policy: "
            "Triton's count of waiting requests leaks otherwise (issue 8870 of triton-inference-server/server)"
        )
    instances = sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group)
    if instances > MAX_INSTANCES:
        raise VersionRejected(f"instance_group: got {instances} instances, expected at most {MAX_INSTANCES}")
    if config.instance_group and all(group.passive for group in config.instance_group):
        raise VersionRejected(
            "instance_group: got passive in all of them, expected one that is not: Triton ends with the first request"
        )
    threads = 1
    for name in _THREADS:
        if name in config.parameters:
            threads = max(threads, int(config.parameters[name].string_value or 1))
    if max(instances, 1) * threads > MAX_THREADS:
        raise VersionRejected(
            f"instance_group: got {instances} instances of {threads} threads, expected {MAX_THREADS} in all"
        )
    _check_warmup(config)
    _check_tensors(config)
    _check_metadata(config)


def _check_warmup(config: ModelConfig) -> None:
    runs = sum(max(sample.count, 1) for sample in config.model_warmup)
    if runs > MAX_WARMUP_RUNS:
        raise VersionRejected(f"model_warmup: got {runs} runs, expected at most {MAX_WARMUP_RUNS}")
    elements = sum(
        _multiply((max(sample.count, 1), max(sample.batch_size, 1), *tensor.dims), most=MAX_WARMUP_ELEMENTS)
        for sample in config.model_warmup
        for tensor in sample.inputs.values()
    )
    if elements > MAX_WARMUP_ELEMENTS:
        raise VersionRejected(f"model_warmup: got more than {MAX_WARMUP_ELEMENTS} elements in all runs, expected fewer")


def _check_tensors(config: ModelConfig) -> None:
    for where, tensors in (("input", config.input), ("output", config.output)):
        for index, tensor in enumerate(tensors):
            for name, dims in (("dims", tensor.dims), ("reshape.shape", tensor.reshape.shape)):
                if len(dims) > MAX_TENSOR_DIMS:
                    raise VersionRejected(
                        f"{where}[{index}].{name}: got {len(dims)}, expected at most {MAX_TENSOR_DIMS}"
                    )
                if _multiply(map(abs, dims), most=MAX_ELEMENTS) > MAX_ELEMENTS:
                    raise VersionRejected(
                        f"{where}[{index}].{name}: got {_shorten(list(dims))}, expected at most {MAX_ELEMENTS} elements"
                    )
            batch = _multiply((config.max_batch_size, *map(abs, tensor.dims)), most=MAX_BATCH_ELEMENTS)
            if config.backend == "openvino" and batch > MAX_BATCH_ELEMENTS:
                raise VersionRejected(
                    f"max_batch_size: got {config.max_batch_size} of {where} {_shorten(tensor.name)}, expected at most "
                    f"{MAX_BATCH_ELEMENTS} elements in a batch of openvino"
                )


def _check_metadata(config: ModelConfig) -> None:
    """Check the numbers of `parameters.metadata` that the transformer makes room by; the rest it judges itself."""
    if "metadata" not in config.parameters:
        return
    text = config.parameters["metadata"].string_value
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested deeply
        metadata = None
    if not isinstance(metadata, dict):
        raise VersionRejected(f"parameters.metadata: got {_shorten(text)}, expected a Python dict")
    given = {key: value for key, value in metadata.items() if value is not None}
    imgsz = given.get("imgsz", 1)
    sides = _read_numbers("imgsz", imgsz if isinstance(imgsz, list | tuple) else [imgsz, imgsz], MAX_SIDE_PX)
    channels = _read_numbers("channels", [given.get("channels", 1)], MAX_CHANNELS)
    _read_numbers("stride", [given.get("stride", 1)], MAX_STRIDE)
    if _multiply((*sides, *channels), most=MAX_ELEMENTS) > MAX_ELEMENTS:
        raise VersionRejected(
            f"parameters.metadata: imgsz: got {_shorten(imgsz)}, expected at most {MAX_ELEMENTS} elements"
        )
    categories = given.get("categories", {})
    if not isinstance(categories, dict) or not all(isinstance(own, list | tuple) for own in categories.values()):
        raise VersionRejected(f"parameters.metadata: categories: got {_shorten(categories)}, expected a dict of lists")
    texts = [value for own in categories.values() for value in own if not isinstance(value, int | float)]
    if sum(map(len, categories.values())) > MAX_LABELS:
        raise VersionRejected(f"parameters.metadata: categories: got too many, expected at most {MAX_LABELS} in all")
    given |= {"categories": [*categories, *texts]}
    for key in ("names", "features", "missing", "categories"):
        words = given.get(key, ())
        words = list(words.values()) if isinstance(words, dict) else words
        if not isinstance(words, list | tuple):
            raise VersionRejected(f"parameters.metadata: {key}: got {_shorten(words)}, expected a dict or a list")
        if len(words) > MAX_LABELS:
            raise VersionRejected(f"parameters.metadata: {key}: got {len(words)}, expected at most {MAX_LABELS}")
        for word in words:
            if not isinstance(word, str) or len(word) > MAX_LABEL:
                expected = f"texts of at most {MAX_LABEL} characters"
                raise VersionRejected(f"parameters.metadata: {key}: got {_shorten(word)}, expected {expected}")


def _read_numbers(key: str, numbers: Iterable[Any], most: int) -> list[int]:
    read = []
    for number in numbers:
        is_whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
        if not is_whole or not 1 <= number <= most:
            raise VersionRejected(
                f"parameters.metadata: {key}: got {_shorten(number)}, expected a whole number from 1 to {most}"
            )
        read.append(int(number))
    return read


def _multiply(factors: Iterable[int], *, most: int) -> int:
    """The product, or a number above `most` where it is above: factors may be many, and large."""
    return reduce(lambda product, factor: min(product * factor, most + 1), factors, 1)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
