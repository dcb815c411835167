"""A version of a tiny detector, as export writes it."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from export.graph.dims import declare_head
from export.graph.fused_interface import fuse
from export.writer.config import describe_detector
from export.writer.manifest import Interface, Source
from export.writer.profiles import describe_profiles
from export.writer.repository import Version
from tests.support.detectors import CLASSES, PLAIN, build_detector

FILES = {"config.pbtxt", "golden.npz", "manifest.json", "model.onnx", "parity.json"}


def version(name: str = "tiny", *, interface: Interface = "fused") -> Version:
    metadata = {"task": "detect", "imgsz": [32, 32], "names": {0: "it's"}}
    rewrite = fuse if interface == "fused" else declare_head
    config = describe_detector(name, interface=interface, size_hw=None, classes=CLASSES, metadata=metadata)
    return Version(
        graph=rewrite(build_detector(), PLAIN),
        config=config,
        task="detect",
        interface=interface,
        source=Source("tiny.pt", "0" * 64),
        parity={"boxes_px": 0.0},
        golden={tensor.name: blank(tensor) for tensor in (*config.input, *config.output)},
    )


def blank(tensor: Any) -> NDArray[Any]:
    """A tensor of a config, without the batch dimension."""
    datatype = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    shape = [1, *(dim if dim > 0 else 32 for dim in tensor.dims)]
    return np.zeros(shape, triton_to_np_dtype(datatype.removeprefix("TYPE_")))


METADATA = {"task": "detect", "imgsz": [64, 96], "stride": 32, "args": {"dynamic": True}, "names": {0: "a", 1: "b"}}


def with_profiles(*, int8: bool, digest: str = "0" * 64) -> Version:
    plain = version()
    imgsz = {**METADATA, "names": {0: "it's"}}
    plain.config.parameters["metadata"].string_value = repr(imgsz)
    described = describe_profiles(plain.config, digest=digest, int8=int8)
    return replace(plain, profiles=described, quantised=plain.graph if int8 else None)
