"""The description of a model, read from Triton's `ModelConfig`."""

import ast
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from environment.error_codes import ErrorCode
from transformer.errors import PredictorError


class ModelConfigError(PredictorError):
    """Triton has loaded the model, but its config.pbtxt does not describe one that this server can serve."""

    code = ErrorCode.INVALID_MODEL_CONFIG


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output.

    Attributes:
        name: as in config.pbtxt.
        datatype: v2 protocol string such as `FP32`.
        shape: as on the wire, with the batch dimension; -1 is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape without the batch dimension."""
        return self.shape[1:]


# Limits of `parameters.metadata`, by which memory is reserved; registry/judgement/limits.py gives the reasons.
MAX_SIDE_PX, MAX_CHANNELS, MAX_STRIDE, MAX_LABELS = 8192, 64, 1024, 100_000
_HIGHEST_CLASS_ID = 10**9 - 1
# A parameter of profiles that may change boxes.
_REDUCES = "reduces_pictures"


@dataclass(frozen=True)
class Model:
    """One version of a model.

    Attributes:
        name, version: as in the repository.
        task: name of its task; None where config.pbtxt names none: then it takes its own tensors only.
        inputs, outputs: in the order of config.pbtxt; with a task one input, except for a table with strings, which
            has one for each column.
        max_batch_size: items in one request to Triton; 1 where Triton does not batch.
        is_batched: whether the first dimension counts items.
        cuts_batches: whether a request of more items than Triton takes may be divided.
        names: class name by index, in the order of the indices, which may have gaps; a name may occur twice. Empty
            for a regressor.
        input_wh: image size that it was trained for, `(width, height)`; None for tables.
        channels: of an image.
        stride: of a detector.
        end2end: a detector whose head needs no NMS.
        all_candidates: a detector whose graph returns all candidates of its head, however many they are.
        features: names of a table's columns.
        missing: those of them that may have no value.
        categories: values that a column may have, where others are errors.
        platform: backend that runs it, in Triton's words.
        reduces_images: whether a large image may be reduced while it is decoded, which changes results a little.
        facts: entries of `parameters.metadata` that only its task reads, see `Task.facts`.
    """

    name: str
    version: str
    task: str | None
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    max_batch_size: int
    names: Mapping[int, str]
    input_wh: tuple[int, int] | None = None
    channels: int = 3
    stride: int = 32
    end2end: bool = False
    all_candidates: bool = False
    features: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    categories: Mapping[str, frozenset[str | float]] = field(default_factory=dict)
    platform: str = ""
    reduces_images: bool = False
    is_batched: bool = False
    cuts_batches: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input(self) -> TensorMetadata:
        """The only input of a model with a task, or the first one of a table with strings."""
        return self.inputs[0]

    @property
    def classes(self) -> int:
        """Number of classes, those in gaps between names included; 0 where none is named."""
        return max(self.names, default=-1) + 1

    @cached_property
    def ids_by_name(self) -> Mapping[str, frozenset[int]]:
        """Indices of the classes of each name, as `fold_name` makes it."""
        ids: dict[str, set[int]] = {}
        for class_id, name in self.names.items():
            ids.setdefault(fold_name(name), set()).add(class_id)
        return {name: frozenset(of_name) for name, of_name in ids.items()}

    def takes_the_same_as(self, other: "Model") -> bool:
        """Whether tensors made for the other version fit this one; labels may differ."""
        return replace(other, version=self.version, names=self.names) == self


def fold_name(name: str) -> str:
    """A name in the form that is compared: composed accents, no white space around it."""
    return unicodedata.normalize("NFC", name).strip()


def read_model(config: Any, metadata: Mapping[str, Any], *, version: str, facts: Sequence[str] = ()) -> Model:
    """Read a model's description; `tasks.describe` also checks it against its task.

    Args:
        config: `inference.ModelConfig`, the protobuf, as Triton returns it or as config.pbtxt parses to.
        metadata: from `read_metadata`.
        version: that the description belongs to.
        facts: further keys of `metadata` that are kept.

    Raises:
        ModelConfigError: a value in `parameters.metadata` is invalid.
    """
    return Model(
        name=config.name,
        version=version,
        task=metadata.get("task"),
        inputs=tuple(_tensor(config, proto) for proto in config.input),
        outputs=tuple(_tensor(config, proto) for proto in config.output),
        max_batch_size=max(config.max_batch_size, 1),
        names=_names(config, metadata.get("names", {})),
        input_wh=_input_wh(config, metadata.get("imgsz")),
        channels=_whole(config, "channels", metadata.get("channels", 3), MAX_CHANNELS),
        stride=_whole(config, "stride", metadata.get("stride", 32), MAX_STRIDE),
        end2end=bool(metadata.get("end2end", False)),
        all_candidates=bool(metadata.get("all_candidates", False)),
        features=tuple(metadata.get("features", ())),
        missing=frozenset(_features(config, metadata, "missing")),
        categories=_categories(config, metadata),
        platform=config.platform or config.backend,
        reduces_images=_REDUCES in config.parameters and config.parameters[_REDUCES].string_value == "true",
        is_batched=config.max_batch_size > 0,
        cuts_batches=_cuts_batches(config),
        facts={key: metadata[key] for key in facts if key in metadata},
    )


def _cuts_batches(config: Any) -> bool:
    # A sequence has an order, a shape tensor has no batch, and tensors made from a batch may have other dimensions.
    apart = config.HasField("sequence_batching") or config.batch_input or config.batch_output
    return config.max_batch_size > 0 and not apart and not any(proto.is_shape_tensor for proto in config.input)


def read_metadata(config: Any) -> dict[str, Any]:
    """`parameters.metadata`, without entries that are None; empty where there is none.

    Raises:
        ModelConfigError: it is not a Python dict.
    """
    if "metadata" not in config.parameters:
        return {}
    text = config.parameters["metadata"].string_value
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: deep nesting
        metadata = None
    if not isinstance(metadata, dict) or not metadata:
        raise ModelConfigError(f"{config.name}: parameters.metadata: got {text[:80]!r}, expected a Python dict")
    return {key: value for key, value in metadata.items() if value is not None}


def _features(config: Any, metadata: Mapping[str, Any], key: str) -> list[str]:
    """Names of features that `parameters.metadata` lists under a key."""
    names = metadata.get(key, ())
    known = set(metadata.get("features", ()))
    if not isinstance(names, list | tuple | dict) or not known.issuperset(names):
        raise ModelConfigError(f"{config.name}: {key} in parameters.metadata: got {names!r:.80}, expected features")
    return list(names)


def _categories(config: Any, metadata: Mapping[str, Any]) -> dict[str, frozenset[str | float]]:
    categories = {}
    if not isinstance(metadata.get("categories", {}), dict):
        raise ModelConfigError(f"{config.name}: categories in parameters.metadata: expected a dict of lists")
    for name in _features(config, metadata, "categories"):
        values = metadata["categories"][name]
        if not isinstance(values, list | tuple) or not all(isinstance(value, str | int | float) for value in values):
            raise ModelConfigError(
                f"{config.name}: categories in parameters.metadata: got {values!r:.80}, expected texts or numbers"
            )
        categories[name] = frozenset(values)
    return categories


def _tensor(config: Any, proto: Any) -> TensorMetadata:
    # TYPE_STRING is BYTES on the wire; the rest differs by its prefix only.
    datatype = proto.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[proto.data_type].name
    return TensorMetadata(proto.name, datatype.removeprefix("TYPE_").replace("STRING", "BYTES"), _shape(config, proto))


def _shape(config: Any, proto: Any) -> tuple[int, ...]:
    # Without batching by Triton the leading dimension is part of the dims.
    return (-1, *proto.dims) if config.max_batch_size > 0 else tuple(proto.dims)


def _input_wh(config: Any, imgsz: Any) -> tuple[int, int] | None:
    """Ultralytics writes `[height, width]` or one number."""
    if imgsz is None:
        return None
    sides = [imgsz, imgsz] if isinstance(imgsz, int) else imgsz
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise ModelConfigError(f"{config.name}: imgsz in parameters.metadata: got {imgsz!r:.80}, expected one or two")
    height, width = (_whole(config, "imgsz", side, MAX_SIDE_PX) for side in sides)
    return width, height


def _names(config: Any, names: Any) -> dict[int, str]:
    if not isinstance(names, dict | list | tuple) or len(names) > MAX_LABELS:
        got = f"{len(names)} names" if isinstance(names, dict | list | tuple) else repr(names)[:80]
        raise ModelConfigError(f"{config.name}: names in parameters.metadata: got {got}, expected {MAX_LABELS} at most")
    numbered = {}
    for key, name in names.items() if isinstance(names, dict) else enumerate(names):
        number = class_id(key)
        if number is None or number in numbered or not isinstance(name, str) or not is_text(name):
            got = f"{key!r:.80}: {name!r:.80}"
            raise ModelConfigError(
                f"{config.name}: names in parameters.metadata: got {got}, expected a text by number, each number once"
            )
        numbered[number] = name
    return dict(sorted(numbered.items()))


def class_id(key: Any) -> int | None:
    """Index of a class as metadata may say it: a whole number from 0, or one in decimal as JSON has its keys."""
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10:
        return int(key)
    return key if isinstance(key, int) and not isinstance(key, bool) and 0 <= key <= _HIGHEST_CLASS_ID else None


def is_text(name: str) -> bool:
    """Whether UTF-8 can encode it: half of a surrogate pair, which a Python literal may hold, could not be sent."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(config: Any, key: str, number: Any, most: int) -> int:
    is_whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    if not is_whole or not 1 <= number <= most:
        raise ModelConfigError(
            f"{config.name}: {key} in parameters.metadata: got {number!r:.80}, expected a whole number from 1 to {most}"
        )
    return int(number)
