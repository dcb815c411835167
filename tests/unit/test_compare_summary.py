"""The arithmetic of `make compare`."""

import io

import pytest
from PIL import Image

from loadtest.compare.agreement import Agreement, Detection, agree, iou
from loadtest.compare.preparation import enlarge, letterbox
from loadtest.compare.summary import DEFAULT, Measurement, Medians, beyond, ratio, targets

LIMIT, PIPELINE = "bare-fp32", "pipeline-fp32"


def measurement(
    candidate: str,
    rate: float = 10.0,
    *,
    p50: float | None = 50.0,
    p99: float = 60.0,
    turn: int = 1,
    request: str = "image",
    connections: int = 4,
    others: float = 0.0,
) -> Measurement:
    return Measurement(candidate, turn, request, connections, rate, p50, p50, p99, 0.1, 100.0, 0.01, others)


def met(measurements: list[Measurement], precisions: dict[str, float]) -> dict[str, bool | None]:
    return {target.text: target.met for target in targets(Medians(measurements), precisions)}


def test_median_is_that_of_the_rounds() -> None:
    medians = Medians([measurement(DEFAULT, rate, turn=turn) for turn, rate in enumerate((30, 10, 20), 1)])
    assert medians.rate(DEFAULT, 4) == 20
    assert medians.rate(DEFAULT, 1) is None
    assert medians.p50(DEFAULT) is None


def test_median_is_none_where_a_round_had_no_response() -> None:
    medians = Medians([measurement(DEFAULT, 10), measurement(DEFAULT, 0.0, p50=None, turn=2)])
    assert medians.get(DEFAULT, "p50_ms", 4) is None
    assert medians.rate(DEFAULT, 4) == 5


def test_full_load_is_the_best_of_the_image() -> None:
    rates = [(1, 20.0), (4, 40.0), (8, 38.0)]
    measurements = [measurement(DEFAULT, rate, connections=count) for count, rate in rates]
    assert Medians([*measurements, measurement(DEFAULT, 900, request="iris")]).full(DEFAULT) == 40
    assert Medians([]).full(DEFAULT) is None


@pytest.mark.parametrize(
    ("of", "to", "expected"), [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None)]
)
def test_ratio(of: float | None, to: float | None, expected: float | None) -> None:
    assert ratio(of, to) == expected


def test_time_beyond_the_model_is_that_of_one_connection() -> None:
    measurements = [measurement(DEFAULT, connections=1, p50=25), measurement(LIMIT, connections=1, p50=19)]
    assert beyond(Medians(measurements), DEFAULT, LIMIT) == 6
    assert beyond(Medians(measurements[:1]), DEFAULT, LIMIT) is None


def test_targets_that_are_reached_and_missed() -> None:
    measurements = [
        *(measurement(DEFAULT, 40, connections=count, p50=25) for count in (1, 4)),
        measurement(DEFAULT, 40, connections=8, p50=100, p99=201),
        *(measurement("fastapi-onnx", 35, connections=count, p50=25) for count in (1, 4)),
        measurement("fastapi-pytorch", 21),
        measurement(LIMIT, 50, connections=1, p50=20),
        measurement(PIPELINE, 45, connections=1, p50=19),
        measurement(DEFAULT, connections=1, p50=60, request="large"),
        measurement("fastapi-onnx", connections=1, p50=100, request="large"),
        measurement(DEFAULT, connections=1, p50=3.1, request="iris"),
    ]
    assert list(met(measurements, {DEFAULT: 0.46}).values()) == [
        False,  # 40 / 35 = 1.14
        False,  # 40 / 21 = 1.9
        True,  # 25 / 25
        None,  # no OpenVINO
        None,  # no int8
        True,  # 40 / 50
        True,  # 25 - 20
        False,  # 40 / 45 = 0.89
        False,  # 25 - 19
        True,  # (60 - 20) / (100 - 20)
        False,  # 3.1 ms
        False,  # 2.01
    ]


def test_configuration_with_other_boxes_does_not_count() -> None:
    openvino = measurement("fastapi-openvino", 50)
    measurements = [openvino, measurement(DEFAULT, 40), measurement("nereid-fast", 70), measurement("nereid-int8", 90)]
    close, int8 = (
        next(text for text in met([], {}) if text.startswith(words)) for words in ("fastest configuration with", "int8")
    )
    good = met(measurements, {DEFAULT: 0.464, "nereid-fast": 0.460, "nereid-int8": 0.445})
    assert (good[close], good[int8]) == (True, True)  # 70 / 50, 90 / 50
    bad = met(measurements, {DEFAULT: 0.464, "nereid-fast": 0.450, "nereid-int8": 0.440})
    assert (bad[close], bad[int8]) == (False, None)  # 40 / 50, and no int8 left


def test_run_that_was_disturbed_decides_nothing() -> None:
    measurements = [measurement(name, rate, others=0.5) for name, rate in ((DEFAULT, 40), ("fastapi-onnx", 10))]
    assert set(met(measurements, {}).values()) == {None}


def detection(label: str = "bus", confidence: float = 0.9, *, at: float = 0.0) -> Detection:
    return Detection(label, confidence, (at, 0.0, at + 100.0, 100.0))


@pytest.mark.parametrize(
    ("found", "expected", "agreement"),
    [
        ([], [], Agreement(0, 0, 0, 0.0, 0.0)),
        ([], [detection()], Agreement(1, 0, 0, 0.0, 0.0)),
        ([detection(confidence=0.875, at=2)], [detection(confidence=0.75)], Agreement(1, 1, 1, 0.125, 2.0)),
        ([detection(at=6)], [detection()], Agreement(1, 1, 0, 0.0, 0.0)),  # IoU 0.89
        ([detection("car")], [detection()], Agreement(1, 1, 0, 0.0, 0.0)),
        ([detection()], [detection(), detection(at=1)], Agreement(2, 1, 1, 0.0, 0.0)),
    ],
)
def test_agreement(found: list[Detection], expected: list[Detection], agreement: Agreement) -> None:
    assert agree({"a": found}, {"a": expected}) == agreement


def test_share_counts_what_is_missing_and_what_is_too_much() -> None:
    assert Agreement(0, 0, 0, 0.0, 0.0).share == 1
    assert Agreement(expected=6, found=4, matched=4, score=0.0, box_px=0.0).share == 0.8
    assert Agreement(expected=4, found=6, matched=4, score=0.0, box_px=0.0).share == 0.8


def test_iou() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_bare_model_gets_the_rectangle_of_the_image(image: bytes) -> None:
    assert letterbox(image, 640, 32).shape == (1, 640, 480, 3)


@pytest.fixture
def image() -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (810, 1080)).save(output, "JPEG")
    return output.getvalue()


def test_large_image_has_twelve_megapixels(image: bytes) -> None:
    with Image.open(io.BytesIO(enlarge(image))) as large:
        assert large.size == (3000, 4000)
