"""`make demo`, as it is run."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from stack.demo import ANNOTATED, PICTURES
from tests.support.pages import blocks_of
from tests.support.stack import ROOT, run_program, stop_while_models_load
from tests.support.terminal import open_terminal


def test_demo_calls_every_shipped_model_and_writes_an_annotated_image() -> None:
    images = {model: ROOT / "output" / f"{model}.png" for model in ANNOTATED}
    for image in images.values():
        image.unlink(missing_ok=True)
    done = run_program(
        "stack.demo", REPOSITORY="elsewhere", TRITON_URL="nowhere:1"
    )  # make's variables are not for the demo
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("digit-finder", "seven.png", "virginica", "postprocess", "upper end", "outline of", "turned by"):
        assert word in done.stdout
    for model, image in images.items():
        assert f"output/{model}.png" in done.stdout
        with Image.open(image) as drawn, Image.open(PICTURES / ANNOTATED[model]) as sent:
            times = drawn.width // sent.width  # a small image is enlarged, so that its label can be read
            assert drawn.size == (times * sent.width, times * sent.height)


def test_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    (block,) = blocks_of(ROOT / "README.md", "Try it")
    assert block.startswith("$ make demo\n")
    # Version 1 on the page; here whatever the exports of this checkout came to.
    for folder in (ROOT / "model_repository").iterdir():
        versions = [int(each.name) for each in folder.glob("*") if each.name.isdecimal()]
        if versions:
            block = block.replace(f"{folder.name} 1", f"{folder.name} {max(versions)}")
    open_terminal(tmp_path, {}).run(block)


def test_demo_that_fails_says_why() -> None:
    done = run_program("stack.demo", TRANSFORMER_THREADS="[/none]")
    assert done.returncode == 1
    assert "error: transformer ended with status 2" in done.stdout
    # Of its own log: what the other parts print does not push it out, nor does another demo that runs meanwhile.
    assert re.search(r"output/demo(-\d)?/transformer\.log:\n", done.stdout)
    assert "TRANSFORMER_THREADS: got '[/none]'" in done.stdout


def test_two_demos_run_at_once() -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = set()
        for done in pool.map(run_program, ["stack.demo"] * 2):
            assert done.returncode == 0, done.stdout + done.stderr
            folders.update(re.findall(r"\(logs: (\S+)\)", done.stdout))
    assert len(folders) == 2


def test_demo_stopped_while_the_models_load_leaves_nothing_behind() -> None:
    assert not stop_while_models_load("stack.demo")
