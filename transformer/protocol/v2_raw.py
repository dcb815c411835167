"""A v2 request whose body is one input itself: Triton's raw binary request."""

import math

from transformer.errors import InvalidRequest
from transformer.tasks import interface
from transformer.tasks.task import IMAGES
from transformer.triton.model import Model
from transformer.triton.tensors import Tensor, from_elements, item_size

_NOT_RAW = "Inference-Header-Content-Length over 0"


def read_raw_input(model: Model, data: bytes) -> Tensor:
    """The only input of a model from its bytes alone: one encoded image, or one item of the model's own.

    Its shape is as in Triton (core's `InferenceRequest::Normalize`): a batch dimension of 1 where the model has one,
    and one free dimension by the number of bytes.

    Raises:
        InvalidRequest: the model has several inputs, or its shape does not follow from the bytes.
    """
    inputs, _ = interface(model)
    if len(inputs) != 1:
        raise InvalidRequest(f"{model.name} has {len(inputs)} inputs: expected {_NOT_RAW}")
    (only,) = inputs
    batched = model.is_batched or only is IMAGES
    batch, dims = ((1,), only.dims) if batched else ((), only.shape)
    if only.datatype == "BYTES":
        if any(size != 1 for size in dims):
            raise InvalidRequest(
                f"body: one element for input {only.name!r} BYTES {list(only.shape)}: expected {_NOT_RAW}"
            )
        return from_elements(only.name, [data], shape=(*batch, *dims))
    what = f"input {only.name!r} {only.datatype} {list(only.shape)}"
    free = dims.count(-1)
    if free > 1:
        raise InvalidRequest(f"body: {len(data)} bytes do not determine the shape of {what}: expected {_NOT_RAW}")
    fixed = math.prod(size for size in dims if size >= 0) * item_size(only.datatype)
    count = len(data) // fixed if free and fixed else 1
    if count * fixed != len(data):
        expected = f"{'a multiple of ' if free else ''}{fixed} for one item"
        raise InvalidRequest(f"body: {len(data)} bytes for {what}: expected {expected}, or {_NOT_RAW}")
    return Tensor(only.name, only.datatype, (*batch, *(count if size < 0 else size for size in dims)), data)
