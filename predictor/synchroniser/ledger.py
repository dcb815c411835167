"""What the synchroniser remembers of the versions of a model, by their fingerprints."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Memory:
    """Of one model; of versions that are gone nothing is kept.

    Attributes:
        refused: why one must not serve; survives a restart.
        unproven: why no output of one has verified it; survives a restart.
        waiting: why one is not taken yet.
        deaths: how often Triton died while one was tried.
        fatal: how often this process ended while one was tried; survives a restart.
        left_alone: those of them that have not been tried by this process, because it ended so often.
        defects: those among the refused that this process could not judge; the next one tries them again.
        failures: how often one failed for a reason that may pass.
        postponed: until when (monotonic) one that failed so often is left alone, and why.
        apart: those that cannot serve beside a newer one, by that one; see `plan.choose`.
        proven: folders of those that are staged and may serve.
    """

    refused: dict[str, str] = field(default_factory=dict)
    unproven: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    fatal: dict[str, int] = field(default_factory=dict)
    left_alone: set[str] = field(default_factory=set)
    defects: set[str] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=dict)
    postponed: dict[str, tuple[float, str]] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    proven: dict[str, Path] = field(default_factory=dict)

    def judgement(self, key: str) -> str | None:
        """Why a version is refused, or not taken yet."""
        return self.refused.get(key) or self.waiting.get(key)

    def postponement(self, key: str) -> str | None:
        """Why a version that failed is not tried now."""
        return f"{self.postponed[key][1]}; tried again later" if key in self.postponed else None

    def postponements(self, prints: Mapping[int, str]) -> str | None:
        """What keeps versions from being taken, newest first; None: nothing does."""
        reasons = [
            f"version {version}: {reason}"
            for version, key in sorted(prints.items(), reverse=True)
            if (reason := self.postponement(key))
        ]
        return "; ".join(reasons) or None

    def keep(self, keys: Collection[str]) -> None:
        """Forget all others, but for what the mirror stores too (`refused`, `unproven`); nothing waits any more."""
        remembered: tuple[dict[str, Any], ...] = (
            self.deaths, self.fatal, self.failures, self.postponed, self.apart, self.proven
        )  # fmt: skip
        for known in remembered:
            for key in known.keys() - set(keys):
                del known[key]
        self.defects.intersection_update(keys)
        self.waiting.clear()
