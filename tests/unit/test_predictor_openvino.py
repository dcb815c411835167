"""OpenVINO's properties from config.pbtxt, where each instance is a process of its own."""

from pathlib import Path
from typing import Any

import pytest

from predictor.backends.openvino.neighbours import Neighbours
from predictor.backends.openvino.options import compose_forms


def config(instances: int = 1, **parameters: str) -> dict[str, Any]:
    return {
        "instance_group": [{"count": instances}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


@pytest.mark.parametrize(
    ("instances", "parameters", "expected"),
    [
        (1, {}, {}),
        (1, {"HINT_BF16": "yes"}, {"INFERENCE_PRECISION_HINT": "bf16"}),
        (1, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2}),
        (2, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
        (4, {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "8"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 4}),
        (2, {"NUM_STREAMS": "4", "INFERENCE_NUM_THREADS": "1"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
        (2, {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2}),
        (2, {"NUM_STREAMS": "NUMA", "PERFORMANCE_HINT": "latency"}, {"NUM_STREAMS": -2, "PERFORMANCE_HINT": "LATENCY"}),
        (1, {"CPU_EXTENSION_PATH": "", "metadata": "{}"}, {}),
    ],
)
def test_properties_of_one_instance(instances: int, parameters: dict[str, str], expected: dict[str, Any]) -> None:
    assert compose_forms(config(instances, **parameters)).shared == expected


@pytest.mark.parametrize(
    ("instances", "streams", "threads", "alone_at"),
    [(1, "2", "2", []), (2, "2", "2", [1]), (4, "4", "4", [1, 2]), (8, "8", "8", [1, 2, 3, 4]), (4, "4", "16", [1, 2])],
)
def test_requests_get_all_threads_while_half_of_them_would_be_idle(
    instances: int, streams: str, threads: str, alone_at: list[int]
) -> None:
    forms = compose_forms(config(instances, NUM_STREAMS=streams, INFERENCE_NUM_THREADS=threads, HINT_BF16="yes"))
    assert [busy for busy in range(1, instances + 1) if forms.alone is not None and forms.is_alone(busy)] == alone_at
    if alone_at:
        assert forms.alone == {**forms.shared, "INFERENCE_NUM_THREADS": int(threads)}


@pytest.mark.parametrize(
    "parameters", [{}, {"NUM_STREAMS": "AUTO", "INFERENCE_NUM_THREADS": "2"}, {"NUM_STREAMS": "2"}]
)
def test_there_is_one_form_where_the_threads_are_not_known(parameters: dict[str, str]) -> None:
    assert compose_forms(config(2, **parameters)).alone is None


def test_instances_see_which_others_are_busy(tmp_path: Path) -> None:
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    first, second, other_group = (
        Neighbours(version, f"a_model_with_1_{place}", folder=tmp_path) for place in ("0_0", "0_1", "1_0")
    )
    with first.busy() as one, second.busy() as two:
        assert (one, two) == (1, 2)
        with other_group.busy() as three:
            assert three == 3
        # Loaded again by Triton after its process died while it was busy.
        with Neighbours(version, "a_model_with_1_0_0", folder=tmp_path).busy() as again:
            assert again == 2
    with second.busy() as alone:
        assert alone == 1
    assert len(list(tmp_path.glob("nereid-*"))) == 1
    first.leave()
    second.leave()
    assert not list(tmp_path.glob("nereid-*"))


def test_versions_do_not_share_their_instances(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with Neighbours(old, "m_0_0", folder=tmp_path).busy(), Neighbours(new, "m_0_0", folder=tmp_path).busy() as busy:
        assert busy == 1


def test_memory_of_instances_is_not_reached_through_a_link(tmp_path: Path) -> None:
    version = tmp_path / "1"
    version.mkdir()
    neighbours = Neighbours(version, "m_0_0", folder=tmp_path)
    (place,) = tmp_path.glob("nereid-*")
    neighbours.leave()
    target = tmp_path / "target"
    target.write_bytes(b"text")
    place.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        Neighbours(version, "m_0_0", folder=tmp_path)
    assert target.read_bytes() == b"text"
