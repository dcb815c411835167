"""Writes `heads.npz`: needs torch and ultralytics."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO

from export.proof.drawn_images import draw_images
from export.proof.session import Session
from tests.reference.heads import CLASSES, FILE, HEADS, IMGSZ, KEYPOINTS
from tests.support.networks import build_network
from transformer.imaging.letterbox import fit, letterbox

_MOST = 300  # candidates of an image: as many as a head without NMS has


def write_heads() -> None:
    """Write the outputs of each head for drawn images, and Ultralytics' results of the same file."""
    arrays: dict[str, Any] = {}
    for head, (task, is_nms_free) in HEADS.items():
        with tempfile.TemporaryDirectory() as folder:
            network = build_network(f"{head}.yaml", classes=CLASSES, keypoints=KEYPOINTS if task == "pose" else None)
            network.save(f"{folder}/network.pt")
            options: dict[str, Any] = {"imgsz": IMGSZ, "nms": False if is_nms_free else None, "verbose": False}
            file = Path(YOLO(f"{folder}/network.pt").export(format="onnx", dynamic=True, opset=17, **options))
            session, yolo = Session(file, name=head), YOLO(file, task=task)
            for named in draw_images():
                case = _run(session, yolo, named.image_hwc, options)
                if len(case["found"]) >= 3 and case["output"].size <= _MOST * (4 + CLASSES + 15):
                    arrays |= {f"{head}/{named.name}/{part}": array for part, array in case.items()}
    keys = sorted({key.rpartition("/")[0] for key in arrays})
    np.savez_compressed(FILE, allow_pickle=False, keys=np.array(keys), **arrays)
    print(f"heads: {len(keys)} images, {FILE.stat().st_size / 1e3:.0f} kB")


def _run(session: Session, yolo: Any, image_hwc: Any, options: dict[str, Any]) -> dict[str, Any]:
    height, width = image_hwc.shape[:2]
    boxed = letterbox(image_hwc, fit((width, height), (IMGSZ, IMGSZ), stride=32))
    tensor = np.ascontiguousarray(boxed.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    output = session.infer(tensor)["output0"][0]
    if options["nms"] is None:
        output = output[:, output[4 : 4 + CLASSES].max(axis=0) > 0.2]
    result = yolo.predict(np.ascontiguousarray(image_hwc[..., ::-1]), **options)[0]
    found = result.obb if result.obb is not None else result.boxes
    keypoints = np.zeros(0, np.float32) if result.keypoints is None else result.keypoints.data.numpy()
    return {"wh": np.array([width, height]), "output": output, "found": found.data.numpy(), "keypoints": keypoints}
