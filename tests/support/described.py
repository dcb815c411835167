"""Descriptions of models, as the transformer has them."""

from transformer.triton.model import Model, TensorMetadata

DETECTOR = Model(
    name="finder",
    version="1",
    task="detect",
    inputs=(TensorMetadata("image", "UINT8", (-1, -1, -1, 3)),),
    outputs=(TensorMetadata("boxes", "FP32", (-1, -1, 4)),),
    max_batch_size=8,
    names={0: "cat", 1: "dog", 2: "7"},
    input_wh=(320, 320),
)


FUSED = Model(
    name="finder",
    version="1",
    task="detect",
    inputs=(TensorMetadata("image", "UINT8", (-1, -1, -1, 3)),),
    outputs=(),
    max_batch_size=8,
    names={0: "cat", 1: "dog"},
    input_wh=(64, 64),
)
CLASSIFIER = Model(
    name="digits",
    version="1",
    task="classify",
    inputs=(TensorMetadata("image", "UINT8", (-1, 16, 16, 1)),),
    outputs=(TensorMetadata("probabilities", "FP32", (-1, 2)),),
    max_batch_size=8,
    names={0: "a", 1: "b"},
    input_wh=(16, 16),
    channels=1,
)


TABLE = Model(
    name="iris",
    version="1",
    task="tabular",
    inputs=(TensorMetadata("features", "FP32", (-1, 2)),),
    outputs=(TensorMetadata("probabilities", "FP32", (-1, 2)),),
    max_batch_size=8,
    names={0: "a", 1: "b"},
    features=("length", "width"),
)
