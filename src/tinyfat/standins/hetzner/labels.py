"""Labels and the label selector language (Hetzner Cloud API reference, "Labels" and "Label Selector")."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

SELECTOR_CHARS_MAX = 4096
KEY_PREFIX_CHARS_MAX = 253
RESERVED_PREFIX = "hetzner.cloud"

_SEGMENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?"
_PREFIX = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
_KEY = rf"(?:{_PREFIX}/)?{_SEGMENT}"
_VALUE = rf"(?:{_SEGMENT})?"
_key = re.compile(_KEY)
_value = re.compile(_VALUE)
_set_based = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_equality = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_presence = re.compile(rf"(!?)\s*({_KEY})")

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]


def wrong_label(labels: object) -> str:
    """Why these cannot be labels; "" where they can."""
    if not isinstance(labels, dict):
        return "must be an object"
    for key, value in labels.items():
        if not _key.fullmatch(key):
            return f"label key {key!r} is not valid"
        prefix = key.rpartition("/")[0]
        if len(prefix) > KEY_PREFIX_CHARS_MAX or prefix == RESERVED_PREFIX:
            return f"the prefix of label key {key!r} is reserved or too long"
        if not isinstance(value, str) or not _value.fullmatch(value):
            return f"the value of label {key!r} is not valid"
    return ""


def selector(text: str) -> Test:
    """Raises ValueError where it is none. `k!=v` and `k notin (v)` hold for what has no label k."""
    if len(text) > SELECTOR_CHARS_MAX:
        raise ValueError(f"is over {SELECTOR_CHARS_MAX} characters")
    tests = [_requirement(part.strip()) for part in _split(text)]
    return lambda labels: all(test(labels) for test in tests)


def _split(text: str) -> list[str]:
    """At the commas that are not inside parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _requirement(text: str) -> Test:
    if found := _set_based.fullmatch(text):
        return _one_of(found[1], found[3], found[2] == "in")
    if found := _equality.fullmatch(text):
        return _equal(found[1], found[3], found[2] != "!=")
    if found := _presence.fullmatch(text):
        key, wanted = found[2], not found[1]
        return lambda labels: (key in labels) is wanted
    raise ValueError(f"cannot be read at {text!r}")


def _equal(key: str, value: str, wanted: bool) -> Test:
    return lambda labels: (labels.get(key) == value) is wanted


def _one_of(key: str, listed: str, wanted: bool) -> Test:
    values = [value.strip() for value in listed.split(",")]
    if not all(_value.fullmatch(value) for value in values):
        raise ValueError(f"has a value that is not valid in ({listed})")
    return lambda labels: (labels.get(key) in values) is wanted
