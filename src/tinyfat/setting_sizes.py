"""A size in bytes, as people write it: 26214400, 25MB, 25 MiB, 1.5G."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgt])(i)?)?b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(value: object) -> object:
    """Raises ValueError. kB, MB, GB are decimal (IEC 80000-13); KiB, MiB, GiB and single letters binary."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size, such as 26214400, 25MB or 25MiB")
    letter = (match[2] or "").lower()
    decimal = value.strip().lower().endswith("b") and not match[3]
    return int(Decimal(match[1]) * (1000 if decimal else 1024) ** _POWER[letter])


Size: TypeAlias = Annotated[int, BeforeValidator(size)]
