"""When a disk is low, and when there is room again: rules over what was read of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Back from a bound only some way past it: a disk that stands at one would else change its mind with every mail.
AGAIN_FLOOR = 1.25
AGAIN_ALARM = 1.1
# A mail is written to the database's log, and then to its table.
WRITTEN_TIMES = 2


class DiskState(StrEnum):
    OK = "ok"
    LOW = "low"  # under the alarm
    FULL = "full"  # under the floor: no mail is taken that would lie on it


@dataclass(frozen=True, slots=True)
class DiskReading:
    device: int
    free: int  # bytes, as an ordinary user may use them
    total: int


@dataclass(frozen=True, slots=True)
class DiskBounds:
    """Bytes free."""

    floor: int
    alarm: int

    def state(self, free: int, before: DiskState) -> DiskState:
        """`before`: what it was said to be last."""
        if free < self.floor * (AGAIN_FLOOR if before is DiskState.FULL else 1):
            return DiskState.FULL
        if free < self.alarm * (1 if before is DiskState.OK else AGAIN_ALARM):
            return DiskState.LOW
        return DiskState.OK

    def takes(self, free: int, size: int) -> bool:
        """Is the floor still free after a mail of so many bytes?"""
        return free - WRITTEN_TIMES * size >= self.floor


@dataclass(frozen=True, slots=True)
class Taken:
    """How much room one kind of thing takes."""

    kind: str
    of: str  # an agent's name, where it is one's; ""
    bytes: int
    count: int
    setting: str = ""  # which bounds it; "": nothing but what it is made of
    whole: bool = True  # False: counting was broken off, and it is at least so much
    inside: str = ""  # the kind that it is a part of: not to be added to it
