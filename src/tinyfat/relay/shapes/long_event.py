"""An event that is too long to be kept until it ends, such as one that repeats the whole of a request: its bytes go on
as they come, all but the last, and its usage is looked for on the way. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinyfat.relay.shapes.unread import OBJECT_BYTES_MAX, usages_in

HEAD_BYTES = 256
USAGES_MAX = 256  # of one event
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_.]{1,80})"')
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def gist(event: bytes) -> dict[str, Any]:
    """What it is, by its beginning."""
    kind = _TYPE.search(event, 0, HEAD_BYTES)
    return {"type": kind[1].decode() if kind else ""}


class LongEvent:
    def __init__(self) -> None:
        self.usages: list[Mapping[str, Any]] = []
        self._head = b""
        self._tail = b""
        self._before = b""  # the last byte that left

    @property
    def gist(self) -> dict[str, Any]:
        return gist(self._head)

    def feed(self, piece: bytes) -> tuple[bytes, bytes | None]:
        """(what may leave, None); with its end: (the rest of it, what comes behind it)."""
        data = self._tail + piece
        end = _end(data, max(0, len(self._tail) - 3))
        if len(self._head) < HEAD_BYTES:
            self._head += data[len(self._tail) : end][: HEAD_BYTES - len(self._head)]
        if end is not None:
            self._look(data[:end], end)
            self._tail = b""
            return data[:end], data[end:]
        kept = max(0, len(data) - OBJECT_BYTES_MAX)
        self._look(data, kept)
        self._before, self._tail = data[kept - 1 : kept] or self._before, data[kept:]
        return data[:kept], None

    def end(self) -> bytes:
        """Where the answer ends in it."""
        self._look(self._tail, len(self._tail))
        return self._tail

    def _look(self, data: bytes, before: int) -> None:
        lead = len(self._before)
        found = usages_in(self._before + data, before + lead)
        self.usages += found[: max(0, USAGES_MAX - len(self.usages))]


def _end(data: bytes, since: int) -> int | None:
    """Behind its blank line."""
    found = [place + len(end) for end in _ENDS if (place := data.find(end, since)) >= 0]
    return min(found, default=None)
