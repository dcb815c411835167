"""Validates mutated versions, as an attacker with write access to the bucket may upload them."""

import dataclasses
import io
import os
import re
import resource
import shutil
import signal
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predictor.synchroniser.staging import Candidate, check_complete
from registry import config as configs
from registry.errors import Incomplete, VersionRejected
from registry.judgement.onnx_file import read_facts
from registry.judgement.sandbox_process import USUAL, confined
from registry.judgement.version import Terms, complete_version_here, judge_texts_here, read_texts
from registry.layout import CONFIG, GOLDEN, MANIFEST, Object, find_file_problem, read_layout
from tests.fuzz.inputs import examples, mutated
from tests.fuzz.wire import written
from tests.support.models import build_identity
from tests.support.stack import ROOT
from tests.support.versions import Build, seal, write
from transformer import tasks
from transformer.triton.model import ModelConfigError

_ROUND = 500  # inputs of one process, and of one seed: hypothesis keeps all of them in memory
_NAME = "rows"
_FOLDERS = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a disk takes longer than the validation
_OUTSIDE = "../secret.data"
_VARIES = re.compile(r"\d+|'[^']*'")
_TEXT_WORDS = [
    *(b"input {", b"output {", b"}", b"dims: ", b"-1", b"0", b"99999999999999999999", b"1e999", b"nan", b"true", b"#"),
    *(
        b'backend: "python"',
        b'platform: "ensemble"',
        b'default_model_filename: "model.py"',
        b"max_batch_size: 2147483647",
    ),
    *(
        b"instance_group { count: 9999 }",
        b"model_warmup {",
        b"parameters {",
        b'key: "metadata"',
        b'string_value: "[[[["',
        *(b"[1000000000, 3]", b"[8192, 8192]", b"[[]]", b"{}", b"[512, 3]", b"100000", b"\\\\ud800", b"1e300", b"True"),
    ),
    *(
        b"version_policy { specific { versions: [",
        b"dynamic_batching {",
        b"\\0",
        b"\\xff",
        b"\xff",
        b"\0",
        b"../",
        b'"',
        b"'",
    ),
]
_JSON_WORDS = [
    *(b"[", b"{", b"}", b"]", b'"', b"null", b"true", b"-1", b"1e999", b"NaN", b"\\u0000", b"\\ud800", b"\xff", b"\n"),
    *(
        b'"../../x.onnx"',
        b'"/etc/passwd"',
        b'"model.py"',
        b'"a/b.onnx"',
        b'"files"',
        b'"size_bytes": 99999999999999999',
    ),
]
_EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1]
_BINARY_WORDS = [
    *(value.to_bytes(size, "little") for value in _EDGES for size in (4, 8)),
    *(
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x93NUMPY\x01\x00",
        b"(999999999999,)",
        b"'|O'",
        b"'<c8'",
        b"'<U9'",
    ),
    *(b"'descr'", b"location", b"../secret.data", b"\x3a", b"\xba\x80\x80\x80\x10", b"\xff" * 10, b"\x0a\x7f"),
]


class Escape(Exception):
    """A version that escapes its validation, with the smallest input that shows it."""


@dataclass
class Kind:
    """Verdicts on one kind of input; reasons are beginnings of messages, without numbers and quotes."""

    verdicts: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    reasons: set[str] = field(default_factory=set)


@dataclass
class Report:
    """Results of a run; memory is that of its largest process."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    memory_bytes: int = 0


@dataclass(frozen=True)
class Mutated:
    """A file that replaces the valid one of a version."""

    kind: str
    name: str
    content: bytes

    @property
    def profile(self) -> str:
        """The profile of the validation."""
        return "fast" if self.kind == "profile" else "fp32"


def fuzz(*, count: int, seed: int, report_progress: Callable[[int], None] = lambda _: None) -> Report:
    """Validate mutated versions, in processes with the memory limit of a validation.

    Args:
        count: number of inputs.
        seed: of the inputs.
        report_progress: called with the number of finished inputs.

    Raises:
        Escape: a version is accepted and reaches outside its folder, raises an unforeseen error, or exceeds the
            deadline.
        VersionRejected: a process exceeded its memory limit.
    """
    report = Report()
    limits = dataclasses.replace(USUAL, cpu_s=_ROUND * USUAL.cpu_s, wall_s=3600)
    firsts = range(0, count, _ROUND)

    def run(first: int) -> dict[str, Any]:
        done: dict[str, Any] = confined(_round, seed * 1_000_003 + first, min(_ROUND, count - first), limits=limits)
        return done

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, done in enumerate(pool.map(run, firsts), start=1):
            if "escape" in done:
                pool.shutdown(cancel_futures=True)
                raise Escape(done["escape"])
            _add(report, done)
            report_progress(min(number * _ROUND, count))
    return report


def _add(report: Report, done: dict[str, Any]) -> None:
    for name, kind in done["kinds"].items():
        known = report.kinds.setdefault(name, Kind())
        known.verdicts.update(kind["verdicts"])
        known.slowest_ms = max(known.slowest_ms, kind["slowest_ms"])
        known.reasons |= set(kind["reasons"])
    report.memory_bytes = max(report.memory_bytes, done["memory_bytes"])


def spoil(repository: Path, *, count: int, seed: int) -> list[str]:
    """Write models with a valid version 1 and a mutated version 2; returns their names.

    Args:
        repository: a folder.
        count: number of models.
        seed: of the mutations.
    """
    mutants: list[Mutated] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(write(Path(folder), _NAME, Build(1))).filter(lambda mutant: mutant.kind != "listing")

        @examples(seed, 2 * count)
        @given(inputs)
        def collect(mutant: Mutated) -> None:
            mutants.append(mutant)

        collect()
    names = [f"m{number}-{mutant.name.partition('.')[0]}" for number, mutant in enumerate(mutants[:count])]
    for name, mutant in zip(names, mutants, strict=False):
        write(repository, name, Build(1))
        version = write(repository, name, Build(2))
        (version / mutant.name).write_bytes(mutant.content)
        if mutant.name != MANIFEST:
            seal(version)
    return names


def _round(number: int, size: int) -> dict[str, Any]:
    """In a process of its own: validate so many inputs of a seed."""
    report = Report()
    with tempfile.TemporaryDirectory(dir=_FOLDERS) as folder:
        good = write(Path(folder), _NAME, Build(1))

        @examples(number, size)
        @given(_inputs(good))
        def judge(mutant: Mutated) -> None:
            started = time.process_time()
            verdict = _judge(good, mutant)
            kind = report.kinds.setdefault(mutant.kind, Kind())
            kind.slowest_ms = max(kind.slowest_ms, (time.process_time() - started) * 1000)
            kind.verdicts[verdict.partition(":")[0]] += 1
            kind.reasons.add(_VARIES.sub("#", verdict)[:60])

        try:
            judge()
        except Exception as exc:  # noqa: BLE001 - any error is a finding
            return {"escape": f"seed {number}: {type(exc).__name__}: {exc}; {exc.__notes__[:2]!r:.2000}"}
    return {
        "kinds": {name: vars(kind) | {"reasons": sorted(kind.reasons)} for name, kind in report.kinds.items()},
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _judge(good: Path, mutant: Mutated) -> str:
    """The verdict of the whole validation, with its reason.

    Raises:
        Escape: see `fuzz`.
    """
    with tempfile.TemporaryDirectory(dir=_FOLDERS) as folder, _deadline():
        model = Path(folder) / _NAME
        version = model / "1"
        shutil.copytree(good, version)
        (version / mutant.name).write_bytes(mutant.content)
        if mutant.name != MANIFEST:
            seal(version)
        before = _files(Path(folder))
        try:
            verdict = "listed" if mutant.kind == "listing" else _judge_version(version, Terms(mutant.profile, 2))
            if mutant.kind == "listing":
                _judge_listing(mutant.content)
        except VersionRejected as exc:
            verdict = f"refused: {exc}"
        except Incomplete as exc:
            verdict = f"incomplete: {exc}"
        except MemoryError:
            verdict = "refused: memory"
        if strange := _files(Path(folder)) - before - {f"{_NAME}/{CONFIG}", f"{_NAME}/warmup/golden~0"}:
            raise Escape(f"wrote {sorted(strange)}")
        if mutant.kind == "config.pbtxt":
            _check_description(mutant.content)
        if verdict == "good":
            _check_good(version)
        elif mutant.kind == "wire" and not verdict.startswith("refused: model.onnx: external data"):
            _check_unread(version / "model.onnx", verdict)
        return verdict


def _judge_version(version: Path, terms: Terms) -> str:
    texts = read_texts(version)
    for name, entry in (judge_texts_here(texts, terms) or {}).items():
        if not (version / name).exists() or (version / name).stat().st_size != entry[1]:
            raise Incomplete(f"waits for {name}")
    complete_version_here(version, texts, terms)
    return "good"


def _judge_listing(content: bytes) -> None:
    keys = content.decode("utf-8", "surrogateescape").split("\n")
    objects = [Object(key, len(key), str(hash(key)), datetime.now(UTC), link=key.endswith("@")) for key in keys]
    models, _ = read_layout(objects)
    for name, model in models.items():
        for number in model.versions:
            candidate = Candidate(name, number, model, None, "fp32", 2)
            candidate.fingerprint  # noqa: B018 - must not raise
            try:
                check_complete(candidate)
            except Incomplete:
                continue
            places = {f"{name}/{number}/{file}" for file in candidate.files}
            if any(os.path.normpath(place) != place or not place.isprintable() for place in places):
                raise Escape(f"a key became a place of its own: {places}")


def _check_description(text: bytes) -> None:
    """Describe a config that is accepted as the transformer does: what it cannot serve is an error of the config."""
    with suppress(VersionRejected, ModelConfigError):
        config = configs.parse(text, where=CONFIG)
        configs.check(config, where=CONFIG)
        model = tasks.describe(config, version="1")
        if task := tasks.task_of(model):
            orjson.dumps([task.metadata(model), tasks.interface(model)])


def _check_good(version: Path) -> None:
    """Compare an accepted version with onnx's own reader, which shares no code with ours.

    Raises:
        Escape: it reaches outside the version, or runs in another backend.
    """
    config = configs.parse((version.parent / CONFIG).read_bytes(), where=CONFIG)
    if config.backend not in {"onnxruntime", "openvino"} and config.platform != "onnxruntime_onnx":
        raise Escape(f"accepted, and runs in {config.backend or config.platform}")
    if not config.default_model_filename.endswith((".onnx", ".xml")) or "/" in config.default_model_filename:
        raise Escape(f"accepted, and reads {config.default_model_filename}")
    for path in version.glob("*.onnx"):
        model = onnx.ModelProto()
        with suppress(DecodeError):  # Triton rejects it too
            model.ParseFromString(path.read_bytes())
        for location in _locations(model):
            if find_file_problem(location) or not (version / location).is_file():
                raise Escape(f"accepted, and reads {location!r}")


def _locations(message: Any) -> Iterator[str]:
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if descriptor.is_repeated else [value]:
                yield from _locations(inner)


def _check_unread(path: Path, verdict: str) -> None:
    """Check that the validation has found each file outside the version that ONNX Runtime reads.

    Raises:
        Escape: it did not.
    """
    try:
        found = read_facts(path).external
    except (ValueError, IndexError, KeyError, RecursionError):
        return
    try:
        onnxruntime.InferenceSession(path)
        seen = ""
    except Exception as exc:  # noqa: BLE001 - it has many
        seen = str(exc)
    if ("secret" in seen or "xternal" in seen or not seen) and _OUTSIDE not in found:
        raise Escape(f"ONNX Runtime read {_OUTSIDE}: {seen[:200]!r}; the validation: {verdict}")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@contextmanager
def _deadline() -> Iterator[None]:
    """A deadline of CPU time for one validation."""

    def end(*_: object) -> None:
        raise Escape(f"more than {USUAL.cpu_s} s of CPU")

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, USUAL.cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _inputs(good: Path) -> st.SearchStrategy[Mutated]:
    texts = [(good / CONFIG).read_bytes(), *_CONFIGS]
    bundle = io.BytesIO()
    np.savez_compressed(bundle, x=np.zeros((1, 2), np.float32), y=np.arange(3))
    goldens = [(good / GOLDEN).read_bytes(), bundle.getvalue()]
    graphs = [(good / "model.onnx").read_bytes(), _with_data("model.data").SerializeToString(), build_identity()]

    def of(kind: str, name: str, originals: list[bytes], words: list[bytes]) -> st.SearchStrategy[Mutated]:
        return mutated(st.sampled_from(originals), words).map(lambda content: Mutated(kind, name, content))

    return st.one_of(
        of("config.pbtxt", CONFIG, texts, _TEXT_WORDS),
        of("profile", "fast.pbtxt", texts, _TEXT_WORDS),
        of("manifest", MANIFEST, [(good / MANIFEST).read_bytes()], _JSON_WORDS),
        of("golden.npz", GOLDEN, goldens, _BINARY_WORDS),
        mutated(st.sampled_from(_ARRAYS), _BINARY_WORDS).map(lambda array: Mutated("array", GOLDEN, _archive(array))),
        of("model.onnx", "model.onnx", graphs, _BINARY_WORDS),
        written(_with_data(_OUTSIDE)).map(lambda content: Mutated("wire", "model.onnx", content)),
        of(
            "listing",
            "listing.txt",
            [_LISTING],
            [b"..", b"/", b"//", b"\n", b"\0", b"@", b".", b"\xff", b"1", b"9" * 30],
        ),
    )


def _archive(array: bytes) -> bytes:
    """A golden.npz with a valid archive and an invalid array."""
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("features.npy", array)
        archive.writestr("probabilities.npy", _ARRAYS[0])
    return bundle.getvalue()


def _array(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_ARRAYS = [_array(np.ones((4, 4), np.float32)), _array(np.array([b"ab", b"c"])), _array(np.zeros((2, 0), np.int64))]


def _with_data(location: str) -> Any:
    """A model with its weights in a file beside it."""
    model = onnx.load_from_string(build_identity())
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    return model


_LISTING = b"\n".join(
    [
        *(
            b"rows/config.pbtxt",
            b"rows/1/model.onnx",
            b"rows/2/model.onnx",
            b"rows/2/manifest.json",
            b"rows/labels.txt",
        ),
        *(b"rows/configs/fast.pbtxt", b"rows/warmup/a", b"other/1/model.onnx", b"other/1/link.onnx@", b"a/b/c/d"),
    ]
)
_CONFIGS = [
    b'backend: "openvino" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }',
    b"""name: "rows" platform: "onnxruntime_onnx" max_batch_size: 8
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
instance_group { count: 2 kind: KIND_CPU }
model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 zero_data: true } } }
parameters { key: "metadata" value { string_value: "{'task': 'detect', 'imgsz': [640, 640], 'names': {0: 'a'}}" } }
version_policy { specific { versions: [ 1, 2 ] } }""",
    *(
        (ROOT / "model_repository" / name / CONFIG).read_bytes()
        for name in ("digit-outlines", "digit-strokes", "tilted-digits", "digit-classes")
    ),
]
