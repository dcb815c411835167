"""Reference maps: what Ultralytics makes of the output of a model, in the size of the image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
SIDE = 64  # of the model
CLASSES = 19
UNIT_M = 0.0005  # of a distance in the file
# Sizes of images, `(width, height)`: wide, high, square, smaller and larger than the model, of odd sides, a line.
SIZES_WH = ((96, 72), (45, 101), (64, 64), (40, 40), (33, 17), (131, 90), (1, 57), (120, 3), (157, 40))


@dataclass(frozen=True)
class MapCase:
    """An image and the output of a model for it.

    Attributes:
        image_hwc: RGB.
        task: `semantic` or `depth`.
        input_hwc: what Ultralytics gives the model, RGB.
        output: of the model, `(height, width)` of its input.
        expected: of Ultralytics, `(height, width)` of the image.
        chosen: classes of `expected_of_chosen`; of semantic segmentation.
        expected_of_chosen: the same where only some classes are wanted.
    """

    image_hwc: NDArray[np.uint8]
    task: str
    input_hwc: NDArray[np.uint8]
    output: NDArray[Any]
    expected: NDArray[Any]
    chosen: tuple[int, ...] = ()
    expected_of_chosen: NDArray[Any] | None = None


CHOSEN = (3, 4, 11)


def draw_gradients(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of steps in both directions, RGB, which is small as a file."""
    width, height = size_wh
    x, y = (np.arange(size) * 255 // max(size - 1, 1) // 50 * 50 for size in (width, height))
    planes = [np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width)), (x + y[:, None]) // 2]
    return np.stack(planes, axis=-1).astype(np.uint8)


def write_cases(cases: list[MapCase]) -> None:
    """Write `maps.npz`."""
    arrays = {}
    for index, case in enumerate(cases):
        for name in ("input_hwc", "output", "expected", "expected_of_chosen"):
            if (array := getattr(case, name)) is not None:
                if case.task == "depth" and name in {"output", "expected"}:
                    array = np.rint(array / UNIT_M).astype(np.uint16)
                width, height = case.image_hwc.shape[1::-1]
                arrays[f"{index}/{case.task}/{width}/{height}/{name}"] = array
    np.savez_compressed(FOLDER / "maps.npz", **arrays)


def read_cases(task: str) -> list[MapCase]:
    """The cases of `maps.npz` for a task."""
    return list(_iterate_cases(task))


def _iterate_cases(task: str) -> Iterator[MapCase]:
    with np.load(FOLDER / "maps.npz") as arrays:
        stems = sorted({name.rpartition("/")[0] for name in arrays.files if name.split("/")[1] == task})
        for stem in stems:
            found = {name.rpartition("/")[2]: arrays[name] for name in arrays.files if name.rpartition("/")[0] == stem}
            width, height = map(int, stem.split("/")[2:])
            image = draw_gradients((width, height))
            if task == "depth":
                for name in ("output", "expected"):
                    found[name] = found[name].astype(np.float32) * np.float32(UNIT_M)
            yield MapCase(image_hwc=image, task=task, chosen=CHOSEN if task == "semantic" else (), **found)
