"""Numbers for objects, the same from frame to frame."""

import argparse
from typing import Any

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker, OCSORTTracker, SORTTracker


class Tracks:
    """Numbers for objects, by a tracker of the package `trackers`."""

    def __init__(self, options: argparse.Namespace, rate: float) -> None:
        """Begin without any.

        Args:
            options: of the command line.
            rate: frames per second that are tracked.
        """
        buffer = max(round(options.lost * 30), 1)  # trackers counts them at 30 frames/s
        rates: dict[str, Any] = {"lost_track_buffer": buffer, "frame_rate": rate}
        self._tracker: Any
        if options.tracker == "bytetrack":
            self._tracker = ByteTrackTracker(
                track_activation_threshold=options.new_track, high_conf_det_threshold=options.new_track, **rates
            )
        elif options.tracker == "sort":
            self._tracker = SORTTracker(track_activation_threshold=options.new_track, **rates)
        else:
            self._tracker = OCSORTTracker(high_conf_det_threshold=options.new_track, **rates)
        self._last_s = float("-inf")

    def update(self, predictions: list[dict[str, Any]], time_s: float) -> list[dict[str, Any]]:
        """The predictions that belong to a track, each with `tracker_id`, as supervision and Roboflow name it."""
        boxes = [[each["box"][name] for name in ("x1", "y1", "x2", "y2")] for each in predictions]
        self._last_s = max(time_s, self._last_s + 1e-3)  # clocks are set back, and frames may lack a time
        tracked = self._tracker.update(
            sv.Detections(
                xyxy=np.array(boxes, np.float32).reshape(-1, 4),
                confidence=np.array([each["confidence"] for each in predictions], np.float32),
                class_id=np.array([each["class_id"] for each in predictions], int),
                data={"index": np.arange(len(predictions))},
            ),
            timestamp=self._last_s,
        )
        pairs = zip(tracked.data.get("index", ()), tracked.tracker_id, strict=True)
        return [{"tracker_id": int(number), **predictions[index]} for index, number in sorted(pairs) if number >= 0]
