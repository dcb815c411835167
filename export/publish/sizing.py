"""`make sizing`: what pods need for a repository, by the figures of docs/sizing.md."""

import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from export.errors import ExportError
from export.publish.listing import Model, Version, read_models
from registry.layout import MODEL_SUFFIXES, Object
from registry.storage.writing import open_to_write

MIB, GIB = 2**20, 2**30
# Of a pod of manifests/base; a test compares them with it.
REQUESTS = {"cpu": 2.6, "memory": 2.75 * GIB, "ephemeral-storage": 5.25 * GIB}
LIMITS = {"cpu": 4.0, "memory": 6.5 * GIB, "ephemeral-storage": 12 * GIB}
TRITON_BYTES = 4 * GIB  # its limit of memory
MIRROR_BYTES = 7 * GIB  # PREDICTOR_MIRROR_BYTES
_TOGETHER = 4  # models that the synchroniser works on at once
# Measured with the embedded Triton, see docs/sizing.md: itself, each version that serves, copies of its weights.
_TRITON_ITSELF, _VERSION_ITSELF, _COPIES = 30 * MIB, 80 * MIB, 2
_PAGE = 1000  # objects in one response of a LIST
_MONTH_S = 30 * 86400
_LIST_USD = 0.005 / 1000  # S3 Standard in us-east-1; others are near it
_SURGE = 1  # a pod more during a rolling update


@dataclass(frozen=True)
class Load:
    """What the pods serve.

    Attributes:
        served: bytes of the files, and of the largest model file, of each version that serves.
        objects: of the whole repository, which each listing walks.
        pods: how many.
        poll_s: seconds between two listings.
    """

    served: tuple[tuple[int, int], ...]
    objects: int
    pods: int
    poll_s: float

    @property
    def mirror(self) -> int:
        """Bytes in one pod's mirror while the largest versions are swapped, as many as at once."""
        sizes = sorted((files for files, _ in self.served), reverse=True)
        return sum(sizes) + sum(sizes[:_TOGETHER])

    @property
    def triton(self) -> int:
        """Bytes of memory of one pod's Triton: what serves, and twice the versions that are swapped at once.

        A candidate is there beside the one that serves, and the new one beside the old until that is retired.
        """
        costs = sorted((_VERSION_ITSELF + _COPIES * weights for _, weights in self.served), reverse=True)
        return _TRITON_ITSELF + sum(costs) + sum(costs[:_TOGETHER])

    @property
    def lists(self) -> int:
        """LIST requests of all pods in 30 days."""
        return round(self.pods * _MONTH_S / self.poll_s) * max(1, math.ceil(self.objects / _PAGE))


def sizing(args: Namespace, console: Console) -> None:
    """Print what the pods need, and what does not fit.

    Raises:
        ExportError: the repository has no version to serve.
    """
    storage = open_to_write(args.repository)
    load = measure(read_models(storage), pods=args.pods, poll_s=args.poll_s)
    if not load.served:
        raise ExportError(f"{storage.url}: got no version to serve, expected one; next: make publish")
    models = f"{len(load.served)} version{'s' if len(load.served) > 1 else ''}"
    table = Table("", "one pod", f"{load.pods} pods", f"quota ({load.pods} + {_SURGE})", title=f"{models} that serve")
    for row in rows(load):
        table.add_row(*row)
    console.print(table)
    for problem in problems(load):
        console.print(f"does not fit: {problem}", soft_wrap=True)


def measure(models: Mapping[str, Model], *, pods: int, poll_s: float) -> Load:
    """Add up a repository."""
    versions = [version for model in models.values() for version in model.versions.values()]
    served = [model.versions[number] for model in models.values() for number in sorted(model.wanted)]
    objects = sum(len(version.files) + len(version.foreign) for version in versions) + len(models)
    return Load(tuple(_sizes(version) for version in served), objects, pods, poll_s)


def _sizes(version: Version) -> tuple[int, int]:
    return sum(item.size for item in version.files.values()), _weights(version.files)


def _weights(files: Mapping[str, Object]) -> int:
    """Bytes of the largest model file, which is one profile's, and of weights that lie beside it."""
    models = [item.size for name, item in files.items() if name.endswith(MODEL_SUFFIXES)]
    others = (*MODEL_SUFFIXES, ".json", ".npz", ".pbtxt")
    return max(models, default=0) + sum(item.size for name, item in files.items() if not name.endswith(others))


def rows(load: Load) -> Iterator[tuple[str, ...]]:
    """What is needed: for one pod, for all, and for one more during an update."""
    for name, of in (("requests", REQUESTS), ("limits", LIMITS)):
        for resource, amount in of.items():
            show = _cores if resource == "cpu" else _gib
            more = (show(amount * count) for count in (1, load.pods, load.pods + _SURGE))
            yield (f"{name}.{resource}", *more)
    yield ("Triton's memory, estimated", _mib(load.triton), "", "")
    yield ("mirror while models are swapped", _mib(load.mirror), "", "")
    lists = round(load.lists / load.pods)
    yield ("LIST requests in 30 days", f"{lists:,}", f"{load.lists:,}", f"{load.lists * _LIST_USD:.2f} USD")


def problems(load: Load) -> Iterator[str]:
    """What exceeds the limits of manifests/base."""
    if load.triton > TRITON_BYTES:
        yield (
            f"Triton's memory: got {_mib(load.triton)}, expected at most {_mib(TRITON_BYTES)}; next: raise "
            "limits.memory of kserve-container, and measure"
        )
    if load.mirror > MIRROR_BYTES:
        yield (
            f"mirror: got {_mib(load.mirror)}, expected at most {_mib(MIRROR_BYTES)}; next: raise "
            "PREDICTOR_MIRROR_BYTES with the volume and the synchroniser's limits, see docs/sizing.md"
        )


def _cores(amount: float) -> str:
    return f"{amount:g}"


def _gib(amount: float) -> str:
    return f"{amount / GIB:g} GiB"


def _mib(amount: float) -> str:
    return f"{amount / MIB:,.0f} MiB"
