"""Networks of Ultralytics with random weights whose outputs are worth comparing; needs torch and ultralytics.

A network as it is built scores everything 0.00001 and draws every box alike. Here its normalisation fits the images,
and the last layers of its head are scaled to their outputs on them: scores spread over 0 to 1 with most near 0, boxes,
keypoints, angles and coefficients differ.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from export.proof.drawn_images import draw_images
from tests.support.fixtures import SHARED
from transformer.imaging.letterbox import Image, fit, letterbox

# Lists of a head, one layer or sequence of layers for each stride; those of a head without NMS begin with `one2one_`.
_BOXES, _SCORES, _REST = "cv2", "cv3", ("cv4", "cv4_kpts")
_SIDE_PX = 320
_SEED = 5
_FARTHEST = 6  # deviations from the mean that an output may have
_FARTHER = 0.25  # of a logit: how much less likely each bin of a side is than the one before


def build_network(
    config: str,
    *,
    images: Sequence[Image] = (),
    classes: int | None = None,
    keypoints: tuple[int, int] | None = None,
) -> Any:
    """A network of Ultralytics, `ultralytics.YOLO`, the same for the same arguments.

    Args:
        config: such as `yolov8n-pose.yaml`, `yolo26n-obb.yaml`.
        images: RGB, that it fits; drawn ones where empty.
        classes: how many; what the configuration says where None.
        keypoints: `kpt_shape` of a pose network; as `classes`.
    """
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics import YOLO  # noqa: PLC0415
    from ultralytics.nn.tasks import yaml_model_load  # noqa: PLC0415

    torch.manual_seed(_SEED)
    yolo = YOLO(config)
    described = yaml_model_load(config)
    described |= {"nc": classes} if classes else {}
    described |= {"kpt_shape": list(keypoints)} if keypoints else {}
    network: Any = type(yolo.model)(described, verbose=False)
    yolo.model = network
    network.args, network.task = {**yolo.overrides}, yolo.task
    with torch.no_grad():
        _part_the_branches(network.model[-1])
        batch = torch.from_numpy(_batch(images or [drawn.image_hwc for drawn in draw_images()]))
        _fit_normalisation(network, batch)
        _scale_last_layers(network, batch)
    return yolo


def limit_outputs(yolo: Any, images: Sequence[Image], *, deviations: float = 4.0) -> Any:
    """Scale the last layers of a built network down until no output on these images is further from its mean.

    Scores of 1 for several classes, and sides below 0, which are no boxes, come of images that are unlike the others.
    """
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`

    layers = dict(_last_layers(yolo.model.model[-1]))
    furthest = dict.fromkeys(layers, 0.0)

    def note(layer: Any, _: Any, output: Any) -> None:
        furthest[layer] = max(furthest[layer], float((output - layers[layer][0]).abs().max()))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        for image in images:
            plan = fit(image.shape[1::-1], (_SIDE_PX, _SIDE_PX), stride=32)
            pixels = np.ascontiguousarray(letterbox(image, plan).transpose(2, 0, 1)[None], np.float32)
            yolo.model(torch.from_numpy(pixels / np.float32(255)))
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            mean, deviation = layers[layer]
            factor = min(1.0, deviations * deviation / furthest[layer])
            layer.weight.mul_(factor)
            layer.bias.copy_(mean + (layer.bias - mean) * factor)
    return yolo


# RT-DETR as small as it works: a few convolutions for three strides, and its decoder.
_TRANSFORMER: dict[str, Any] = {
    "nc": 4,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
    ],
    "head": [[[2, 3, 4], 1, "RTDETRDecoder", ["nc", 32, 300, 4, 4, 2, 64]]],
}


def build_transformer() -> Any:
    """A small RT-DETR, `ultralytics.RTDETR`, always the same."""
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics import RTDETR  # noqa: PLC0415
    from ultralytics.nn.tasks import RTDETRDetectionModel  # noqa: PLC0415

    torch.manual_seed(_SEED)
    yolo = RTDETR("rtdetr-l.yaml")
    network: Any = RTDETRDetectionModel(_TRANSFORMER, verbose=False)
    yolo.model = network
    network.args, network.task = {**yolo.overrides}, yolo.task
    with torch.no_grad():
        head = network.model[-1]
        for layer in (*head.dec_score_head, head.enc_score_head):
            layer.weight.normal_(0, 0.6)
            layer.bias.fill_(-2)
        for perceptron in (*head.dec_bbox_head, head.enc_bbox_head):
            perceptron.layers[-1].weight.normal_(0, 0.15)
        network.eval()
    return yolo


def build_open_vocabulary(config: str, images: Sequence[Image]) -> Any:
    """A network of YOLO-World or YOLOE with three classes baked in, of texts that no encoder has read.

    Args:
        config: such as `yolov8s-worldv2.yaml`, `yoloe-11s-seg.yaml`.
        images: RGB, that its normalisation fits.
    """
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics import YOLOE, YOLOWorld  # noqa: PLC0415

    torch.manual_seed(_SEED)
    yolo: Any = (YOLOWorld if "world" in config else YOLOE)(config)
    network, names = yolo.model, ["cat", "dog", "bus"]
    texts = torch.nn.functional.normalize(torch.randn(1, len(names), 512), dim=-1)
    if "world" in config:
        network.txt_feats, network.model[-1].nc, network.names = texts, len(names), dict(enumerate(names))
    else:
        network.set_classes(names, texts)
    with torch.no_grad():
        _fit_normalisation(network, torch.from_numpy(_batch(images)))
        for layer in network.model[-1].cv4:
            layer.bias.fill_(-4)  # as built nothing scores more than 0.01
            layer.logit_scale.fill_(0.5)
    network.args, network.task = {**yolo.overrides, "task": yolo.task}, yolo.task
    return yolo


def read_photos(count: int) -> dict[str, Image]:
    """Photos of different shapes, RGB, by name; needs `../shared/data`."""
    paths = sorted((SHARED / "coco128" / "images").glob("*.jpg"))[:count]
    return {path.name: np.asarray(PIL.Image.open(path).convert("RGB")) for path in paths}


def _batch(images: Sequence[Image]) -> NDArray[np.float32]:
    """`(images, 3, height, width)`, 0 to 1."""
    resized = np.stack([cv2.resize(image, (_SIDE_PX, _SIDE_PX)) for image in images])
    return np.ascontiguousarray(resized.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _part_the_branches(head: Any) -> None:
    """Give the branch without NMS weights of its own: as built it is a copy of the other."""
    for name, branch in head.named_children():
        for layer in branch.modules() if name.startswith("one2one_") else ():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()


def _fit_normalisation(network: Any, batch: Any) -> None:
    import torch  # noqa: PLC0415 - as above

    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(batch)
    network.eval()
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _scale_last_layers(network: Any, batch: Any) -> None:
    """Bring each channel of each last layer to the mean and deviation of its kind, in every image."""
    import torch  # noqa: PLC0415 - as above

    layers = dict(_last_layers(network.model[-1]))
    inputs: dict[Any, Any] = {}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: inputs.update({layer: given[0]})) for layer in layers]
    network(batch)
    for hook in hooks:
        hook.remove()
    for layer, features in inputs.items():
        # Random layers tell images apart better than places in one: what differs between images is left out.
        averages = features.mean(dim=(2, 3))
        _, _, between = torch.linalg.svd(averages - averages.mean(dim=0), full_matrices=False)
        between = between[: min(len(batch) - 1, layer.in_channels // 3)]
        weights = layer.weight[..., 0, 0]
        layer.weight[..., 0, 0] = weights - weights @ between.T @ between
        layer.bias.zero_()
        output = layer(features)
        mean, deviation = layers[layer]
        centred = output - output.mean(dim=(0, 2, 3), keepdim=True)
        # None far out: scores that saturate at 1 are equal, and the order of equal ones is not defined.
        farthest = centred.abs().amax(dim=(0, 2, 3)) / _FARTHEST
        factor = deviation / output.std(dim=(0, 2, 3)).maximum(farthest).clamp(min=1e-6)
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.copy_(mean - output.mean(dim=(0, 2, 3)) * factor)
        if layer.out_channels == 4 * network.model[-1].reg_max > 4:
            # Near bins are likelier than far ones, as they are of trained networks: few boxes reach beyond the image.
            layer.bias.sub_(_FARTHER * torch.arange(network.model[-1].reg_max).repeat(4))


def _last_layers(head: Any) -> Iterator[tuple[Any, tuple[float, float]]]:
    """Convolutions that give a head's outputs, with the mean and deviation that their channels shall have."""
    # A score above 0.25 at 2 deviations; a side as a distribution over bins, or as a multiple of the stride.
    kinds: dict[str, tuple[float, float]] = {
        _SCORES: (-4.5, 1.7),
        _BOXES: (0.0, 2.0) if head.reg_max > 1 else (5.0, 1.2),
        **dict.fromkeys(_REST, (0.0, 1.2)),
    }
    for name, branch in head.named_children():
        if (kind := name.removeprefix("one2one_")) in kinds and _is_list(branch):
            for part in branch:
                layer = part if hasattr(part, "out_channels") else part[-1]
                if hasattr(layer, "out_channels") and layer.bias is not None:
                    yield layer, kinds[kind]


def _is_list(branch: Any) -> bool:
    return isinstance(branch, Sequence) or type(branch).__name__ == "ModuleList"
