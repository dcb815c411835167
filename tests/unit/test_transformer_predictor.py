"""Requests to Triton as bytes."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from transformer.predictor import _compose, _encode


@pytest.mark.parametrize("sizes", [[0], [1], [127], [128], [16_383, 16_384], [2**21 + 1, 0, 5]])
def test_request_is_what_protobuf_itself_would_write(sizes: list[int]) -> None:
    request = _compose("digits", "3", ["boxes", "scores"], {"priority": 1, "fast": True, "name": "x", "share": 0.5})
    contents = [np.arange(size, dtype=np.uint8) for size in sizes]
    for index, content in enumerate(contents):
        request.inputs.add(name=f"input-{index}", datatype="UINT8", shape=content.shape)
    read = service_pb2.ModelInferRequest.FromString(_encode(request, [content.data for content in contents]))
    request.raw_input_contents.extend(content.tobytes() for content in contents)
    assert read == request
