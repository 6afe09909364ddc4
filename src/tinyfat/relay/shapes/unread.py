"""The usage in bytes that are not read as what they should be: no JSON, broken off, or too much to be read. Pure.

It is looked for by its name, as it was written: within a text the quotes around a name have a backslash before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.relay.shapes.reported import merged

PLACES_MAX = 32  # at the beginning, and as many at the end: it stands at one of them
LOOKED_BYTES_MAX = 4 * 1024 * 1024  # of each: to look through 64 MB takes 40 ms
OBJECT_BYTES_MAX = 64 * 1024

_NAMED = re.compile(rb'"usage(?:_metadata|Metadata)?"\s*:\s*(?=\{)')
_NAME = b'"usage'
_DECODER = json.JSONDecoder(object_pairs_hook=merged)


def usages_in(data: bytes, before: int | None = None) -> list[Mapping[str, Any]]:
    """Those that are whole, near the beginning or the end. `before`: of those whose name begins before this place."""
    upto = len(data) if before is None else min(before + len(_NAME) - 1, len(data))
    found: list[Mapping[str, Any]] = []
    for place in sorted({*_first(data, upto), *_last(data, upto)}):
        named = _NAMED.match(data, place)
        if named is None or (place and data[place - 1 : place] == b"\\"):
            continue
        text = data[named.end() : named.end() + OBJECT_BYTES_MAX].decode(errors="replace")
        try:
            usage, _ = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        found.append(usage)
    return found


def _first(data: bytes, upto: int) -> list[int]:
    upto = min(upto, LOOKED_BYTES_MAX)
    places: list[int] = []
    at = data.find(_NAME, 0, upto)
    while at >= 0 and len(places) < PLACES_MAX:
        places.append(at)
        at = data.find(_NAME, at + 1, upto)
    return places


def _last(data: bytes, upto: int) -> list[int]:
    least = max(0, upto - LOOKED_BYTES_MAX)
    places: list[int] = []
    at = data.rfind(_NAME, least, upto)
    while at >= 0 and len(places) < PLACES_MAX:
        places.append(at)
        at = data.rfind(_NAME, least, at)
    return places
