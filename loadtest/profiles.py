"""`nereid profiles`: each profile of a model side by side on this machine, and which of them to take.

A stack is started for each profile, with this model alone. Their turns alternate, each at several numbers of
connections after a warm-up; the table has medians over the turns.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from environment import api_key, cpus
from environment.arguments import Parser, count, positive
from environment.project import in_project
from loadtest import conditions
from loadtest.compare.candidates import Running, Server, VersionNotServed, find_rejected, serve
from loadtest.compare.measurement import measure_candidate
from loadtest.compare.processes import CandidateError
from loadtest.errors import LoadTestError
from loadtest.generator.requests import Request, predict_image
from loadtest.tasks import IMAGE_TASKS, PICTURES
from registry.errors import VersionRejected
from registry.layout import MANIFEST
from registry.manifest import read_content

_SHIPPED = Path(__file__).parent / "pictures"
BASE = "fp32"  # the profile that every model has, and whose results the others are measured by
_OTHERS = {"fast": "bf16", "int8": "int8"}  # profiles of a CPU, and the precision that the manifest has of each
_SLOWER = 0.95  # of the requests/s of `BASE`: less is no choice, whatever it gains elsewhere
_QUICKER = 1.05  # more is worth another profile


@dataclass(frozen=True)
class Figures:
    """One profile.

    Attributes:
        runs: runtime and precision, as Triton was given them.
        requests_per_s, p50_ms, p95_ms: medians over the turns, by number of connections.
        memory_mib: of the whole stack, at most.
        precision: the metric of the manifest, such as mAP50-95; None where it was not measured.
        change: of that metric, from `BASE`.
    """

    runs: str
    requests_per_s: Mapping[int, float]
    p50_ms: Mapping[int, float]
    p95_ms: Mapping[int, float]
    memory_mib: float
    precision: float | None = None
    change: float | None = None


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        model: name.
        version: folder of the newest complete version.
        manifest: of it.
    """

    model: str
    version: Path
    manifest: Mapping[str, Any]

    @property
    def profiles(self) -> list[str]:
        """Those for a CPU that the version has."""
        return [BASE, *(name for name in _OTHERS if (self.version / f"{name}.pbtxt").exists())]

    @property
    def image(self) -> Path:
        """A shipped image that shows what the model finds."""
        return _SHIPPED / PICTURES[self.manifest["task"]]

    def precision(self, profile: str, *, bf16: bool) -> tuple[float | None, float | None]:
        """The metric of a profile and its change; without bf16 in hardware `fast` computes in FP32.

        Args:
            profile: one of `profiles`.
            bf16: whether Triton computes in bf16.
        """
        measured = self.manifest.get("precisions", {})
        if profile == BASE or (profile == "fast" and not bf16):
            return next((each["fp32"] for each in measured.values()), None), 0.0
        found = measured.get(_OTHERS[profile])
        if found is None:
            return None, None
        value = next(number for name, number in found.items() if name in {"map50_95", "top1", "miou", "relative_error"})
        return value, found["change"]


def main() -> int:
    """Measure, print a table and a sentence, and write them as JSON."""
    options = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    try:
        subject = find(options.repository, options.model)
        path = options.picture or subject.image
        image = path.read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            figures, rejected = measure(subject, predict_image(subject.model, image), options, console, Path(folder))
    except OSError as exc:
        console.print(f"error: {exc.filename}: {exc.strerror}", markup=False, soft_wrap=True)
        return 1
    except (LoadTestError, CandidateError, VersionRejected, api_key.AccessError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    console.print(draw(figures, f"{subject.model} {subject.version.name} on {cpus.machine()}"))
    for profile, reason in rejected.items():
        console.print(f"{profile}: this machine rejects it: {reason}", markup=False, soft_wrap=True)
    advice = advise(figures)
    console.print(advice, markup=False, soft_wrap=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "commit": conditions.commit(),
        "machine": cpus.machine(),
        "model": subject.model,
        "version": subject.version.name,
        "image": path.name,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "profiles": {name: asdict(each) for name, each in figures.items()},
        "rejected": rejected,
        "advice": advice,
    }
    options.output.write_text(json.dumps(document, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nereid profiles", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="name; one that takes images")
    repository = in_project("model_repository")
    parser.add_argument("--repository", type=_folder, default=repository, help="a folder (default: model_repository)")
    parser.add_argument("--picture", type=Path, help="image to send (default: a shipped one of the model's task)")
    parser.add_argument("--seconds", type=positive, default=4.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=3, help="turns of each profile (default: %(default)s)")
    parser.add_argument("--connections", type=count, nargs="+", default=[1, 4, 16], help="(default: 1 4 16)")
    output = in_project("output/profiles.json")
    parser.add_argument("--output", type=Path, default=output, help="(default: %(default)s)")
    return parser


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"got {text}, expected a folder; next: nereid fetch, which copies a version")
    return Path(text)


def find(repository: Path, model: str) -> Subject:
    """The newest complete version of a model.

    Raises:
        LoadTestError: there is none, or it takes no images.
    """
    complete = [path for path in (repository / model).glob("*") if path.name.isdecimal() and (path / MANIFEST).exists()]
    if not complete:
        known = sorted({path.parents[1].name for path in repository.glob(f"*/*/{MANIFEST}")})
        raise LoadTestError(
            f"{repository / model}: got no version with {MANIFEST}, expected one of {', '.join(known) or 'none'}; "
            "next: nereid export"
        )
    newest = max(complete, key=lambda path: int(path.name))
    manifest = read_content((newest / MANIFEST).read_bytes(), where=str(newest / MANIFEST))
    if manifest.get("task") not in IMAGE_TASKS:
        raise LoadTestError(f"{model}: got task {manifest.get('task')!r}, expected {', '.join(sorted(IMAGE_TASKS))}")
    return Subject(model, newest, manifest)


def measure(
    subject: Subject, request: Request, options: argparse.Namespace, console: Console, folder: Path
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Serve the model in each profile, and take turns.

    Args:
        subject: the model.
        request: to send.
        options: seconds, repeats and connections.
        console: for the progress, which is drawn between measurements only.
        folder: for repository, mirrors and logs.

    Returns:
        The figures by profile; of other profiles than `BASE`, why this machine rejects them.

    Raises:
        CandidateError: a stack does not start, or rejects `BASE`.
        LoadTestError: a request fails.
    """
    repository = folder / "repository"
    shutil.copytree(subject.version, repository / subject.model / subject.version.name)
    taken: dict[str, list[dict[str, Any]]] = {profile: [] for profile in subject.profiles}
    with ExitStack() as stack, Progress(console=console, auto_refresh=False, transient=True) as progress:
        steps = len(taken) * (1 + options.repeats * len(options.connections))
        task = progress.add_task("", total=steps)
        running: dict[str, Running] = {}
        runs: dict[str, tuple[str, bool]] = {}
        rejected: dict[str, str] = {}
        for profile in taken:
            progress.update(task, description=f"starting {profile}", refresh=True)
            server = serve(_server(profile, repository, folder), folder / f"{profile}.log")
            try:
                running[profile] = stack.enter_context(server)
            except VersionNotServed as exc:
                if profile == BASE:
                    raise
                rejected[profile] = str(exc)
                progress.advance(task, 1 + options.repeats * len(options.connections))
                continue
            runs[profile] = _read_runtime(running[profile].port, subject.model)
            progress.advance(task)
        for turn in range(options.repeats):
            for profile, ready in running.items():
                for connections in options.connections:
                    text = f"turn {turn + 1}: {profile}, {connections} connections"
                    progress.update(task, description=text, refresh=True)
                    found = measure_candidate(ready, request, connections=connections, seconds=options.seconds)
                    if found["failures"]:
                        raise LoadTestError(f"{profile}: {found['failures']} requests failed: {found['failure']}")
                    if not found["requests_per_s"]:
                        raise LoadTestError(
                            f"{profile}: no request ended in {options.seconds:g} s; next: more --seconds"
                        )
                    taken[profile].append({"connections": connections, **found})
                    progress.advance(task)
    return {profile: _summarise(subject, profile, taken[profile], *runs[profile]) for profile in running}, rejected


def _server(profile: str, repository: Path, folder: Path) -> Server:
    return Server(
        name=profile,
        title=profile,
        command=[sys.executable, "-m", "stack"],
        health="/v2/health/ready",
        find_rejected=find_rejected,
        request=lambda image, _: predict_image("", image),
        read=list,
        variables={
            "REPOSITORY": str(repository),
            "MIRROR": str(folder / f"mirror-{profile}"),
            "PROFILE": profile,
            "PREDICTOR_MEASURES": "false",  # this does it, and while one is measured the others must rest
            "POLL_S": "3600",  # nothing changes
            "TRITON_URL": "",
            "VERBOSE": "1",  # its log is what it prints
        },
        profile=profile,
    )


def _read_runtime(port: int, model: str) -> tuple[str, bool]:
    """Runtime and precision of the config that Triton was given, and whether it has bf16."""
    url = f"http://127.0.0.1:{port}/v2/models/{model}/config"
    response = httpx.get(url, headers=api_key.headers(), trust_env=False)
    api_key.check(url, response.status_code, response.text)
    if response.is_error:
        raise LoadTestError(f"{model}: {response.status_code} {response.text[:200]}")
    config = response.json()
    bf16 = "HINT_BF16" in config.get("parameters", {})
    runtime = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(config["backend"], config["backend"])
    rest = "bf16" if bf16 else "FP32"
    return f"{runtime}, {'8 bits, ' if 'int8' in config.get('default_model_filename', '') else ''}{rest}", bf16


def _summarise(subject: Subject, profile: str, taken: Sequence[Mapping[str, Any]], runs: str, bf16: bool) -> Figures:
    def medians(name: str) -> dict[int, float]:
        by_connections: dict[int, list[float]] = {}
        for each in taken:
            by_connections.setdefault(each["connections"], []).append(each[name])
        return {connections: statistics.median(values) for connections, values in by_connections.items()}

    precision, change = subject.precision(profile, bf16=bf16)
    return Figures(
        runs=runs,
        requests_per_s=medians("requests_per_s"),
        p50_ms=medians("p50_ms"),
        p95_ms=medians("p95_ms"),
        memory_mib=max(each["pss_mib"] for each in taken),
        precision=precision,
        change=change,
    )


def draw(figures: Mapping[str, Figures], title: str) -> Table:
    """A row for each profile; numbers of connections apart by a slash."""
    connections = " / ".join(map(str, next(iter(figures.values())).requests_per_s))
    table = Table("profile", "runs", title=title)
    for column in (
        f"requests/s at {connections}",
        f"p50, ms, at {connections}",
        f"p95, ms, at {connections}",
        "accuracy",
        "MiB",
    ):
        table.add_column(column, justify="right")
    for profile, each in figures.items():
        numbers = (
            " / ".join(f"{value:.1f}" for value in values.values())
            for values in (each.requests_per_s, each.p50_ms, each.p95_ms)
        )
        accuracy = "-" if each.precision is None else f"{each.precision:.4f} ({each.change:+.4f})"
        table.add_row(profile, each.runs, *numbers, accuracy, f"{each.memory_mib:.0f}")
    return table


def advise(figures: Mapping[str, Figures]) -> str:
    """Which profile to take, in a sentence: one that is nowhere slower than `BASE`, and quickest on the whole."""
    base = figures[BASE]
    gains = {
        profile: [each.requests_per_s[count] / base.requests_per_s[count] for count in base.requests_per_s]
        for profile, each in figures.items()
        if profile != BASE
    }
    able = {profile: ratios for profile, ratios in gains.items() if min(ratios) >= _SLOWER}
    best = max(able, key=lambda profile: math.prod(able[profile]), default=None)
    if best is None or math.prod(able[best]) < _QUICKER ** len(able[best]):
        slower = "".join(f"; {name} has {min(each):.2f} times its requests/s at worst" for name, each in gains.items())
        return f"take {BASE}: no other profile is quicker here{slower}"
    ratios, taken = able[best], figures[best]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} times the requests/s of {BASE}"
    if taken.change is None:
        cost = "what it costs in accuracy was not measured: nereid export ... --precision ... --calibration <folder>"
    elif taken.change:
        cost = f"accuracy {taken.precision:.4f} in place of {base.precision:.4f}"
    else:
        cost = "accuracy is the same"
    return f"take {best}: {spread}; {cost}"


if __name__ == "__main__":
    sys.exit(main())
