"""Label Studio's labelling config: which of its tags the regions of a model go to."""

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from integrations.nereid_client import Model

# What shows the results of a task; the first that a config has for an image. The box of a pose comes beside its points.
FITTING = {
    "detect": ("RectangleLabels",),
    "segment": ("PolygonLabels", "BrushLabels", "RectangleLabels"),
    "pose": ("KeyPointLabels", "RectangleLabels"),
    "obb": ("RectangleLabels", "PolygonLabels"),
    "classify": ("Choices",),
}
_SHOWN = frozenset(kind for kinds in FITTING.values() for kind in kinds)


class ConfigError(ValueError):
    """The config has nothing that can show what the model finds."""


@dataclass(frozen=True)
class Control:
    """A tag that regions go to.

    Attributes:
        kind: its name: RectangleLabels.
        from_name, to_name: of the regions.
        key: member of a task's data that has the image.
        labels: label of the config by the name of a class or keypoint, in lower case.
    """

    kind: str
    from_name: str
    to_name: str
    key: str
    labels: dict[str, str]

    def label(self, name: str) -> str | None:
        """What the config calls a class of the model; None where it has none such."""
        return self.labels.get(name.strip().lower())


def controls(config: str, model: Model) -> list[Control]:
    """The tags that show what this model finds.

    Raises:
        ConfigError: the config cannot be read, has no such tag, or none of its labels is a name of the model.
    """
    kinds = FITTING[model.task]
    read = _read(config)
    kept: list[Control] = []
    for image in dict.fromkeys(each.to_name for each in read):
        there = [each for kind in kinds for each in read if each.to_name == image and each.kind == kind]
        kept += there if model.task == "pose" else there[:1]
    if not kept:
        raise ConfigError(
            f"the labelling config has no {' or '.join(kinds)} of an <Image>: what a {model.task} model gives"
        )
    points = {name for names in model.keypoints.values() for name in names}
    known = {name.strip().lower() for name in [*model.classes.values(), *points]}
    if not any(known & each.labels.keys() for each in kept):
        names = ", ".join(sorted(known)[:20])
        raise ConfigError(
            f"no label of the labelling config is a name of model {model.name} ({names}); next: name them so, or write "
            'predicted_values="<name of the model>,..." beside a label\'s value'
        )
    return kept


def _read(config: str) -> list[Control]:
    if "<!DOCTYPE" in config or "<!ENTITY" in config:
        raise ConfigError("the labelling config has a DOCTYPE, which Label Studio's has not")
    try:
        root = ET.fromstring(config)  # noqa: S314 - without a DOCTYPE there are no entities to expand
    except ET.ParseError as error:
        raise ConfigError(f"the labelling config is not XML: {error}") from error
    images = {
        tag.get("name", ""): (tag.get("value") or tag.get("valueList") or "").removeprefix("$")
        for tag in root.iter("Image")
    }
    return [
        Control(tag.tag, tag.get("name", ""), tag.get("toName", ""), images[tag.get("toName", "")], _labels(tag))
        for tag in root.iter()
        if tag.tag in _SHOWN and tag.get("toName") in images
    ]


def _labels(control: ET.Element) -> dict[str, str]:
    """By each name that a class may have: the alias stands in results where there is one, as Label Studio has it."""
    labels: dict[str, str] = {}
    for tag in [*control.iter("Label"), *control.iter("Choice")]:
        value, alias = tag.get("value", ""), tag.get("alias", "")
        for name in [*tag.get("predicted_values", "").split(","), value, alias]:
            if name.strip():
                labels.setdefault(name.strip().lower(), alias or value)
    return labels
