"""Where results go: JSON lines, a drawn video."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

import av
import numpy as np
import supervision as sv

from integrations.track.report import TrackError
from integrations.track.source import Frame, Image, reason

_TIME_BASE = Fraction(1, 1000)


class Drawing:
    """A video of what was tracked."""

    def __init__(self, path: Path, rate: float) -> None:
        """Open the file.

        Raises:
            TrackError: it cannot be written.
        """
        try:
            self._container = av.open(str(path), "w")
            self._stream = self._container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise TrackError(f"--draw {path}: {reason(exc)}; expected a file such as out.mp4") from exc
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._began_s: float | None = None
        self._last = -1
        track = sv.ColorLookup.TRACK
        self._boxes, self._masks = sv.BoxAnnotator(color_lookup=track), sv.MaskAnnotator(color_lookup=track)
        self._rotated = sv.OrientedBoxAnnotator(color_lookup=track)
        self._traces, self._labels = sv.TraceAnnotator(color_lookup=track), sv.LabelAnnotator(color_lookup=track)
        self._keypoints = sv.VertexAnnotator(radius=4)

    def write(self, frame: Frame, line: dict[str, Any]) -> None:
        """Add a frame."""
        if self._began_s is None:
            self._began_s = frame.time_s
            self._stream.height, self._stream.width = (side // 2 * 2 for side in frame.image.shape[:2])
        drawn = self._draw(frame.image.copy(), line)[: self._stream.height, : self._stream.width]
        added = av.VideoFrame.from_ndarray(np.ascontiguousarray(drawn), format="bgr24")
        self._last = max(round((frame.time_s - self._began_s) * 1000), self._last + 1)
        added.pts, added.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(added))

    def close(self) -> None:
        """Finish the file."""
        if self._began_s is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def _draw(self, image: Image, line: dict[str, Any]) -> Image:
        predictions = line["predictions"]
        if not predictions:
            return image
        detections = sv.Detections.from_inference(line)
        if "corners" in predictions[0]:
            corners = [[[point["x"], point["y"]] for point in each["corners"]] for each in predictions]
            detections.data["xyxyxyxy"] = np.array(corners, np.float32)
            image = self._rotated.annotate(image, detections)
        else:
            image = self._boxes.annotate(self._masks.annotate(image, detections), detections)
        if "keypoints" in predictions[0]:
            image = self._keypoints.annotate(image, sv.KeyPoints.from_inference(line))
        names = [f"#{each['tracker_id']} {each['class']} {each['confidence']:.2f}" for each in predictions]
        return self._labels.annotate(self._traces.annotate(image, detections), detections, labels=names)


class Lines:
    """Results as JSON lines, one for each frame: `sv.Detections.from_inference` reads a line as it is."""

    def __init__(self, path: str) -> None:
        """Open the file, or standard output for `-`.

        Raises:
            TrackError: it cannot be written.
        """
        try:
            self._file: TextIO = sys.stdout if path == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as exc:
            raise TrackError(f"--jsonl {path}: {exc.strerror}; expected a file that can be written, or -") from exc

    def write(self, _: Frame, line: dict[str, Any]) -> None:
        """Add a line, at once."""
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdout:
            self._file.close()
