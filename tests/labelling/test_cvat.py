"""integrations/cvat.py run by the real cvat-cli, whose SDK verifies annotations, beside a stand-in for CVAT."""

import io
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.support.cvat_stand_in import TASK, Server, as_cvat_stores, cvat_stand_in
from tests.support.labelling import TASKS, blank, environment_of, predicted, turned, url_of
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TYPES = {"detect": "rectangle", "obb": "rectangle", "segment": "mask", "classify": "tag", "pose": "skeleton"}
POINTS = ("upper end", "lower end")


def labels_of(type_: str) -> list[dict[str, Any]]:
    """Ten labels of a CVAT project, whose numbers are none of the model's."""
    plain = [{"id": 1000 + digit, "name": str(digit), "type": type_, "attributes": []} for digit in range(10)]
    return [label | {"sublabels": sublabels(digit) if type_ == "skeleton" else []} for digit, label in enumerate(plain)]


def sublabels(digit: int) -> list[dict[str, Any]]:
    return [
        {"id": 2000 + 10 * digit + number, "name": name, "type": "points", "attributes": []}
        for number, name in enumerate(POINTS)
    ]


def cli(server: Server, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real cvat-cli, as docs/labelling.md calls it."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "CVAT_ACCESS_TOKEN": "token",
    }
    return subprocess.run(
        [environment_of("cvat") / "cvat-cli", "--server-host", server.url, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def function(model: str, url: str, *parameters: str) -> list[str]:
    words = ["--function-module", "integrations.cvat", "-p", f"model=str:{model}", "-p", f"url=str:{url}"]
    return words + [word for parameter in parameters for word in ("-p", parameter)]


def images_of(task: str) -> dict[str, bytes]:
    image_file = TASKS[task][1]
    return {"a.jpg": image_file.read_bytes(), "b.jpg": turned(image_file), "c.png": blank()}


def as_sent(image: bytes) -> bytes:
    """The pixels of a frame as the SDK has them."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(as_cvat_stores(image))).save(encoded, "PNG")
    return encoded.getvalue()


def decode(points: list[float], size: dict[str, int]) -> Any:
    """CVAT's masks, by its documentation: lengths of runs, the first of background, then the box they fill."""
    *runs, left, top, right, bottom = (int(value) for value in points)
    inside = np.concatenate([np.full(length, index % 2) for index, length in enumerate(runs)])
    whole = np.zeros((size["height"], size["width"]), int)
    whole[top : bottom + 1, left : right + 1] = inside.reshape(bottom - top + 1, right - left + 1)
    return whole


def assert_shape(task: str, shape: dict[str, Any], found: dict[str, Any], size: dict[str, int]) -> None:
    assert shape["type"] == TYPES[task]
    assert (shape["label_id"], shape["source"]) == (1000 + found["class_id"], "auto")
    assert shape["score"] == found["confidence"]
    if task == "detect":
        box = found["box"]
        np.testing.assert_allclose(shape["points"], [box["x1"], box["y1"], box["x2"], box["y2"]], atol=0.0011)
    elif task == "segment":
        assert (decode(shape["points"], size) == coco_mask.decode(found["rle"])).all()
    elif task == "pose":
        wanted = [
            (2000 + 10 * found["class_id"] + point["class_id"], [point["x"], point["y"]], point["confidence"] < 0.25)
            for point in found["keypoints"]
        ]
        assert [(each["label_id"], each["points"], each["occluded"]) for each in shape["elements"]] == wanted
    elif task == "obb":
        # As CVAT draws it: the corners of the upright box, turned about its centre, clockwise.
        left, top, right, bottom = shape["points"]
        centre = np.array([(left + right) / 2, (top + bottom) / 2])
        angle = math.radians(shape["rotation"])
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        drawn = [
            turn @ (np.array(corner) - centre) + centre
            for corner in [(left, top), (right, top), (right, bottom), (left, bottom)]
        ]
        corners = np.array([[corner["x"], corner["y"]] for corner in found["corners"]])
        distances = np.linalg.norm(np.array(drawn)[:, None] - corners[None], axis=2)
        assert distances.min(axis=1).max() < 0.01
        assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("task", TASKS)
def test_annotations_that_reach_cvat_are_those_of_predict(task: str, stack: Stack, tmp_path: Path) -> None:
    model, images = TASKS[task][0], images_of(task)
    with cvat_stand_in(images) as server:
        server.labels = labels_of(TYPES[task])
        done = cli(server, tmp_path, "task", "auto-annotate", str(TASK), *function(model, url_of(stack)))
        assert done.returncode == 0, done.stderr
        (uploaded,) = server.annotations
    for frame, image in enumerate(images.values()):
        response = predicted(stack, model, as_sent(image), **({"mask": "rle"} if task == "segment" else {}))
        found = response["predictions"]
        if task == "classify":
            (tag,) = [each for each in uploaded["tags"] if each["frame"] == frame]
            assert (tag["label_id"], tag["source"]) == (1000 + int(response["top"]), "auto")
            continue
        shapes = [each for each in uploaded["shapes"] if each["frame"] == frame]
        assert bool(found) == (frame < 2)
        for shape, each in zip(shapes, found, strict=True):
            assert_shape(task, shape, each, response["image"])


def test_masks_become_polygons_and_the_threshold_counts(stack: Stack, tmp_path: Path) -> None:
    images = images_of("segment")
    with cvat_stand_in(images) as server:
        server.labels = labels_of("polygon")
        options = ("--conv-mask-to-poly", "--conf-threshold", "0.95")
        done = cli(
            server, tmp_path, "task", "auto-annotate", str(TASK), *options, *function("digit-outlines", url_of(stack))
        )
        assert done.returncode == 0, done.stderr
        (uploaded,) = server.annotations
    shapes = iter(uploaded["shapes"])
    for image in images.values():
        for found in predicted(stack, "digit-outlines", as_sent(image), confidence=0.95)["predictions"]:
            for part in found.get("parts") or [found["points"]]:
                shape = next(shapes)
                assert (shape["type"], shape["label_id"]) == ("polygon", 1000 + found["class_id"])
                assert shape["points"] == [value for point in part for value in (point["x"], point["y"])]
    assert next(shapes, None) is None


def test_agent_annotates_a_task_that_cvat_gives_it(stack: Stack, tmp_path: Path) -> None:
    images = images_of("pose")
    given = function("digit-strokes", url_of(stack), "confidence=float:0.5", "keypoint_confidence=float:0.9")
    with cvat_stand_in(images) as server:
        server.labels = labels_of("skeleton")
        created = cli(server, tmp_path, "function", "create-native", "strokes", *given)
        assert created.returncode == 0, created.stderr
        assert created.stdout == "1\n"
        (remote,) = server.functions
        assert [label["name"] for label in remote["labels_v2"]] == [str(digit) for digit in range(10)]
        assert [point["name"] for point in remote["labels_v2"][0]["sublabels"]] == list(POINTS)
        points = {point: {"name": point, "attributes": {}} for point in POINTS}
        mapping = {
            label["name"]: {"name": label["name"], "attributes": {}, "sublabels": points} for label in server.labels
        }
        server.waiting = [
            {"type": "annotate_task", "task": TASK, "mapping": mapping, "threshold": None, "conv_mask_to_poly": False}
        ]
        done = cli(server, tmp_path, "function", "run-agent", "1", "--burst", *given)
        assert done.returncode == 0, done.stderr
        assert not server.failed
        (completed,) = server.completed
    found = [
        (frame, 1000 + each["class_id"], [point["confidence"] < 0.9 for point in each["keypoints"]])
        for frame, image in enumerate(images.values())
        for each in predicted(stack, "digit-strokes", as_sent(image), confidence=0.5)["predictions"]
    ]
    got = [
        (shape["frame"], shape["label_id"], [point["occluded"] for point in shape["elements"]])
        for shape in completed["annotations"]["shapes"]
    ]
    assert got == found
    assert any(any(occluded) for _, _, occluded in got)


def test_unreachable_server_and_unknown_model_are_errors_in_words(stack: Stack, tmp_path: Path) -> None:
    (port,) = find_free_ports(1)
    with cvat_stand_in({"a.png": blank()}) as server:
        server.labels = labels_of("rectangle")
        task = ("task", "auto-annotate", str(TASK))
        away = cli(server, tmp_path, *task, *function("digit-finder", f"http://127.0.0.1:{port}"))
        unknown = cli(server, tmp_path, *task, *function("none", url_of(stack)))
        table = cli(server, tmp_path, *task, *function("iris", url_of(stack)))
        assert not server.annotations
    assert away.returncode == unknown.returncode == table.returncode == 1
    assert f"no server at http://127.0.0.1:{port}" in away.stderr.splitlines()[-1]
    assert "404" in unknown.stderr.splitlines()[-1]
    assert "model iris: the task is" in table.stderr.splitlines()[-1]
