"""Profiles: how models run. Some settings leave the choice among several to what is measured on the machine."""

from collections.abc import Mapping

from registry.layout import DEFAULT_PROFILE as FP32

FAST, INT8 = "fast", "int8"
OPENVINO = "openvino"  # config.pbtxt's own model in OpenVINO, FP32 too; derived, no file has it
AUTO = "auto"
MOST_CHANGE = 0.005  # of mAP or top-1, by the manifest: a profile that loses more is not chosen for its speed
# The first one serves until another was measured to be faster.
_CHOICES: Mapping[str, tuple[str, ...]] = {AUTO: (FP32, OPENVINO), FAST: (FAST, INT8, FP32)}


def first_of(setting: str) -> str:
    """The profile that a version begins with under a setting."""
    return alternatives(setting)[0]


def alternatives(setting: str) -> tuple[str, ...]:
    """The profiles among which a setting leaves the choice; itself alone, where it leaves none."""
    return _CHOICES.get(setting, (setting,))
