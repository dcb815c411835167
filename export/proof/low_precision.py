"""A detector in less than FP32: the int8 graph, the cost of each precision, and the outputs of the profiles.

Each profile that runs here is tried as the synchroniser tries it, before it becomes part of a version.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError
from export.graph import compatibility
from export.graph.int8 import quantise
from export.proof.calibration import Folder, Sample
from export.proof.drawn_images import draw_images
from export.proof.parity import preprocess
from export.proof.precision import LIMITS, Precision, Track, find_truth, measure
from export.proof.session import LowPrecisionSession, Session
from export.writer.profiles import INT8, ONNX, describe_profiles
from registry.errors import VersionRejected
from registry.golden import Arrays, split_golden
from registry.golden_outputs import check_golden_outputs
from transformer.tasks import describe

# Profile that runs in OpenVINO -> its file, and the precision that selects it.
_PROFILES: Mapping[str, tuple[str, Precision]] = {"fast": (ONNX, "bf16"), "int8": (INT8, "int8")}


class Lowering:
    """Makes and tries a detector in less than FP32."""

    def __init__(self, graph: ModelProto, config: Any, *, wanted: Sequence[Precision]) -> None:
        """Load nothing yet.

        Args:
            graph: model.onnx.
            config: its `ModelConfig`.
            wanted: precisions that the user selected.
        """
        self._graphs = {ONNX: graph}
        self._config = config
        self._wanted = [precision for precision in LIMITS if precision in wanted]
        self._sessions: dict[str, LowPrecisionSession] = {}

    @property
    def quantised(self) -> ModelProto | None:
        """The int8 graph, where `measure` made one."""
        return self._graphs.get(INT8)

    def measure(self, session: Session, calibration: Sequence[Sample] | None, *, track: Track) -> dict[str, Any]:
        """Quantise where that is wanted, and measure what each wanted precision costs.

        Args:
            session: the graph in FP32.
            calibration: images; None for the drawn ones, which cannot calibrate.
            track: takes each step that goes through them.

        Raises:
            ExportError: one costs too much.
        """
        if not self._wanted:
            return {}
        model = describe(self._config, version="0")
        if isinstance(calibration, Folder):
            calibration = calibration.labelled_for(model)
        samples = calibration or [Sample(image, None) for image in draw_images()]
        truth = find_truth(session, model, samples, track=track)
        costs: dict[str, Any] = {}
        for precision in self._wanted:
            if precision == "int8":
                # A generator: the samples need not fit into memory.
                inputs = (
                    preprocess(samples[index].image, model)[0][None]
                    for index in track(range(len(samples)), "calibrate int8")
                )
                self._graphs[INT8] = quantise(self._graphs[ONNX], inputs)
                compatibility.check(self._graphs[INT8])
            run = self._load(INT8 if precision == "int8" else ONNX)
            costs[precision] = measure(precision, run, model, samples, truth, track=track)
        return costs

    def try_profiles(self, golden: Arrays, *, digest: str) -> tuple[dict[str, Any], dict[str, Arrays], dict[str, str]]:
        """Describe all profiles, and run those of OpenVINO with the golden input.

        Args:
            golden: of FP32.
            digest: of model.onnx, hexadecimal.

        Returns:
            Configs by profile; golden outputs of those that have their own; why others are left out.

        Raises:
            ExportError: one that the user selected does not load, or has other outputs than FP32.
        """
        profiles = describe_profiles(self._config, digest=digest, int8=self.quantised is not None)
        goldens: dict[str, Arrays] = {}
        left_out: dict[str, str] = {}
        for name, (filename, precision) in _PROFILES.items():
            if filename not in self._graphs:
                continue
            try:
                outputs = self._try(filename, profiles[name], golden)
            except (ExportError, VersionRejected) as exc:
                if precision in self._wanted:
                    raise ExportError(f"profile {name}: {exc}") from exc
                left_out[name] = str(exc)
                del profiles[name]
                continue
            if filename != ONNX:
                goldens[name] = outputs
        return profiles, goldens, left_out

    def _try(self, filename: str, config: Any, golden: Arrays) -> dict[str, NDArray[Any]]:
        """Golden input and outputs of a profile: for model.onnx those of FP32, another file has its own."""
        session = self._load(filename)
        compatibility.check_loads(session.inputs, session.outputs, config)
        inputs, expected = split_golden(golden, config)
        (image,) = inputs.values()
        outputs = session.infer(image)
        check_golden_outputs(session.infer(image), expected if filename == ONNX else outputs, config)
        return {**inputs, **outputs}

    def _load(self, filename: str) -> LowPrecisionSession:
        if filename not in self._sessions:
            name = f"{self._config.name} in OpenVINO ({filename})"
            self._sessions[filename] = LowPrecisionSession(self._graphs[filename], name=name)
        return self._sessions[filename]
