"""The ids of calls: UUIDs of version 7 (RFC 9562, 5.7). They begin with the time, so the ledger's index grows at its
end and not all over: less to write with each call, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable

RANDOM_BYTES = 10
_MASK_74, _MASK_62 = (1 << 74) - 1, (1 << 62) - 1


class CallIds:
    """Of one process. What is random of an id is a place where the process begins, and then counts."""

    def __init__(self, random: bytes, now: Callable[[], float]) -> None:
        """`random`: RANDOM_BYTES; `now`: seconds since 1970."""
        self._next = int.from_bytes(random) & _MASK_74
        self._now = now

    def __call__(self) -> str:
        milliseconds = int(self._now() * 1000) & 0xFFFF_FFFF_FFFF
        self._next = tail = (self._next + 1) & _MASK_74
        digits = f"{milliseconds:012x}7{tail >> 62:03x}{1 << 63 | tail & _MASK_62:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
