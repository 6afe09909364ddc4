"""How many bytes of what the world sends are in memory at once, over all listeners: one number for one process.

with reading.hold(length):      # or hold(0) and more(n) as pieces come
    body = await ...
"""

from __future__ import annotations

from types import TracebackType

BYTES_MAX = 192 * 1024 * 1024  # of bodies being read or waiting to be judged, over all listeners
OWNERS_PART = 2  # one owner, or all strangers together, has at most half of it


class TooMuchBeingRead(Exception):
    """There is no room for another body now; later there is. 503 over HTTP, 452 over SMTP."""


class Reading:
    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._held = 0
        self._owners: dict[str, int] = {}

    @property
    def held(self) -> int:
        return self._held

    def hold(self, size: int = 0, whose: str = "") -> Held:
        """Room for `size` bytes until its `with` ends. `whose`: a tenant's id, or "" for strangers, all of them one.
        Raises TooMuchBeingRead."""
        held = Held(self, whose)
        held.more(size)
        return held

    def _change(self, size: int, whose: str) -> None:
        owned = self._owners.get(whose, 0) + size
        if size > 0 and (self._held + size > self.bytes_max or owned > self.bytes_max // OWNERS_PART):
            raise TooMuchBeingRead(f"{self._held} bytes are being read already")
        self._held += size
        if owned:
            self._owners[whose] = owned
        else:
            self._owners.pop(whose, None)


class Held:
    """Room that somebody has."""

    def __init__(self, reading: Reading, whose: str) -> None:
        self._reading = reading
        self._whose = whose
        self._size = 0

    def more(self, size: int) -> None:
        """Raises TooMuchBeingRead, and what it has it keeps."""
        self._reading._change(size, self._whose)
        self._size += size

    def end(self) -> None:
        """Twice is once."""
        self._reading._change(-self._size, self._whose)
        self._size = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
