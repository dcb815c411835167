"""Messages of the v2 protocol's ModelInfer, as both transports read and write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformer.admission import Deadline
from transformer.triton.tensors import Tensor

CLASS_COUNTS = range(2**31)  # of best classes, in the classification extension; 0 disables it


@dataclass(frozen=True)
class InferRequest:
    """A request of ModelInfer.

    Attributes:
        model: name of the model.
        inputs: the tensors.
        deadline: when the response is of no use any more.
        version: the requested one, or "" for the one that serves.
        outputs: names of the wanted ones; all where there are none.
        classes: how many best classes of an output of the model itself are wanted in its place.
        parameters: of the request.
        query: parameters of a task in the URL, which those of the request override; Triton reads none there.
    """

    model: str
    inputs: Sequence[Tensor]
    deadline: Deadline
    version: str = ""
    outputs: Sequence[str] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InferResponse:
    """A response of ModelInfer.

    Attributes:
        model: name of the model.
        version: the version that responded.
        outputs: the tensors, in the requested order.
        parameters: of the response.
    """

    model: str
    version: str
    outputs: list[Tensor]
    parameters: Mapping[str, str] = field(default_factory=dict)
