"""`python -m loadtest.compare`: which server responds how fast, side by side.

Candidates take turns, and each is started again for every turn: an idle server of another candidate would cost memory,
caches and some polling, and one start may be lucky. The first turn of each candidate detects in all images and is not
timed.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from environment.arguments import count, positive
from loadtest.compare.candidates import MODEL, Server, baselines, nereid
from loadtest.compare.files import circumstances, write
from loadtest.compare.preparation import FOLDER, REPOSITORY, Materials, PreparationError, prepare
from loadtest.compare.processes import ROOT
from loadtest.compare.run import Run


def main() -> int:
    """Run, print, write; 0 when every request to every candidate succeeded."""
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
        console.print(f"error: {failures} requests failed; {options.output}/compare.json says how", soft_wrap=True)
    return int(bool(failures or run.left_out))


def _parser() -> argparse.ArgumentParser:
    # Not our own parser: the value of --export begins as an option does.
    parser = argparse.ArgumentParser(prog="python -m loadtest.compare")
    parser.add_argument(
        "--weights", default="", help="a YOLOv8 .pt (default: ../shared's, else yolov8n.pt, downloaded)"
    )
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that the .pt file may contain")
    parser.add_argument("--picture", default="", help="JPEG (default: bus.jpg of the ultralytics package)")
    parser.add_argument("--seconds", type=positive, default=8.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=3, help="turns of each candidate (default: %(default)s)")
    parser.add_argument("--profiles", default="fp32", help="of Nereid, with spaces between (default: %(default)s)")
    parser.add_argument("--candidates", default="", help="names, with spaces between (default: all)")
    parser.add_argument("--export", default="", help="more arguments of python -m export ultralytics")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "compare", help="folder")
    return parser


def _choose(options: argparse.Namespace, materials: Materials) -> list[Server]:
    """The candidates that the options name.

    Raises:
        PreparationError: a name is unknown, or the export has no such profile: it would be FP32 under another name.
    """
    version = REPOSITORY / MODEL / "1"
    profiles = {"fp32", *(path.stem for path in version.glob("*.pbtxt"))} - {"config"}
    if missing := set(options.profiles.split()) - profiles:
        raise PreparationError(
            f"PROFILES: got {', '.join(sorted(missing))}, expected some of {', '.join(sorted(profiles))}; "
            'int8 takes EXPORT="--precision int8 --calibration <folder of images>"'
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


if __name__ == "__main__":
    sys.exit(main())
