"""What SageMaker's custom attributes say."""

import re

import pytest

from transformer.errors import InvalidRequest
from transformer.rest.sagemaker import ATTRIBUTES, TARGET_MODEL, read_attributes


@pytest.mark.parametrize(
    ("text", "model", "parameters"),
    [
        ("", "", {}),
        ("model=digits", "digits", {}),
        ("model=digits,confidence=0.5", "digits", {"confidence": ["0.5"]}),
        (" model = digits , confidence = 0.5 ", "digits", {"confidence": ["0.5"]}),
        ("classes=cat,dog,model=digits", "digits", {"classes": ["cat,dog"]}),
        ("classes=cat,classes=dog", "", {"classes": ["cat", "dog"]}),
        ("classes=a%2Cb%3Dc,confidence=1", "", {"classes": ["a,b=c"], "confidence": ["1"]}),
    ],
)
def test_attributes_are_read(text: str, model: str, parameters: dict[str, list[str]]) -> None:
    assert read_attributes({ATTRIBUTES: text}) == (model, parameters)


@pytest.mark.parametrize("text", ["digits", "model=digits,", ",model=digits", "=digits", "model=a,model=b"])
def test_what_is_no_list_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{ATTRIBUTES}.*got .*expected"):
        read_attributes({ATTRIBUTES: text})


def test_attributes_longer_than_sagemaker_s_are_rejected() -> None:
    # Blanks once took a second for 20,000 of them, in the event loop.
    with pytest.raises(InvalidRequest, match=re.escape("got 60002 characters, expected at most 1024")):
        read_attributes({ATTRIBUTES: f"a{' ' * 60_000}b"})


def test_target_is_the_model() -> None:
    assert read_attributes({TARGET_MODEL: "digits"}) == ("digits", {})
    assert read_attributes({TARGET_MODEL: "digits", ATTRIBUTES: "model=digits"}) == ("digits", {})
    with pytest.raises(InvalidRequest, match="expected one"):
        read_attributes({TARGET_MODEL: "digits", ATTRIBUTES: "model=iris"})
