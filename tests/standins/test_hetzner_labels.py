from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.standins.hetzner.labels import SELECTOR_CHARS_MAX, selector, wrong_label

LABELS = {"env": "production", "type": "web", "example.com/my": "label", "just-a-key": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("env=production", True),
        ("env==production", True),
        ("env = production", True),
        ("env!=production", False),
        ("absent!=anything", True),
        ("env", True),
        ("absent", False),
        ("!env", False),
        ("!absent", True),
        ("env in (testing,production)", True),
        ("env in (testing, staging)", False),
        ("env notin (testing,staging)", True),
        ("env notin (production)", False),
        ("absent notin (a)", True),
        ("env=production,type!=database", True),
        ("env=production,type=database", False),
        ("env in (testing,production),!absent,type", True),
        ("example.com/my=label", True),
        ("just-a-key=", True),
        ("env=", False),
    ],
)
def test_the_language_of_the_reference(text: str, fits: bool) -> None:
    assert selector(text)(LABELS) is fits


@pytest.mark.parametrize(
    "text", ["", ",", "env=production,", "env in production", "env in (a", "=a", "a=b=c", "a b", "-a", "a=" + "x" * 64]
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        selector(text)


def test_a_selector_has_a_length() -> None:
    with pytest.raises(ValueError, match=str(SELECTOR_CHARS_MAX)):
        selector("a," * SELECTOR_CHARS_MAX)


@given(st.text(max_size=100))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    try:
        test = selector(text)
    except ValueError:
        return
    assert test(LABELS) in (True, False)


@pytest.mark.parametrize(
    ("labels", "fine"),
    [
        (LABELS, True),
        ({}, True),
        ({"a" * 63: "b" * 63}, True),
        ({"a" * 64: ""}, False),
        ({"a": "b" * 64}, False),
        ({"a": "-b"}, False),
        ({"": "b"}, False),
        ({"hetzner.cloud/a": "b"}, False),
        ({"a": 1}, False),
        (["a"], False),
    ],
)
def test_labels(labels: object, fine: bool) -> None:
    assert (wrong_label(labels) == "") is fine
