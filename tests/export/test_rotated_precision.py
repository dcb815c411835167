"""mAP of rotated boxes against Ultralytics' own."""

import numpy as np
import pytest

from export.proof.rotated_precision import Rotated, probiou, rotated_average_precision

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def draw(rng: np.random.Generator, count: int) -> Rotated:
    boxes = np.column_stack(
        [
            rng.uniform(0, 600, (count, 2)),
            rng.uniform(5, 120, (count, 2)),
            rng.uniform(-np.pi / 4, 3 * np.pi / 4, count),
        ]
    )
    return Rotated(boxes, rng.uniform(0.01, 1, count).astype(np.float32), rng.integers(0, 3, count))


def find(rng: np.random.Generator, truth: Rotated) -> Rotated:
    """Most of the true boxes, moved, some twice, among others."""
    kept = rng.random(len(truth.scores)) < 0.8
    boxes, class_ids = np.repeat(truth.boxes[kept], 2, axis=0), np.repeat(truth.class_ids[kept], 2)
    boxes = boxes + rng.normal(0, 1, boxes.shape) * [4, 4, 4, 4, 0.1]
    other = draw(rng, 20)
    boxes, class_ids = np.concatenate([boxes, other.boxes]), np.concatenate([class_ids, other.class_ids])
    boxes[:, 2:4] = np.abs(boxes[:, 2:4]) + 1
    return Rotated(boxes, rng.uniform(0.01, 1, len(boxes)).astype(np.float32), class_ids)


@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_of_rotated_boxes_is_that_of_ultralytics(seed: int) -> None:
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics.models.yolo.obb import OBBValidator  # noqa: PLC0415
    from ultralytics.utils.metrics import ap_per_class, batch_probiou  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    truth = {str(index): draw(rng, 12) for index in range(6)}
    found = {name: find(rng, each) for name, each in truth.items()}
    validator = OBBValidator.__new__(OBBValidator)
    validator.iouv = torch.linspace(0.5, 0.95, 10)
    hits = []
    for name, each in found.items():
        order = np.argsort(-each.scores, kind="stable")
        found[name] = Rotated(each.boxes[order], each.scores[order], each.class_ids[order])
        overlaps = batch_probiou(torch.from_numpy(truth[name].boxes), torch.from_numpy(found[name].boxes))
        np.testing.assert_allclose(probiou(truth[name].boxes, found[name].boxes), overlaps.numpy(), atol=1e-6)
        ids = (torch.from_numpy(found[name].class_ids), torch.from_numpy(truth[name].class_ids))
        hits.append(validator.match_predictions(*ids, overlaps).numpy())
    scores, found_ids = (
        np.concatenate([getattr(each, key) for each in found.values()]) for key in ("scores", "class_ids")
    )
    true_ids = np.concatenate([each.class_ids for each in truth.values()])
    expected = ap_per_class(np.concatenate(hits), scores, found_ids, true_ids)[5].mean()
    assert 0.1 < expected < 0.9
    assert rotated_average_precision(found, truth) == pytest.approx(expected, abs=1e-6)
