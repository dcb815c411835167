"""What a run prints and writes: tables, compare.json, compare.md, compare.png."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from environment import cpus
from loadtest import conditions
from loadtest.compare import report
from loadtest.compare.candidates import Server
from loadtest.compare.run import Run
from loadtest.compare.summary import QUIET, Medians, Target, limit_of, pipeline_of, targets

_PACKAGES = (
    *("fastapi", "kserve", "litserve", "numpy", "onnxruntime", "opencv-python-headless", "openvino", "torch"),
    *("tritonclient", "ultralytics", "uvicorn"),
)


def write(run: Run, candidates: Sequence[Server], where: Mapping[str, Any], folder: Path) -> None:
    """Print the tables and write the files."""
    medians = Medians(run.measurements)
    titles = {server.name: server.title for server in candidates}
    titles |= {limit_of(server.name): f"bare model, {server.profile}" for server in candidates if server.profile}
    titles |= {pipeline_of(server.name): f"pipeline, {server.profile}" for server in candidates if server.profile}
    reached = targets(medians, run.precisions)
    grids = _grids(run, medians, titles, reached)
    warning = disturbed(medians)
    for title, grid in grids.items():
        run.console.print(report.to_table(title, grid))
    if warning:
        run.console.print(f"warning: {warning}", soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    summary = f"{where['date']}, commit {where['commit']}, {where['cpu']}, {where['cores']} cores: `{where['command']}`"
    parts = [summary + "\n", *([f"**{warning}**\n"] if warning else [])]
    parts += [report.to_markdown(title, grid) for title, grid in grids.items()]
    (folder / "compare.md").write_text("\n".join(parts))
    document = {**where, "disturbed": warning, **_document(run, medians, titles, reached)}
    (folder / "compare.json").write_text(json.dumps(document, indent=1) + "\n")
    report.draw(medians, titles, folder / "compare.png")
    run.console.print(f"written: {folder}/compare.json, compare.md, compare.png", soft_wrap=True)


def _grids(
    run: Run, medians: Medians, titles: Mapping[str, str], reached: Sequence[Target]
) -> Mapping[str, report.Grid]:
    grids = {
        "Speed (medians)": report.speed(medians, titles),
        "Ratios of medians": report.ratios(medians, titles),
        "Further requests, 1 connection": report.further(medians, titles),
        "Detections beside Ultralytics PyTorch": report.agreements(run.agreements, run.precisions, titles),
        "Targets": report.verdicts(reached),
    }
    return {title: grid for title, grid in grids.items() if grid}


def _document(run: Run, medians: Medians, titles: Mapping[str, str], reached: Sequence[Target]) -> Mapping[str, Any]:
    return {
        "baseline_exports": {name: run.materials.exports[name] for name in ("onnx", "openvino")},
        "medians": [
            {"candidate": candidate, "request": request, "connections": connections, **figures}
            for (candidate, request, connections), figures in medians.rows.items()
        ],
        "ratios": report.ratios(medians, titles),
        "agreement": {name: {**asdict(item), "share": item.share} for name, item in run.agreements.items()},
        "map50_95": run.precisions,
        "targets": [asdict(target) for target in reached],
        "left_out": run.left_out,
        "measurements": [asdict(item) for item in run.measurements],
    }


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
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": conditions.commit() or "unknown",
        "command": shlex.join(["python", "-m", "loadtest.compare", *sys.argv[1:]]),
        "machine": platform.platform(),
        "cpu": cpus.cpu_name(),
        "instruction_sets": cpus.instruction_sets(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
