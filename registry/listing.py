"""A listing of a repository in bounded memory."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from registry.layout import ModelFolder, Object, is_model_name

# Limits of one repository: each model costs the synchroniser work in a thread, and Triton a process.
MAX_MODELS = 512
MAX_FOLDER_OBJECTS = 20_000  # of a model, in all
MAX_KEPT_OBJECTS = 200_000  # of all models: 80 MB of memory, twice while one listing takes the place of another
MAX_OBJECTS = 2_000_000  # at each listing: S3 takes minutes for them; further ones are not listed
MAX_UNKNOWN_SHOWN = 1000  # folders outside the layout; further ones are counted


@dataclass
class Listing:
    """A listing of a repository, and what of it exceeds the limits.

    Attributes:
        objects: those that are kept.
        newest: when the newest of all was written; None without objects.
        overfull: folders with too many objects, of which none is kept, and known ones that were not reached.
        beyond: folders of models beyond their limit, of which none is kept.
        left_out: number of objects outside the layout, or in folders beyond the limit, that are not kept.
    """

    objects: list[Object] = field(default_factory=list)
    newest: datetime | None = None
    overfull: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)
    left_out: int = 0


def gather(objects: Iterable[Object], *, known: Collection[str]) -> Listing:
    """Collect a listing in bounded memory: too many objects in one folder cost no other folder its own.

    Args:
        objects: as they are listed.
        known: models that serve, whose folders are kept before others.
    """
    gathering = _Gathering(known)
    for number, item in enumerate(objects):
        if number >= MAX_OBJECTS:
            gathering.listing.overfull |= set(known) - gathering.folders.keys()
            break
        gathering.add(item)
    for kept in gathering.folders.values():
        gathering.listing.objects += kept
    return gathering.listing


class _Gathering:
    """A listing that grows.

    Attributes:
        listing: without the objects of folders.
        folders: objects of each model's folder.
    """

    def __init__(self, known: Collection[str]) -> None:
        self.listing = Listing()
        self.folders: dict[str, list[Object]] = {}
        self._known = known
        self._total = 0
        self._unknown: set[str] = set()

    def add(self, item: Object) -> None:
        """Keep an object, or count it."""
        self.listing.newest = max(self.listing.newest or item.modified, item.modified)
        name, _, rest = item.key.partition("/")
        kept = self.folders.get(name)
        is_model = bool(rest or item.key.endswith("/")) and is_model_name(name)
        if kept is None and is_model and (name in self._known or len(self.folders) < 2 * MAX_MODELS):
            kept = self.folders[name] = []
        if kept is None:
            self._report(item, name, is_model=is_model)
        elif name not in self.listing.overfull:
            kept.append(item)
            self._total += 1
            self._limit(name)

    def _report(self, item: Object, name: str, *, is_model: bool) -> None:
        """Keep one object of a folder outside the layout, which is enough to report it, and count further ones."""
        reported = self.listing.beyond if is_model else self._unknown
        if name not in reported and len(reported) < MAX_UNKNOWN_SHOWN:
            reported.add(name)
            self.listing.objects += [] if is_model else [item]
        elif name not in reported:
            self.listing.left_out += 1

    def _limit(self, name: str) -> None:
        """Drop the objects of a folder that is overfull, or of the fullest one where there are too many in all."""
        full = name if len(self.folders[name]) > MAX_FOLDER_OBJECTS else None
        if self._total > MAX_KEPT_OBJECTS:
            full = max(self.folders, key=lambda other: (other not in self._known, len(self.folders[other])))
        if full is not None:
            self.listing.overfull.add(full)
            self._total -= len(self.folders[full])
            self.folders[full].clear()


def limit_models(models: Mapping[str, ModelFolder], known: Collection[str]) -> dict[str, str]:
    """Which models exceed the limit, and why: known models stay, then the first by name."""
    by_priority = sorted(models, key=lambda name: (name not in known, name))
    reason = f"got {len(models)} models, expected at most {MAX_MODELS}"
    return dict.fromkeys(by_priority[MAX_MODELS:], reason)
