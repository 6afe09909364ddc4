"""A failure that comes again and again is told when it begins, when it changes, and then less and less often."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

PAUSE_SECONDS_FIRST = 10.0
PAUSE_SECONDS_MAX = 3600.0
WORDS_CHARS_COMPARED = 300

_NUMBERS = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")  # of a process, a port, a time: another one is no other failure


@dataclass(slots=True)
class _Lasting:
    words: str
    times: int
    tell_at: float
    pause: float


class Repeated:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._lasting: dict[str, _Lasting] = {}

    def failed(self, subject: str, words: str) -> int:
        """How often by now, where this is to be told; 0 where not."""
        plain, now = _NUMBERS.sub("#", words[:WORDS_CHARS_COMPARED]), self._clock()
        known = self._lasting.get(subject)
        if known is None or known.words != plain:
            times = known.times + 1 if known else 1
            self._lasting[subject] = _Lasting(plain, times, now + PAUSE_SECONDS_FIRST, PAUSE_SECONDS_FIRST)
            return times
        known.times += 1
        if now < known.tell_at:
            return 0
        known.pause = min(known.pause * 2, PAUSE_SECONDS_MAX)
        known.tell_at = now + known.pause
        return known.times

    def ended(self, subject: str) -> int:
        """How often it had failed."""
        known = self._lasting.pop(subject, None)
        return known.times if known else 0

    def only(self, subjects: Collection[str]) -> None:
        """Forget the others: nobody asks about them any more."""
        for subject in self._lasting.keys() - set(subjects):
            del self._lasting[subject]
