"""integrations/fiftyone_model.py in a real FiftyOne with its database: `apply_model` stores what `/predict` says."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.support.labelling import TASKS, blank, environment_of, predicted, turned, url_of
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack

# What docs/labelling.md shows, and a reader: labels as numbers, by the database and back.
PROGRAM = """
import json, sys
import fiftyone as fo
import numpy as np
from integrations.fiftyone_model import NereidModel

def labelled(job):
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in job["paths"]])
    dataset.compute_metadata()
    dataset.apply_model(NereidModel(**job["model"]), label_field="nereid", **job["how"])
    dataset.reload()
    return [
        {
            "size": [sample.metadata.width, sample.metadata.height],
            "labels": plain(sample["nereid"]) if sample.has_field("nereid") else None,
        }
        for sample in dataset
    ]

def plain(label):
    if label is None:
        return None
    for name in ("detections", "keypoints", "polylines", "classifications"):
        if name in label.field_names:
            return [plain(each) for each in label[name]]
    found = {"label": label.label, "confidence": label.confidence}
    for name in ("bounding_box", "points"):
        if name in label.field_names:
            found[name] = label[name]
    if "mask" in label.field_names and label.mask is not None:
        found["mask"] = np.asarray(label.mask).astype(int).tolist()
    return found

print(json.dumps({name: labelled(job) for name, job in json.load(sys.stdin).items()}))
"""


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def run(folder: Path, program: str, given: dict[str, Any], **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in FiftyOne's environment, which starts the database that its package brings."""
    programs = environment_of("fiftyone")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "FIFTYONE_DATABASE_DIR": str(folder / "database"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
        **variables,
    }
    return subprocess.run(
        [programs / "python", "-c", program],
        cwd=folder, env=environment, input=json.dumps(given), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def images_of(task: str) -> list[bytes]:
    image_file = TASKS[task][1]
    return [image_file.read_bytes(), turned(image_file), blank()]


# By the name of each: task, its images, options of the model, options of apply_model.
JOBS: dict[str, tuple[str, list[bytes], dict[str, Any], dict[str, Any]]] = {
    **{task: (task, images_of(task), {}, {}) for task in TASKS},
    "three best": ("classify", images_of("classify"), {"top_k": 3}, {}),
    "nothing sure": ("classify", [blank()], {}, {"confidence_thresh": 0.9999}),
    "chosen": (
        "detect",
        images_of("detect") * 2,
        {},
        {"batch_size": 4, "confidence_thresh": 0.05, "classes": ["7", "2"]},
    ),
}


@pytest.fixture(scope="module")
def labelled(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What FiftyOne has of each job. One process: FiftyOne takes ten seconds to start."""
    folder = tmp_path_factory.mktemp("fiftyone")
    given = {}
    for name, (task, images, options, how) in JOBS.items():
        paths = [folder / f"{name}-{number}.jpg" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        model = {"model": TASKS[task][0], "url": url_of(stack)} | options
        given[name] = {"paths": [str(path) for path in paths], "model": model, "how": how}
    done = run(folder, PROGRAM, given)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_pixels(points: Any, size: list[int]) -> Any:
    return np.array(points, float) * np.array(size)


def assert_object(task: str, got: dict[str, Any], found: dict[str, Any], size: list[int]) -> None:
    assert got["label"] == found["class"]
    width, height = size
    if task == "pose":
        expected = [[point["x"], point["y"]] for point in found["keypoints"]]
        np.testing.assert_allclose(in_pixels(got["points"], size), expected, atol=1e-6)
        assert got["confidence"] == [point["confidence"] for point in found["keypoints"]]
        return
    assert got["confidence"] == found["confidence"]
    if task == "obb":
        expected = [[corner["x"], corner["y"]] for corner in found["corners"]]
        np.testing.assert_allclose(in_pixels(got["points"][0], size), expected, atol=1e-6)
    elif task == "detect":
        x, y, wide, high = np.array(got["bounding_box"]) * [width, height, width, height]
        box = found["box"]
        np.testing.assert_allclose(
            [x, y, x + wide, y + high], [box["x1"], box["y1"], box["x2"], box["y2"]], atol=0.0011
        )
    elif task == "segment":
        mask = np.array(got["mask"])
        x, y, wide, high = np.array(got["bounding_box"]) * [width, height, width, height]
        whole = np.zeros((height, width), int)
        whole[round(y) : round(y) + mask.shape[0], round(x) : round(x) + mask.shape[1]] = mask
        assert mask.shape == (round(high), round(wide))
        assert (whole == coco_mask.decode(found["rle"])).all()


@pytest.mark.parametrize("task", [task for task in TASKS if task != "classify"])
def test_labels_of_fiftyone_are_those_of_predict(
    task: str, labelled: dict[str, list[dict[str, Any]]], stack: Stack
) -> None:
    images = images_of(task)
    for number, (sample, image) in enumerate(zip(labelled[task], images, strict=True)):
        response = predicted(stack, TASKS[task][0], image, **({"mask": "rle"} if task == "segment" else {}))
        size = [response["image"]["width"], response["image"]["height"]]
        # FiftyOne's own size of the image, which its labels are relative to.
        assert sample["size"] == size
        assert bool(response["predictions"]) == (number < 2)
        for got, found in zip(sample["labels"], response["predictions"], strict=True):
            assert_object(task, got, found, size)


def test_classification_is_the_best_class_or_the_best_ones(
    labelled: dict[str, list[dict[str, Any]]], stack: Stack
) -> None:
    for one, three, image in zip(labelled["classify"], labelled["three best"], images_of("classify"), strict=True):
        classes = predicted(stack, TASKS["classify"][0], image)["predictions"]
        wanted = [{"label": each["class"], "confidence": each["confidence"]} for each in classes]
        assert one["labels"] == wanted[0]
        assert three["labels"] == wanted[:3]
    assert [sample["labels"] for sample in labelled["nothing sure"]] == [None]


def test_threshold_classes_and_batches_of_apply_model_reach_the_server(
    labelled: dict[str, list[dict[str, Any]]], stack: Stack
) -> None:
    unsure = 0
    for sample, image in zip(labelled["chosen"], images_of("detect") * 2, strict=True):
        found = predicted(stack, "digit-finder", image, confidence=0.05)["predictions"]
        wanted = [(each["class"], each["confidence"]) for each in found if each["class"] in ("7", "2")]
        assert [(got["label"], got["confidence"]) for got in sample["labels"]] == wanted
        unsure += sum(confidence < 0.25 for _, confidence in wanted)
    assert unsure, "the threshold would not be seen"


def test_pixels_without_a_file_are_sent_too(stack: Stack, tmp_path: Path) -> None:
    program = """
import json, sys
import numpy as np
from integrations.fiftyone_model import NereidModel
given = json.load(sys.stdin)
print(len(NereidModel(**given).predict(np.full((90, 120, 3), 127, np.uint8)).detections))
"""
    done = run(tmp_path, program, {"model": "digit-finder", "url": url_of(stack)})
    assert done.stdout == "0\n", done.stderr


def test_unreachable_server_is_an_error_in_words(tmp_path: Path) -> None:
    (port,) = find_free_ports(1)
    program = """
import json, sys
from integrations.fiftyone_model import NereidModel
NereidModel(**json.load(sys.stdin))
"""
    done = run(tmp_path, program, {"model": "digit-finder", "url": f"http://127.0.0.1:{port}"})
    assert done.returncode == 1
    assert f"no server at http://127.0.0.1:{port}" in done.stderr.splitlines()[-1]


def test_program_of_the_page_labels_the_images_of_the_repository(stack: Stack, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/labelling.md").read_text(), re.DOTALL)
    here = program.replace("loadtest/pictures", str(ROOT / "loadtest/pictures"))
    done = run(tmp_path, here, {}, NEREID_URL=url_of(stack))
    assert done.returncode == 0, done.stderr
    files = [path for path in (ROOT / "loadtest/pictures").iterdir() if path.suffix in (".jpg", ".png")]
    found = [predicted(stack, "digit-finder", path.read_bytes())["predictions"] for path in files]
    assert int(done.stdout.splitlines()[-1]) == sum(len(each) for each in found)
