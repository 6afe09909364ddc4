"""How stand-ins lie, on request and by a seed. A lie is told for ever, or a number of times, and of all or of one part.

| lie | what it does | its part |
|---|---|---|
| stop-runs-on | poweroff and shutdown say success; the server runs on | |
| delete-stays | deleting says success; the server stays | |
| create-504 | creating answers 504 and has created | a collection; where none is named, the chief one |
| ip-changes | a server's address is another after it was off | |
| action-hangs | an action stays at some per cent for ever; by the seed, its effect comes or does not | a command |
| volume-stays | detaching says success; the volume stays attached | |
| error-500 | 1 in 5 answers is a 500; by the seed, the request was carried out or was not | a collection |
| rate-limited | 429 | a collection |
| locked | an action on a resource answers 423 | a collection |
| maintenance | what changes anything answers 403 | a collection |
| list-late | what is new is not yet in lists, and what is gone still is | a collection |
| capacity | a location has no room | a location |
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ERROR_500_PROBABILITY = 0.2
EFFECT_COMES_PROBABILITY = 0.5


class LieName(StrEnum):
    STOP_RUNS_ON = "stop-runs-on"
    DELETE_STAYS = "delete-stays"
    CREATE_504 = "create-504"
    IP_CHANGES = "ip-changes"
    ACTION_HANGS = "action-hangs"
    VOLUME_STAYS = "volume-stays"
    ERROR_500 = "error-500"
    RATE_LIMITED = "rate-limited"
    LOCKED = "locked"
    MAINTENANCE = "maintenance"
    LIST_LATE = "list-late"
    CAPACITY = "capacity"


@dataclass(slots=True)
class Lie:
    name: LieName
    part: str = ""  # "": all
    times: int | None = None  # None: for ever


def read_lie(text: str, chief: str = "servers") -> Lie:
    """NAME[:PART][=TIMES], e.g. capacity:fsn1=3. `chief`: the collection meant by create-504. Raises ValueError."""
    whole, _, times = text.partition("=")
    name, _, part = whole.partition(":")
    if times and not (times.isdigit() and int(times) > 0):
        raise ValueError(f"The lie {text!r} has no number of times: NAME[:PART][=TIMES], e.g. capacity:fsn1=3.")
    try:
        known = LieName(name)
    except ValueError:
        raise ValueError(f"There is no lie {name!r}; there are: {', '.join(LieName)}.") from None
    if known is LieName.CREATE_504 and not part:
        part = chief
    return Lie(known, part, int(times) if times else None)


class Lies:
    """Which lies are told now. One seed gives one story, as long as the same things are asked in the same order."""

    def __init__(self, lies: Iterable[Lie] = (), seed: int = 0) -> None:
        self.told: dict[str, int] = {}
        self._lies = list(lies)
        self._random = random.Random(seed)  # noqa: S311 - nothing secret hangs on it

    def tell(self, name: LieName, part: str = "") -> bool:
        """Lie now? Each True uses one of the times up."""
        lie = next((each for each in self._lies if each.name is name and each.part in ("", part)), None)
        if lie is None or (name is LieName.ERROR_500 and self._random.random() >= ERROR_500_PROBABILITY):
            return False
        self.told[name] = self.told.get(name, 0) + 1
        if lie.times is not None:
            lie.times -= 1
            if lie.times == 0:
                self._lies.remove(lie)
        return True

    def is_on(self, name: LieName, part: str = "") -> bool:
        """Without using it up: for what is asked again and again."""
        return any(each.name is name and each.part in ("", part) for each in self._lies)

    def effect_comes(self) -> bool:
        return self._random.random() < EFFECT_COMES_PROBABILITY

    def pick(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def add(self, lie: Lie) -> None:
        self._lies.append(lie)

    def clear(self, name: LieName | None = None) -> None:
        self._lies = [] if name is None else [each for each in self._lies if each.name is not name]

    def wire(self) -> dict[str, Any]:
        lies = [{"name": each.name, "part": each.part, "times": each.times} for each in self._lies]
        return {"lies": lies, "told": self.told}
