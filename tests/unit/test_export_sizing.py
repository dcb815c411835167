"""`make sizing`: the arithmetic, and that its pod is that of the manifests."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from export.__main__ import main
from export.errors import ExportError
from export.publish import sizing
from export.publish.listing import read_models
from export.publish.sizing import GIB, MIB, Load
from registry.storage.writing import open_to_write

ROOT = Path(__file__).resolve().parents[2]
UNITS = {"m": 0.001, "Mi": MIB, "Gi": GIB, "": 1}


def _amount(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


@pytest.fixture(scope="module")
def predictor() -> Any:
    return yaml.safe_load((ROOT / "manifests/base/inferenceservice.yaml").read_text())["spec"]["predictor"]


@pytest.mark.parametrize(("kind", "known"), [("requests", sizing.REQUESTS), ("limits", sizing.LIMITS)])
def test_pod_is_that_of_the_manifests(predictor: Any, kind: str, known: dict[str, float]) -> None:
    for resource, amount in known.items():
        written = sum(_amount(each["resources"][kind][resource]) for each in predictor["containers"])
        assert written == pytest.approx(amount), resource


def test_limits_are_those_of_the_manifests(predictor: Any) -> None:
    triton, synchroniser, _ = predictor["containers"]
    assert _amount(triton["resources"]["limits"]["memory"]) == sizing.TRITON_BYTES
    (most,) = (each["value"] for each in synchroniser["env"] if each["name"] == "PREDICTOR_MIRROR_BYTES")
    assert int(most) == sizing.MIRROR_BYTES


@pytest.mark.parametrize(
    ("objects", "pods", "poll_s", "lists"),
    [(4, 1, 10, 259_200), (1000, 50, 10, 12_960_000), (1001, 50, 10, 25_920_000), (80, 50, 60, 2_160_000)],
)
def test_listing_takes_a_request_for_each_thousand_objects(objects: int, pods: int, poll_s: float, lists: int) -> None:
    assert Load(((1, 1),), objects, pods, poll_s).lists == lists


def test_room_is_for_the_versions_that_are_swapped_at_once() -> None:
    assert Load(((100, 0),), 1, 1, 10).mirror == 200
    assert Load(tuple((size, 0) for size in (1, 2, 3, 4, 5)), 1, 1, 10).mirror == 15 + 14
    one = Load(((0, 100 * MIB),), 1, 1, 10).triton
    assert one == (30 + 2 * (80 + 2 * 100)) * MIB


def test_exceeded_limit_names_the_setting_to_raise() -> None:
    assert not list(sizing.problems(Load(((15 * MIB, 12 * MIB),), 9, 2, 10)))
    (memory,) = sizing.problems(Load(((2 * GIB, 1 * GIB),), 9, 2, 10))
    assert memory.startswith("Triton's memory: got 4,286 MiB, expected at most 4,096 MiB; next: raise limits.memory")
    (mirror,) = sizing.problems(Load(((4 * GIB, 100 * MIB),), 9, 2, 10))
    assert mirror.startswith("mirror: got 8,192 MiB, expected at most 7,168 MiB; next: raise PREDICTOR_MIRROR_BYTES")


def test_repository_is_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("1", "2"):
        folder = tmp_path / "a" / version
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(bytes(3 * MIB))
        (folder / "model.int8.onnx").write_bytes(bytes(MIB))
    models = read_models(open_to_write(str(tmp_path)))
    load = sizing.measure(models, pods=3, poll_s=10)
    assert load.served == ((4 * MIB, 3 * MIB),)  # the newest alone, all of its files in the mirror
    assert load.objects >= 4
    assert main(["sizing", "--repository", str(tmp_path), "--pods", "3"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"requests\.memory +│ 2\.75 GiB +│ 8\.25 GiB +│ 11 GiB", output)
    assert "does not fit" not in output


def test_empty_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="got no version to serve, expected one; next: make publish"):
        sizing.sizing(Namespace(repository=str(tmp_path), pods=2, poll_s=10.0), Console())
