"""The frame in which `digits` sees an image: NumPy and ONNX are one arithmetic, and each image is for itself."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from export.examples.digits.frame import CELLS, SIDE, describe_graph, frame
from export.examples.digits.renderings import load_plain, render
from export.graph.compatibility import check
from export.proof.session import Session
from transformer.tasks.classify import fill
from transformer.triton.model import Model, TensorMetadata

MODEL = Model(
    name="digits",
    version="1",
    task="classify",
    inputs=(TensorMetadata("image", "UINT8", (-1, SIDE, SIDE, 1)),),
    outputs=(),
    max_batch_size=8,
    names={},
    input_wh=(SIDE, SIDE),
    channels=1,
)


@pytest.fixture(scope="module")
def session() -> Session:
    model = helper.make_model(describe_graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    check(model)
    return Session(model, name="frame")


def images() -> dict[str, NDArray[np.uint8]]:
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (SIDE, 1))
    dot = np.zeros((SIDE, SIDE), np.uint8)
    dot[20, 9] = 255
    planes = {
        "black": np.zeros((SIDE, SIDE), np.uint8),
        "white": np.full((SIDE, SIDE), 255, np.uint8),
        "ramp": ramp,
        "dot": dot,
        "noise": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8),
    }
    return {name: plane[..., None] for name, plane in planes.items()}


@pytest.mark.parametrize("name", images())
def test_graph_gives_what_numpy_gives(session: Session, name: str) -> None:
    image = images()[name][None]
    cells = session.infer(image)["cells"]
    assert cells.shape == (1, CELLS * CELLS)
    assert np.isfinite(cells).all()
    np.testing.assert_allclose(cells, frame(image), atol=1e-5)


def test_batch_gives_what_its_images_give(session: Session) -> None:
    batch = np.stack(list(images().values()))
    alone = [session.infer(image[None])["cells"][0] for image in batch]
    np.testing.assert_array_equal(session.infer(batch)["cells"], np.stack(alone))


def test_frame_is_blind_to_polarity_contrast_and_place() -> None:
    digits, _ = load_plain("held-out")
    digit = fill(digits[0], MODEL)
    dark_on_light, pale = 255 - digit, 80 + digit // 4
    np.testing.assert_allclose(frame(dark_on_light[None]), frame(digit[None]), atol=1e-5)
    np.testing.assert_allclose(frame(pale[None]), frame(digit[None]), atol=0.05)
    small = np.zeros((SIDE, SIDE, 1), np.uint8)
    small[8:24, 4:20] = digit[::2, ::2]
    moved = np.roll(small, (6, 9), axis=(0, 1))
    np.testing.assert_allclose(frame(moved[None]), frame(small[None]), atol=1e-3)


@pytest.mark.parametrize("sides", [(8, 9), (300, 400)])
def test_rendering_is_an_image_of_the_requested_size(sides: tuple[int, int]) -> None:
    ink = np.zeros((8, 8))
    ink[1:7, 2:6] = 16
    image = render(ink, np.random.default_rng(0), sides=sides)
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert sides[0] / 2 < max(image.shape[:2]) < 2.5 * sides[1]
    assert int(image.max()) - int(image.min()) >= 40
    assert fill(image, MODEL).shape == (SIDE, SIDE, 1)
