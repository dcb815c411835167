"""`python -m loadtest.compare`: who answers how fast, side by side.

Candidates take turns and are started anew for each: an idle server of another candidate would cost memory, caches and
the odd poll, and a server that is started three times shows what one start happens to hit. The first turn of each asks
about all pictures and is not timed.
"""

import argparse
import ast
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from google.protobuf import text_format
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tritonclient.grpc import model_config_pb2

from export.proof.average_precision import mean_average_precision, read_yolo_labels
from loadtest.compare import bare, report
from loadtest.compare.agreement import Agreement, Detection, agree
from loadtest.compare.candidates import MODEL, Running, Server, baselines, mirror, nereid, rows, serve, to_detections
from loadtest.compare.generator import LoadError, Question, ask, drive
from loadtest.compare.preparation import FOLDER, REPOSITORY, Materials, PreparationError, letterbox, prepare
from loadtest.compare.processes import ROOT, CandidateError
from loadtest.compare.summary import CONNECTIONS, QUIET, Measurement, Medians, limit_of, targets

_CONFIDENCE = 0.25
_LOW_CONFIDENCE = 0.001  # as COCO's evaluation wants it
_WARM_UP_S = 2.0
_PACKAGES = (
    *("fastapi", "kserve", "litserve", "numpy", "onnxruntime", "opencv-python-headless", "openvino", "torch"),
    *("tritonclient", "ultralytics", "uvicorn"),
)
_THREADS = {"INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT"}  # of OpenVINO; the limit sets them itself


def main() -> int:
    """Run, print, write; 0 when every candidate answered every request."""
    options = _parser().parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    try:
        with console.status("exporting ..."):
            materials = prepare(options.weights, options.picture, options.export, unpickling=options.allow_unpickling)
        candidates = _choose(options, materials)
    except PreparationError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    where = circumstances()
    run = Run(materials, options.seconds, console)
    try:
        run.all(candidates, options.repeats)
    except KeyboardInterrupt:
        console.print("interrupted; what was measured until now:")
    if not run.measurements:
        return 1
    write(run, candidates, where, options.output)
    failures = sum(item.failures for item in run.measurements)
    if failures:
        console.print(f"error: {failures} requests failed; {options.output}/compare.json has the words", soft_wrap=True)
    return int(bool(failures or run.left_out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.compare")
    parser.add_argument(
        "--weights", default="", help="a YOLOv8 .pt (default: ../shared's, else yolov8n.pt, downloaded)"
    )
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that the .pt file may hold")
    parser.add_argument("--picture", default="", help="JPEG (default: bus.jpg of the ultralytics package)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each candidate (default: %(default)s)")
    parser.add_argument("--profiles", default="fp32", help="of Nereid, with spaces between (default: %(default)s)")
    parser.add_argument("--candidates", default="", help="names, with spaces between (default: all)")
    parser.add_argument("--export", default="", help="more arguments of python -m export ultralytics")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "compare", help="folder")
    return parser


def _choose(options: argparse.Namespace, materials: Materials) -> list[Server]:
    """The candidates that were asked for.

    Raises:
        PreparationError: a name is none, or the export has no such profile: it would be FP32 under another name.
    """
    version = REPOSITORY / MODEL / "1"
    profiles = {"fp32", *(path.stem for path in version.glob("*.pbtxt"))} - {"config"}
    if missing := set(options.profiles.split()) - profiles:
        raise PreparationError(
            f"PROFILES: got {', '.join(sorted(missing))}, expected some of {', '.join(sorted(profiles))}; "
            'int8 takes EXPORT="--precision int8 --calibration <folder of pictures>"'
        )
    every = [
        *baselines(materials.weights, materials.exports, unpickling=options.allow_unpickling),
        *(nereid(profile, FOLDER) for profile in options.profiles.split()),
    ]
    wanted = options.candidates.split() or [server.name for server in every]
    if unknown := set(wanted) - {server.name for server in every}:
        known = ", ".join(server.name for server in every)
        raise PreparationError(f"--candidates: got {', '.join(sorted(unknown))}, expected some of {known}")
    return [server for server in every if server.name in wanted]


class Run:
    """What is measured, as it comes.

    Attributes:
        materials: what everyone is given.
        measurements: each of them.
        agreements, precisions: by candidate; precisions where there are labels.
        left_out: why, by candidate.
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
        """First whether each answers, and what; then turn by turn."""
        columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # It is drawn between measurements only: whoever measures must not be what is measured.
        with Progress(*columns, console=self.console, auto_refresh=False, transient=True) as progress:
            task = progress.add_task("", total=len(candidates) * (repeats + 1))
            for turn in range(repeats + 1):
                for server in candidates:
                    words = f"turn {turn} of {repeats}: {server.name}" if turn else f"checking {server.name}"
                    progress.update(task, description=words, refresh=True)
                    if server.name not in self.left_out:
                        self._take_turn(server, turn)
                    progress.advance(task)

    def _take_turn(self, server: Server, turn: int) -> None:
        log = FOLDER / f"{server.name}.log"
        try:
            with serve(server, log) as running:
                if turn:
                    self._measure_all(server, running, turn)
                else:
                    self._check(server, running)
            if server.profile and turn:
                self._measure_bare(server, turn)
        except (CandidateError, LoadError) as exc:
            words = str(exc) if isinstance(exc, CandidateError) else f"{exc}\n{_tail(log)}"
            self.left_out[server.name] = words
            self.console.print(f"left out: {server.title}: {words}", markup=False, soft_wrap=True)

    def _check(self, server: Server, running: Running) -> None:
        """Compare what it finds with what Ultralytics finds with the weights."""
        materials = self.materials
        expected = {name: to_detections(found) for name, found in materials.exports["reference"].items()}
        found = self._find(server, running, list(expected), _CONFIDENCE)
        self.agreements[server.name] = agree(found, expected)
        if not materials.labels:
            return
        class_ids = {name: int(index) for index, name in materials.exports["names"].items()}
        low = {
            name: [[*item.box_xyxy, item.confidence, class_ids[item.label]] for item in items]
            for name, items in self._find(server, running, list(materials.labels), _LOW_CONFIDENCE).items()
        }
        sizes_wh = {name: materials.sizes_wh[name] for name in materials.labels}
        labels = {name: read_yolo_labels(path, sizes_wh[name]) for name, path in materials.labels.items()}
        self.precisions[server.name], _ = mean_average_precision(low, labels, sizes_wh)

    def _find(
        self, server: Server, running: Running, names: Sequence[str], confidence: float
    ) -> dict[str, list[Detection]]:
        pictures = self.materials.pictures
        return {name: server.read(ask(running.port, server.ask(pictures[name], confidence))[0]) for name in names}

    def _measure_all(self, server: Server, running: Running, turn: int) -> None:
        """Every question of one turn."""
        question = server.ask(self.materials.picture, _CONFIDENCE)
        questions = [("picture", question, connections) for connections in CONNECTIONS]
        if server.large:
            questions.append(("large", server.ask(self.materials.large, _CONFIDENCE), 1))
        if server.profile:
            questions.append(("iris", rows(), 1))
        for name, question, connections in questions:
            figures = self._measure(running, question, connections)
            self.measurements.append(Measurement(server.name, turn, name, connections, **figures))

    def _measure(self, running: Running, question: Question, connections: int) -> dict[str, Any]:
        """Figures of one measurement, after a warm-up at the same number of connections."""
        _, size_bytes = ask(running.port, question)
        repeat = partial(drive, running.port, question, connections=connections, at_least=size_bytes // 2)
        repeat(seconds=min(_WARM_UP_S, self._seconds))
        cpu_s, busy_s = running.group.cpu_s(), _busy_s()
        load = repeat(seconds=self._seconds)
        cpu_s, busy_s = running.group.cpu_s() - cpu_s, _busy_s() - busy_s
        return {
            "requests_per_s": load.per_second,
            **load.percentiles_ms(),
            "cpu_s_per_request": cpu_s / load.answered if load.answered else None,
            "pss_mib": running.group.pss_mib(),
            "generator_cpu": load.cpu_s / load.whole_s,
            "others_cpu": max(0.0, busy_s - cpu_s - load.cpu_s) / load.whole_s,
            "failures": len(load.failures),
            "failure": load.failures[0] if load.failures else "",
        }

    def _measure_bare(self, server: Server, turn: int) -> None:
        """The limit of a configuration, from the folder that Triton has just read."""
        python, work = bare_work(server.profile, self.materials.picture, self._seconds)
        began, cpu_s, busy_s = time.perf_counter(), _children_s(), _busy_s()
        done = subprocess.run(
            [python, "-m", "loadtest.compare.bare"],
            cwd=ROOT, input=bare.describe(work), capture_output=True, text=True, check=False,
        )  # fmt: skip
        name = limit_of(server.name)
        if done.returncode:
            self.left_out[name] = done.stderr[-1000:]
            self.console.print(f"left out: {name}: {done.stderr[-1000:]}", markup=False, soft_wrap=True)
            return
        cpu_s, busy_s = _children_s() - cpu_s, _busy_s() - busy_s
        others_cpu = max(0.0, busy_s - cpu_s) / (time.perf_counter() - began)
        for line in done.stdout.splitlines():
            figures = json.loads(line) | {"others_cpu": others_cpu}
            self.measurements.append(Measurement(candidate=name, round=turn, question="picture", **figures))


def bare_work(profile: str, picture: bytes, seconds: float, *, cache: Path = FOLDER) -> tuple[str, bare.Work]:
    """What the bare model is run with, from the config that Triton reads.

    Args:
        profile: whose mirror is read.
        picture: a JPEG, letterboxed into the input tensor.
        seconds: how long to run.
        cache: folder of the mirrors; gets the input tensor.

    Returns:
        The Python that has its runtime, and the work.
    """
    folder = mirror(profile, cache) / "models" / MODEL
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    metadata = ast.literal_eval(config.parameters["metadata"].string_value)
    content = cache / "input.npy"
    np.save(content, letterbox(picture, max(metadata["imgsz"]), metadata["stride"]))
    version = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    properties = {
        key: value.string_value for key, value in config.parameters.items() if key.isupper() and key not in _THREADS
    }
    triton = ROOT / ".venv-triton"
    served_by = list(triton.glob(f"lib/python*/site-packages/{config.backend}/__init__.py"))
    work = bare.Work(
        model=str((version / (config.default_model_filename or "model.onnx")).resolve()),
        runtime=config.backend,
        properties=properties,
        tensor=config.input[0].name,
        content=str(content),
        cores=len(os.sched_getaffinity(0)),
        seconds=seconds,
    )
    return str(triton / "bin" / "python") if served_by else sys.executable, work


def _busy_s() -> float:
    """CPU seconds of everyone on this machine."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _children_s() -> float:
    """CPU seconds of the programs that were run to their end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def write(run: Run, candidates: Sequence[Server], where: Mapping[str, Any], folder: Path) -> None:
    """Print the tables; write compare.json, compare.md, compare.png."""
    medians = Medians(run.measurements)
    titles = {server.name: server.title for server in candidates}
    titles |= {limit_of(server.name): f"bare model, {server.profile}" for server in candidates if server.profile}
    reached = targets(medians, run.precisions)
    grids = {
        "Speed (medians)": report.speed(medians, titles),
        "Ratios of medians": report.ratios(medians, titles),
        "Further questions, 1 connection": report.further(medians, titles),
        "Detections beside Ultralytics PyTorch": report.agreements(run.agreements, run.precisions, titles),
        "Targets": report.verdicts(reached),
    }
    grids = {title: grid for title, grid in grids.items() if grid}
    folder.mkdir(parents=True, exist_ok=True)
    for title, grid in grids.items():
        run.console.print(report.to_table(title, grid))
    told = disturbed(medians)
    if told:
        run.console.print(f"warning: {told}", soft_wrap=True)
    summary = f"{where['date']}, commit {where['commit']}, {where['cpu']}, {where['cores']} cores: `{where['command']}`"
    warning = [f"**{told}**\n"] if told else []
    parts = [summary + "\n", *warning, *(report.to_markdown(title, grid) for title, grid in grids.items())]
    (folder / "compare.md").write_text("\n".join(parts))
    kept: Mapping[str, Any] = {
        **where,
        "disturbed": told,
        "baseline_exports": {name: run.materials.exports[name] for name in ("onnx", "openvino")},
        "medians": [
            {"candidate": candidate, "question": question, "connections": connections, **figures}
            for (candidate, question, connections), figures in medians.rows.items()
        ],
        "ratios": report.ratios(medians, titles),
        "agreement": {name: {**asdict(item), "share": item.share} for name, item in run.agreements.items()},
        "map50_95": run.precisions,
        "targets": [asdict(target) for target in reached],
        "left_out": run.left_out,
        "measurements": [asdict(item) for item in run.measurements],
    }
    (folder / "compare.json").write_text(json.dumps(kept, indent=1) + "\n")
    report.draw(medians, titles, folder / "compare.png")
    run.console.print(f"written: {folder}/compare.json, compare.md, compare.png", soft_wrap=True)


def disturbed(medians: Medians) -> str:
    """What makes the figures of a run doubtful; empty where nothing does."""
    if medians.disturbance <= QUIET:
        return ""
    return (
        f"other processes took {medians.disturbance:.2f} cores meanwhile, expected at most {QUIET}: no target"
        " is decided; next: stop them, and run it again"
    )


def circumstances() -> dict[str, Any]:
    """Date, commit, machine, versions and command of this run."""
    described = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit or "unknown",
        "command": shlex.join(["python", "-m", "loadtest.compare", *sys.argv[1:]]),
        "machine": platform.platform(),
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
