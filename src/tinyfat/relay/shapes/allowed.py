"""What of a request may pass to a vendor: what is written down here and in the surfaces, and nothing else. Pure.

A list of what is forbidden is behind with each feature that a vendor adds, and each may have a price of its own, or
name what another tenant of the same account keeps there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from tinyfat.relay.json_body import NAME_CHARS_SHOWN, RequestRefused

NUMBER_MAX = 10**9  # of tokens: no model says more


def only(what: str, given: Iterable[str], allowed: Collection[str]) -> None:
    """Raises RequestRefused, which names the first that is not allowed."""
    for name in given:
        if name not in allowed:
            raise RequestRefused(f"{shown(name)} is not offered here{f' in {what}' if what else ''}")


def one_case(what: str, given: Mapping[str, Any], judged: AbstractSet[str]) -> None:
    """Some readers take `Type` for `type`. What is neither judged nor like it passes."""
    if given.keys() <= judged:
        return
    for name in given:
        if name not in judged and name.casefold() in judged:
            raise RequestRefused(f"{shown(name)} in {what} is written otherwise than {name.casefold()!r}")


def whole(given: Mapping[str, Any], name: str, most: int = NUMBER_MAX) -> int | None:
    """None where it is absent, or null. Raises RequestRefused for what is no whole number from 1 to `most`."""
    value = given.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise RequestRefused(f"{name} must be a whole number from 1 to {most}")
    return value


def listed(given: Mapping[str, Any], name: str) -> list[Any]:
    """Empty where it is absent, or null."""
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestRefused(f"{name} must be a list")
    return value


def objects(given: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = listed(given, name)
    if not all(isinstance(value, dict) for value in found):
        raise RequestRefused(f"{name} must be a list of objects")
    return found


def one_of(what: str, value: object, allowed: Collection[object]) -> None:
    """`value`: what a reader goes by, such as a tool's type. Only texts and null are told apart."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise RequestRefused(f"{what} {shown(value)} is not offered here")


def absent(given: Mapping[str, Any], *names: str) -> None:
    """They may be there as null, false, or empty: then they ask for nothing."""
    for name in names:
        if given.get(name):
            raise RequestRefused(f"{name} is not offered here")


def standard_price(given: Mapping[str, Any]) -> None:
    """Refuses ways to be served that cost more than the price we know."""
    for name, allowed in _PRICED:
        if (value := given.get(name)) is not None and value not in allowed:
            raise RequestRefused(f"{name} {shown(value)} is not offered here: it has another price")


def streaming(given: Mapping[str, Any]) -> None:
    if given.get("stream") not in (None, True, False) or type(given.get("stream")) not in (type(None), bool):
        raise RequestRefused("stream must be true or false")
    options = given.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict):
        raise RequestRefused("stream_options must be an object")
    only("stream_options", options, ("include_usage", "include_obfuscation"))
    for name, value in options.items():
        if value is not None and not isinstance(value, bool):
            raise RequestRefused(f"{name} must be true or false")


def shown(value: object) -> str:
    return repr(value if isinstance(value, str | int | float | bool | None) else type(value).__name__)[
        : NAME_CHARS_SHOWN + 2
    ]


_PRICED = (
    ("service_tier", ["auto", "default", "standard_only", "flex"]),
    ("speed", ["standard"]),
    ("inference_geo", ["global"]),
)
