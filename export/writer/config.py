"""config.pbtxt of exported models, by Triton's own protobuf."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.writer.manifest import Interface
from registry.config import parse

DETECTOR_BATCH = 8
CLASSIFIER_BATCH = 8
TABLE_BATCH = 1024

Dims = Sequence[int]
# name, datatype, dims without the batch dimension
Tensor = tuple[str, str, Dims]


def describe_detector(  # noqa: PLR0913 - one argument for each fact
    name: str,
    *,
    interface: Interface,
    size_hw: tuple[int, int] | None,
    classes: int,
    metadata: Mapping[str, Any],
    rest: int = 0,
    dims: Mapping[str, Dims] | None = None,
) -> Any:
    """`ModelConfig` of a model that finds objects.

    Args:
        name: of the model.
        interface: decides the tensors.
        size_hw: height and width of the input where they are fixed, None where they are free.
        classes: how many.
        metadata: for the transformer and for Ultralytics' client.
        rest: numbers of each candidate beside its box and its classes, see `graph.head.Layout`.
        dims: of outputs, as the graph has them, without the batch dimension: Triton wants a dim to be fixed where the
            graph fixes it, and free otherwise. None: free where the interface leaves it free.
    """
    height, width = size_hw or (-1, -1)
    task = metadata["task"]
    if interface == "fused":
        image: Tensor = ("image", "TYPE_UINT8", (height, width, 3))
        outputs: list[Tensor] = [
            ("boxes", "TYPE_FP32", (-1, 4)),
            ("scores", "TYPE_FP32", (-1,)),
            ("classes", "TYPE_INT32", (-1,)),
            *_rest_outputs(task, rest, metadata),
        ]
        if task == "detect" and not metadata.get("end2end"):
            metadata = {**metadata, "all_candidates": True}
    else:
        image = ("images", "TYPE_FP32", (3, height, width))
        columns = (4 + classes if metadata.get("class_scores") else 6) + rest
        outputs = [("output0", "TYPE_FP32", (-1, columns) if metadata.get("end2end") else (4 + classes + rest, -1))]
        if task == "segment":
            outputs.append(("output1", "TYPE_FP32", (rest, -1, -1)))
    if dims is not None:
        outputs = [(output, datatype, dims[output]) for output, datatype, _ in outputs]
    return describe_model(name, image, outputs=outputs, max_batch_size=DETECTOR_BATCH, metadata=metadata)


def _rest_outputs(task: str, rest: int, metadata: Mapping[str, Any]) -> list[Tensor]:
    """Outputs of the `fused` interface beside boxes, scores and classes."""
    if task == "segment":
        return [("coefficients", "TYPE_FP32", (-1, rest)), ("prototypes", "TYPE_FP32", (rest, -1, -1))]
    if task == "pose":
        return [("keypoints", "TYPE_FP32", (-1, *metadata["kpt_shape"]))]
    return [("angles", "TYPE_FP32", (-1,))] if task == "obb" else []


def describe_classifier(name: str, *, size_hw: tuple[int, int], channels: int, metadata: Mapping[str, Any]) -> Any:
    """`ModelConfig` of an image classifier; `metadata["names"]` are the classes."""
    image: Tensor = ("image", "TYPE_UINT8", (*size_hw, channels))
    output: Tensor = ("probabilities", "TYPE_FP32", (len(metadata["names"]),))
    return describe_model(name, image, outputs=[output], max_batch_size=CLASSIFIER_BATCH, metadata=metadata)


def describe_table(
    name: str, *, inputs: Mapping[str, tuple[str, int]], output: tuple[str, int], metadata: Mapping[str, Any]
) -> Any:
    """`ModelConfig` of a table model.

    Args:
        name: of the model.
        inputs: v2 datatype and width of each, by name.
        output: name and width of the output.
        metadata: `features`, and `names` of a classifier; see docs/tables.md.
    """
    tensors: list[Tensor] = [
        (tensor, f"TYPE_{datatype}".replace("BYTES", "STRING"), (width,))
        for tensor, (datatype, width) in inputs.items()
    ]
    result: Tensor = (output[0], "TYPE_FP32", (output[1],))
    return describe_model(name, *tensors, outputs=[result], max_batch_size=TABLE_BATCH, metadata=metadata)


def to_text(config: Any) -> str:
    """config.pbtxt."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text


def read_config(path: Path) -> Any:
    """`ModelConfig` of a config.pbtxt.

    Raises:
        VersionRejected: it is invalid.
    """
    return parse(path.read_bytes(), where=str(path))


def follow(newest: Any, present: Any | None) -> Any | None:
    """The config.pbtxt of a model after a version is added; None where it stays.

    It is that of the newest version, with the version policy of the present one. A policy of `specific` pins a version
    whose tensors may differ from the new one's: then the file stays.

    Args:
        newest: `ModelConfig` of the version.
        present: `ModelConfig` of the model, None where it has none yet.
    """
    if present is None:
        return newest
    if present.version_policy.HasField("specific"):
        return None
    composed = under_policy(newest, present)
    return None if composed == present else composed


def under_policy(config: Any, present: Any) -> Any:
    """A config with the version policy of another one, where it has one."""
    composed = deepcopy(config)
    if present.HasField("version_policy"):
        composed.version_policy.CopyFrom(present.version_policy)
    return composed


_LONGEST_WAIT_US = 3600 * 1_000_000


def batch_requests(config: Any) -> None:
    """Let Triton make batches of requests, and drop those whose `timeout` ends in its queue.

    A `max_queue_delay_microseconds` above 0 beside that leaks (issue 8870 of triton-inference-server/server).
    """
    policy = config.dynamic_batching.default_queue_policy
    policy.allow_timeout_override = True
    # The timeout of a request counts where it is shorter than this one.
    policy.default_timeout_microseconds = _LONGEST_WAIT_US


def describe_model(
    name: str, *inputs: Tensor, outputs: Sequence[Tensor], max_batch_size: int, metadata: Mapping[str, Any]
) -> Any:
    """`ModelConfig` of a model of any task.

    Args:
        name: of the model.
        inputs: of the graph.
        outputs: of the graph.
        max_batch_size: items in one request to Triton.
        metadata: `task`, and what the task reads: `imgsz`, `names`, `Task.facts`.
    """
    config = model_config_pb2.ModelConfig(name=name, backend="onnxruntime", max_batch_size=max_batch_size)
    for tensors, (tensor, datatype, dims) in [
        *((config.input, source) for source in inputs),
        *((config.output, out) for out in outputs),
    ]:
        tensors.add(name=tensor, data_type=model_config_pb2.DataType.Value(datatype), dims=dims)
    # Triton's default on CPU is two instances.
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    batch_requests(config)
    # No thread counts: they depend on the machine that serves.
    config.parameters["metadata"].string_value = repr(dict(metadata))
    return config


def describe_tensors(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, max_batch_size: int) -> Any:
    """`ModelConfig` of a model without a task, which is served with its own tensors.

    Args:
        name: of the model.
        inputs: `predictor.backends.signature.Tensor` by name.
        outputs: likewise.
        max_batch_size: items in one request to Triton; 0 where its first dimension counts none.
    """
    config = model_config_pb2.ModelConfig(name=name, backend="onnxruntime", max_batch_size=max_batch_size)
    for tensors, described in ((config.input, inputs), (config.output, outputs)):
        for tensor, found in described.items():
            dims = found.shape[1:] if max_batch_size else found.shape
            added = tensors.add(
                name=tensor, data_type=model_config_pb2.DataType.Value(found.datatype), dims=dims or [1]
            )
            if max_batch_size and not dims:
                added.reshape.SetInParent()  # to no dims
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if max_batch_size:
        batch_requests(config)
    return config
