"""Images in JSON, in the forms that clients of KServe, TensorFlow Serving and TorchServe write."""

from collections.abc import Sequence
from typing import Any

from transformer.errors import InvalidRequest, PayloadTooLarge, excerpt
from transformer.protocol.base64_text import read_image

FORM = '{"image": {"b64": "<base64 of the file>"}}'
# Members that hold base64 itself; any member may hold `{"b64": ...}`.
_NAMES = ("image", "image_bytes", "data")


def is_image(instance: Any) -> bool:
    """Whether an instance can only be an image: columns may have any name, but no column holds an object."""
    if not isinstance(instance, dict):
        return False
    return instance.keys() == {"b64"} or any(isinstance(value, dict) and "b64" in value for value in instance.values())


def read_images(instances: Sequence[Any], *, max_bytes: int) -> list[bytes]:
    """The files, in their order.

    Args:
        instances: each base64 itself, or an object with one member that holds it (as `"..."` or `{"b64": "..."}`);
            other members, such as a key, are ignored.
        max_bytes: of each file.

    Raises:
        InvalidRequest: an instance holds no image, or several.
        PayloadTooLarge: a file is longer.
    """
    return [_read(instance, index, len(instances), max_bytes) for index, instance in enumerate(instances)]


def _read(instance: Any, index: int, count: int, max_bytes: int) -> bytes:
    text = _find(instance, f"instance {index}")
    try:
        return read_image(text, what=f"instance {index}: image", max_bytes=max_bytes)
    except PayloadTooLarge as exc:
        raise PayloadTooLarge(f"image {index} of {count}: {exc}" if count > 1 else str(exc)) from exc


def _find(instance: Any, what: str) -> str:
    if isinstance(instance, str):
        return instance
    if not isinstance(instance, dict):
        raise InvalidRequest(f"{what}: got {excerpt(instance)}, expected an image as {FORM}")
    texts = {name: value for name, value in instance.items() if isinstance(value, str)}
    named = {name: texts[name] for name in _NAMES if name in texts}
    for found in (_wrapped(instance), named, texts):
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise InvalidRequest(f"{what}: got an image under each of {excerpt(sorted(found))}, expected one as {FORM}")
    raise InvalidRequest(f"{what}: got no image under {excerpt(list(instance))}, expected one as {FORM}")


def _wrapped(instance: dict[str, Any]) -> dict[str, str]:
    """Base64 texts in `{"b64": ...}`, by the member that holds each; under "b64" where the instance itself is one."""
    members = {name: value.get("b64") for name, value in instance.items() if isinstance(value, dict)}
    members |= {"b64": instance["b64"]} if "b64" in instance else {}
    return {name: text for name, text in members.items() if isinstance(text, str)}
