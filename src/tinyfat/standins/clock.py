"""The time as a stand-in has it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Unix seconds; can be put forward, so that a test need not wait."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source, self._ahead = source, 0.0

    def __call__(self) -> float:
        return self._source() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
