"""A run of all candidates, turn by turn."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from export.proof.average_precision import mean_average_precision, read_yolo_labels
from loadtest.compare.agreement import Agreement, Detection, agree
from loadtest.compare.candidates import Running, Server, iris_row, serve, to_detections
from loadtest.compare.limit import measure_bare
from loadtest.compare.measurement import infer, measure_candidate
from loadtest.compare.preparation import FOLDER, Materials
from loadtest.compare.processes import CandidateError, tail
from loadtest.compare.summary import CONNECTIONS, Measurement, limit_of, pipeline_of
from loadtest.errors import LoadTestError

_CONFIDENCE = 0.25
_LOW_CONFIDENCE = 0.001  # as COCO's evaluation requires


class Run:
    """The measurements, as they are made.

    Attributes:
        materials: what every candidate gets.
        measurements: each of them.
        agreements, precisions: by candidate; precisions where there are labels.
        left_out: the reason, by candidate.
    """

    def __init__(self, materials: Materials, seconds: float, console: Console) -> None:
        self.materials = materials
        self._seconds = seconds
        self.console = console
        self.measurements: list[Measurement] = []
        self.agreements: dict[str, Agreement] = {}
        self.precisions: dict[str, float] = {}
        self.left_out: dict[str, str] = {}

    def all(self, candidates: Sequence[Server], repeats: int) -> None:
        """First what each candidate detects; then the measurements, turn by turn."""
        columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # It is drawn between measurements only: drawing would be measured too.
        with Progress(*columns, console=self.console, auto_refresh=False, transient=True) as progress:
            task = progress.add_task("", total=len(candidates) * (repeats + 1))
            for turn in range(repeats + 1):
                for server in candidates:
                    text = f"turn {turn} of {repeats}: {server.name}" if turn else f"checking {server.name}"
                    progress.update(task, description=text, refresh=True)
                    if server.name not in self.left_out:
                        self._take_turn(server, turn)
                    progress.advance(task)

    def _take_turn(self, server: Server, turn: int) -> None:
        log = FOLDER / f"{server.name}.log"
        try:
            with serve(server, log) as running:
                if turn:
                    self._measure(server, running, turn)
                else:
                    self._check(server, running)
        except (CandidateError, LoadTestError) as exc:
            reason = str(exc) if isinstance(exc, CandidateError) else f"{exc}\n{tail(log)}"
            self._leave_out(server.name, server.title, reason)
            return
        if server.profile and turn:
            self._measure_limit(server, turn)

    def _leave_out(self, name: str, title: str, reason: str) -> None:
        self.left_out[name] = reason
        self.console.print(f"left out: {title}: {reason}", markup=False, soft_wrap=True)

    def _check(self, server: Server, running: Running) -> None:
        """Compare the detections with those of Ultralytics with the same weights."""
        materials = self.materials
        expected = {name: to_detections(found) for name, found in materials.exports["reference"].items()}
        found = self._detect(server, running, list(expected), _CONFIDENCE)
        self.agreements[server.name] = agree(found, expected)
        if not materials.labels:
            return
        class_ids = {name: int(index) for index, name in materials.exports["names"].items()}
        low = {
            name: [[*item.box_xyxy, item.confidence, class_ids[item.label]] for item in items]
            for name, items in self._detect(server, running, list(materials.labels), _LOW_CONFIDENCE).items()
        }
        sizes_wh = {name: materials.sizes_wh[name] for name in materials.labels}
        labels = {name: read_yolo_labels(path, sizes_wh[name]) for name, path in materials.labels.items()}
        self.precisions[server.name], _ = mean_average_precision(low, labels, sizes_wh)

    def _detect(
        self, server: Server, running: Running, names: Sequence[str], confidence: float
    ) -> dict[str, list[Detection]]:
        requests = {name: server.request(self.materials.images[name], confidence) for name in names}
        return {name: server.read(infer(running.port, request)[0]) for name, request in requests.items()}

    def _measure(self, server: Server, running: Running, turn: int) -> None:
        """Every request of one turn."""
        image = server.request(self.materials.image, _CONFIDENCE)
        requests = [("image", image, connections) for connections in CONNECTIONS]
        if server.large:
            requests.append(("large", server.request(self.materials.large, _CONFIDENCE), 1))
        if server.profile:
            requests.append(("iris", iris_row(), 1))
        for name, request, connections in requests:
            figures = measure_candidate(running, request, connections=connections, seconds=self._seconds)
            self.measurements.append(Measurement(server.name, turn, name, connections, **figures))

    def _measure_limit(self, server: Server, turn: int) -> None:
        """The bare model and its pipeline, from the folder that Triton has just read."""
        for name, pipeline in ((limit_of(server.name), False), (pipeline_of(server.name), True)):
            try:
                streams = measure_bare(server.profile, self.materials.image, self._seconds, pipeline=pipeline)
            except CandidateError as exc:
                self._leave_out(name, name, str(exc))
                continue
            self.measurements += [
                Measurement(candidate=name, round=turn, request="image", **figures) for figures in streams
            ]
