"""The objects that both protocols share."""

from dataclasses import dataclass

from transformer.admission import Admission
from transformer.auth import Keys
from transformer.dataplane.dataplane import DataPlane
from transformer.observability.trace_context import StartTrace, Trace
from transformer.settings import TransformerSettings


@dataclass(frozen=True)
class Services:
    """One of each for a process.

    Attributes:
        settings: of the operator.
        dataplane: infers.
        admission: limits concurrent requests.
        keys: API keys, one of which is required; None: no key is.
        trace: starts the trace of a request.
    """

    settings: TransformerSettings
    dataplane: DataPlane
    admission: Admission
    keys: Keys | None = None
    trace: StartTrace = Trace
