"""Commands of the pages that need no cluster, typed as they stand by a user in a checkout of their own."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from tests.manifests.rendering import needs_kubectl
from tests.support.classifiers import LABELS, build_classifier, build_tensors
from tests.support.pages import ROOT, blocks_of
from tests.support.ports import find_free_ports
from tests.support.stack import free_ports
from tests.support.terminal import Terminal, open_terminal

LIFECYCLE = ROOT / "docs/model-lifecycle.md"
ROWS = load_wine(as_frame=True)
EXPORTED = ("flowers/1", "vit/1", "shapes/1", "scorer/1", "scorer/2")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return open_terminal(tmp_path, free_ports(), POLL_S="0.5", SETTLE_S="0.5")


@pytest.fixture
def bucket(terminal: Terminal) -> Iterator[None]:
    """`nereid s3` in a terminal of its own, and in the others the line that it prints."""
    terminal.environ["S3_PORT"] = str(find_free_ports(1)[0])
    start, _ = blocks_of(LIFECYCLE, "Model lifecycle")
    assert start.startswith("$ nereid s3\n")
    with terminal.leave_running("nereid s3", until="export AWS_ENDPOINT_URL=") as log:
        (line,) = re.findall(r"^export AWS_.*$", log.read_text(), re.MULTILINE)
        terminal.run(f"$ {line}")
        yield


@pytest.mark.usefixtures("bucket")
def test_commands_of_the_page_on_the_life_of_a_model_run(terminal: Terminal) -> None:
    _, published = blocks_of(LIFECYCLE, "Model lifecycle")
    # Version 1 on the page; here whatever the exports of this checkout came to.
    newest = max(int(each.name) for each in (ROOT / "model_repository/digits").glob("*") if each.name.isdecimal())
    published = published.replace("model_repository/digits/1", f"model_repository/digits/{newest}")
    first, second, *_ = re.split(r"^(?=\$ )", published, flags=re.MULTILINE)[1:]
    rest = published.removeprefix(first)
    assert second in rest
    terminal.run(first)
    command = "nereid serve --repository s3://models/demo"
    assert f"`{command}`" in LIFECYCLE.read_text()
    with terminal.leave_running(command, until="Ctrl-C"):
        terminal.run(rest)


def commands(page: str, heading: str, *beginnings: str) -> str:
    """The lines of the blocks below a heading that begin so, as they are typed."""
    lines = [line for block in blocks_of(ROOT / page, heading) for line in block.splitlines()]
    wanted = [line for line in lines if line.startswith(beginnings)]
    assert len(wanted) >= len(beginnings), lines
    return "".join(f"$ {line}\n" for line in wanted)


def test_models_of_other_sources_are_exported(terminal: Terminal) -> None:
    """An ONNX file of Ultralytics, a pipeline and a booster: names of the pages, files of this test."""
    shutil.copy(ROOT / "export/weights/digit-finder.onnx", terminal.folder / "best.onnx")
    features, classes = ROWS.data, ROWS.target
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, classes)
    joblib.dump(pipeline, terminal.folder / "pipeline.joblib")
    XGBClassifier(n_estimators=5).fit(features.to_numpy(), classes).save_model(terminal.folder / "model.json")
    np.savetxt(
        terminal.folder / "some.csv", features, delimiter=",", header=",".join(features.columns), comments="", fmt="%g"
    )
    exported = ("nereid export my-detector best.onnx", "nereid export churn pipeline.joblib")
    terminal.run(commands("docs/models.md", "Add a model", *exported))
    terminal.run(commands("docs/tables.md", "The rows of the verification", exported[1]))
    terminal.run(commands("docs/first-hour.md", "A model of your own", exported[0]))
    parity = json.loads((terminal.folder / "model_repository/churn/2/parity.json").read_text())
    assert parity["rows_from"] == "some.csv"
    assert (terminal.folder / "model_repository/my-detector/2/manifest.json").is_file()


def test_any_onnx_file_is_exported(terminal: Terminal) -> None:
    """Classifiers and a file with its own tensors: names of the page, files of this test."""
    (terminal.folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (terminal.folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(LABELS))}))
    preprocessor = {"size": {"height": 40, "width": 40}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (terminal.folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    for name, model in {
        "flowers": build_classifier(side=224),
        "vit": build_classifier(),
        "shapes": build_classifier(layout="nhwc"),
        "scorer": build_tensors("several"),
    }.items():
        onnx.save(model, terminal.folder / f"{name}.onnx")
    np.savez(terminal.folder / "inputs.npz", tokens=np.ones((1, 3), np.int64), left=np.ones((1, 3), np.float32))
    lines = [f"nereid export {name} " for name in ("flowers", "vit", "shapes")]
    terminal.run(commands("docs/tasks.md", "Classify", *lines))
    terminal.run(commands("docs/tasks.md", "Any ONNX", "nereid export scorer"))
    repository = terminal.folder / "model_repository"
    tasks = {each: json.loads((repository / each / "manifest.json").read_text())["task"] for each in EXPORTED}
    assert tasks == dict.fromkeys(EXPORTED[:3], "classify") | dict.fromkeys(EXPORTED[3:], "tensors")


def test_booster_with_rows_of_a_user_is_exported(terminal: Terminal) -> None:
    features = ROWS.data.to_numpy()
    XGBClassifier(n_estimators=5).fit(features, ROWS.target).save_model(terminal.folder / "model.json")
    header = ",".join(f"f{number}" for number in range(features.shape[1]))
    np.savetxt(terminal.folder / "some.csv", features, delimiter=",", header=header, comments="", fmt="%g")
    terminal.run(commands("docs/models.md", "Add a model", "nereid export risk model.json"))


def test_sizing_of_a_repository_is_printed(terminal: Terminal) -> None:
    terminal.replaced = {"s3://models/nereid": "model_repository"}
    printed = terminal.run(commands("docs/sizing.md", "Sizing", "make sizing"))
    assert "15" in printed


def test_plan_of_a_rate_is_that_of_the_page(terminal: Terminal) -> None:
    terminal.environ["POLL_S"] = "10"  # the default, which the page computes with
    printed = terminal.run(commands("docs/growth.md", "Pods for a rate", "make plan"))
    page = (ROOT / "docs/growth.md").read_text()
    seen = {tuple(map(str.strip, line.strip("│").split("│"))) for line in printed.splitlines() if line.startswith("│")}
    fleets = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.,]+) \| ([\d.,]+) \| ([\d,]+) \|$", page, re.M)
    assert len(fleets) == 3
    assert set(fleets) <= seen
    rates = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| [^|]+ \| [^|]+ \|$", page, re.M)
    assert len(rates) == 15
    assert set(rates) <= {row[:2] for row in seen}


def test_waits_of_the_page_are_those_of_the_simulation(terminal: Terminal) -> None:
    printed = terminal.run(commands("docs/growth.md", "How long requests wait", "make queueing"))
    assert "28.6, 46.7, 46.7, 46.7 requests/s with 1 to 4 in progress" in printed


@needs_kubectl
def test_batch_of_the_page_has_a_result_for_each_image(terminal: Terminal) -> None:
    with terminal.leave_running("nereid serve", until="Ctrl-C"):
        terminal.run(*blocks_of(ROOT / "docs/batches.md", "Batches"))


def test_images_of_a_site_are_listed(terminal: Terminal) -> None:
    printed = terminal.run(
        commands(
            "docs/container-images.md",
            "A site without a way out",
            "make images-list -s",
            "make images-list OVERLAY=overlays/standard -s  ",
        )
    )
    assert "nvcr.io/nvidia/tritonserver" in printed
