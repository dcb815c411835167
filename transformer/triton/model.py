"""What a model is, read from the one place that says it: Triton's `ModelConfig`."""

import ast
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from environment.error_codes import ErrorCode
from transformer.errors import PredictorError

Task = Literal["detect", "classify", "tabular"]
TASKS: tuple[Task, ...] = ("detect", "classify", "tabular")


class ModelConfigError(PredictorError):
    """The model is loaded, but its config.pbtxt does not describe a model that can be served here."""

    code = ErrorCode.INVALID_MODEL_CONFIG


@dataclass(frozen=True)
class TensorMetadata:
    """What an input or output is.

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


# What `parameters.metadata` may say: room is made by it. registry/judgement/allowlist.py gives the reasons.
MAX_SIDE_PX, MAX_CHANNELS, MAX_STRIDE, MAX_LABELS = 8192, 64, 1024, 100_000
_HIGHEST_CLASS_ID = 10**9 - 1
# Of a profile that may change boxes.
_REDUCES = "reduces_pictures"


@dataclass(frozen=True)
class Model:
    """One version of a model.

    Attributes:
        name, version: as in the repository.
        task: what it does; None where config.pbtxt does not say: then only its tensors can be sent.
        inputs, outputs: in the order of config.pbtxt; one input where there is a task, but for a table with strings,
            which has one for each column.
        max_batch_size: how many items one request to Triton may hold; 1 where Triton does not batch.
        is_batched: whether the first dimension counts items.
        cuts_batches: whether a request of more items than Triton takes may be made several.
        names: class name by index, in the order of the indices, which may have gaps; a name may be there twice. Empty
            for a regressor.
        input_wh: picture size it was trained for, `(width, height)`; None for tables.
        channels: of a picture.
        stride: of a detector.
        end2end: a detector whose head needs no NMS.
        all_candidates: a detector whose graph leaves out none of its head's candidates, however many they are.
        features: names of a table's columns.
        missing: those of them that may have no value.
        categories: values that a column may have, where any other is an error.
        platform: what runs it, in Triton's words.
        reduces_pictures: a detector that may be given less than all pixels of a large picture.
    """

    name: str
    version: str
    task: Task | None
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
    reduces_pictures: bool = False
    is_batched: bool = False
    cuts_batches: bool = False

    @property
    def input(self) -> TensorMetadata:
        """The only input of a model with a task, or the first of a table with strings."""
        return self.inputs[0]

    @property
    def takes_pictures(self) -> bool:
        """Whether its task is one of pictures."""
        return self.task in {"detect", "classify"}

    @property
    def classes(self) -> int:
        """How many classes there are, those between two names included; 0 where none is named."""
        return max(self.names, default=-1) + 1

    @cached_property
    def ids_by_name(self) -> Mapping[str, frozenset[int]]:
        """Indices of the classes of each name, as `fold_name` makes names alike."""
        ids: dict[str, set[int]] = {}
        for class_id, name in self.names.items():
            ids.setdefault(fold_name(name), set()).add(class_id)
        return {name: frozenset(of_name) for name, of_name in ids.items()}

    def takes_the_same_as(self, other: "Model") -> bool:
        """Whether what was made for the other version is what this one takes and gives, whatever its labels are."""
        return replace(other, version=self.version, names=self.names) == self


def fold_name(name: str) -> str:
    """A name in the form that is compared: however its accents are encoded, and without white space around it."""
    return unicodedata.normalize("NFC", name).strip()


def describe(config: Any, *, version: str) -> Model:
    """Read a model's description.

    Args:
        config: `inference.ModelConfig`, the protobuf, as Triton returns it or as config.pbtxt parses to.
        version: the version that the description belongs to.

    Raises:
        ModelConfigError: `parameters.metadata` says something impossible.
    """
    metadata = {key: value for key, value in _metadata(config).items() if value is not None}
    task = metadata.get("task")
    if metadata:
        if task not in TASKS:
            raise ModelConfigError(f"{config.name}: task in parameters.metadata: got {task!r}, expected one of {TASKS}")
        _check_tensors(config, metadata)
    model = Model(
        name=config.name,
        version=version,
        task=task,
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
        reduces_pictures=task == "detect"
        and _REDUCES in config.parameters
        and config.parameters[_REDUCES].string_value == "true",
        is_batched=config.max_batch_size > 0,
        cuts_batches=_cuts_batches(config),
    )
    if task in {"detect", "classify"} and model.input_wh is None:
        raise ModelConfigError(f"{config.name}: imgsz is missing in parameters.metadata")
    return model


def _cuts_batches(config: Any) -> bool:
    # A sequence has an order, a shape tensor has no batch, and tensors made from a batch may have other dimensions.
    apart = config.HasField("sequence_batching") or config.batch_input or config.batch_output
    return config.max_batch_size > 0 and not apart and not any(proto.is_shape_tensor for proto in config.input)


def _metadata(config: Any) -> dict[str, Any]:
    """What `parameters.metadata` says; empty where there is none."""
    if "metadata" not in config.parameters:
        return {}
    text = config.parameters["metadata"].string_value
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested deeply
        metadata = None
    if not isinstance(metadata, dict) or not metadata:
        raise ModelConfigError(f"{config.name}: parameters.metadata: got {text[:80]!r}, expected a Python dict")
    return metadata


def _check_tensors(config: Any, metadata: Mapping[str, Any]) -> None:
    """One input; of a table also one for each feature, of its name, so that there may be strings."""
    names = [proto.name for proto in config.input]
    columns = metadata["task"] == "tabular" and names == list(metadata.get("features", ()))
    widths = [_shape(config, proto)[1:] for proto in config.input]
    texts = any(_tensor(config, proto).datatype == "BYTES" for proto in config.input)
    if not config.output or not all(_shape(config, proto) for proto in config.input):
        fits = False
    elif columns and (len(names) > 1 or texts):
        fits = all(width == (1,) for width in widths)
    else:
        fits = len(names) == 1 and not (texts and metadata["task"] == "tabular")
    if not fits:
        raise ModelConfigError(
            f"{config.name}: got {len(names)} inputs and {len(config.output)} outputs, expected one input, or of a "
            "table one [1] for each feature, under its name"
        )


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
        if number is None or number in numbered or not isinstance(name, str) or not _is_text(name):
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


def _is_text(name: str) -> bool:
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
