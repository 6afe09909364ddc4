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
OBJECT_BYTES_MAX = 64 * 1024

_NAMED = re.compile(rb'"usage(?:_metadata|Metadata)?"\s*:\s*(?=\{)')
_NAME = b'"usage'
_DECODER = json.JSONDecoder(object_pairs_hook=merged)


def usages_in(data: bytes) -> list[Mapping[str, Any]]:
    """Those that are whole, wherever they stand."""
    found: list[Mapping[str, Any]] = []
    for place in sorted({*_first(data), *_last(data)}):
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


def _first(data: bytes) -> list[int]:
    places: list[int] = []
    at = data.find(_NAME)
    while at >= 0 and len(places) < PLACES_MAX:
        places.append(at)
        at = data.find(_NAME, at + 1)
    return places


def _last(data: bytes) -> list[int]:
    places: list[int] = []
    at = data.rfind(_NAME)
    while at >= 0 and len(places) < PLACES_MAX:
        places.append(at)
        at = data.rfind(_NAME, 0, at)
    return places
