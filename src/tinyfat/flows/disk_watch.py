"""Every disk we write to, looked at again and again: an alarm while there is room, and no mail once there is none.

Relay, links and turns go on: what is under way needs little room, and gives some back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfat.domain.disks import DiskBounds, DiskReading, DiskState
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.ports.disks import Disks, DiskUnread
from tinyfat.ports.mail import DiskLow
from tinyfat.ports.server_ledger import Alarm, AlarmKind, Alarms

SCOPE = "disk"
STALE_SECONDS = 900.0  # an alarm of a process that is gone says nothing after so long

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    what: str  # for people
    path: Path
    mail: bool = False  # what is accepted is written here


@dataclass(frozen=True, slots=True)
class Disk:
    """One device, whatever of ours lies on it."""

    places: tuple[Place, ...]
    free: int  # bytes
    total: int
    state: DiskState
    complaint: str = ""  # it could not be read; the numbers are 0

    @property
    def path(self) -> Path:
        return self.places[0].path

    @property
    def mail(self) -> bool:
        return any(place.mail for place in self.places)

    @property
    def what(self) -> list[str]:
        return list(dict.fromkeys(place.what for place in self.places))

    @property
    def words(self) -> str:
        what = ", ".join(self.what)
        return f"{self.path} ({what}): " + (self.complaint or f"{_size(self.free)} of {_size(self.total)} are free")

    def shown(self) -> dict[str, Any]:
        """For the operator's API."""
        return {
            "path": str(self.path),
            "what": self.what,
            "mail": self.mail,
            "free": self.free,
            "total": self.total,
            "state": self.state,
            "complaint": self.complaint,
        }


def by_device(
    readings: Sequence[tuple[Place, DiskReading]], bounds: DiskBounds, before: Mapping[Place, DiskState]
) -> list[Disk]:
    """`before`: what was said of each place last."""
    places: dict[int, list[Place]] = {}
    newest: dict[int, DiskReading] = {}
    for place, reading in readings:
        places.setdefault(reading.device, []).append(place)
        newest[reading.device] = reading
    found = []
    for device, reading in newest.items():
        was = max((before.get(place, DiskState.OK) for place in places[device]), key=list(DiskState).index)
        found.append(Disk(tuple(places[device]), reading.free, reading.total, bounds.state(reading.free, was)))
    return found


class DiskWatch:
    def __init__(self, places: Sequence[Place], disks: Disks, alarms: Alarms, bounds: DiskBounds, host: str) -> None:
        """`host`: of this process; its alarms are its own."""
        self._places = tuple(places)
        self._disks = disks
        self._alarms = alarms
        self._bounds = bounds
        self._scope = f"{SCOPE} {host}"
        self._told = True  # so that the first look ends what an earlier life left open
        self.seen: tuple[Disk, ...] = ()  # as of the last look

    async def look(self) -> None:
        before = {place: disk.state for disk in self.seen for place in disk.places}
        self.seen = await self._read(before)
        for disk in self.seen:
            if any(before.get(place, DiskState.OK) is not disk.state for place in disk.places):
                log.log(_LEVELS[disk.state], "the disk is %s: %s", disk.state, disk.words)
        wrong = [disk for disk in self.seen if disk.state is not DiskState.OK or disk.complaint]
        if wrong or self._told:
            await self._alarms.now(self._scope, [self._alarm(disk) for disk in wrong])
            await self._alarms.end_stale(AlarmKind.DISK, STALE_SECONDS)
        self._told = bool(wrong)

    def room(self, size: int) -> None:
        """By the last look. Raises DiskLow."""
        for disk in self.seen:
            if disk.mail and not disk.complaint:
                if disk.state is DiskState.FULL:
                    raise DiskLow(Failure(FailureId.DISK_NEARLY_FULL).text())
                if not self._bounds.takes(disk.free, size):
                    raise DiskLow(Failure(FailureId.DISK_SHORT_OF_ROOM).text())

    async def _read(self, before: dict[Place, DiskState]) -> tuple[Disk, ...]:
        """One that does not answer is no reason to refuse: the write will tell."""
        readings, unread = [], []
        for place in self._places:
            try:
                readings.append((place, await self._disks.read(place.path)))
            except DiskUnread as error:
                unread.append(Disk((place,), 0, 0, DiskState.OK, str(error)))
        return (*by_device(readings, self._bounds, before), *unread)

    def _alarm(self, disk: Disk) -> Alarm:
        refused = disk.state is DiskState.FULL and disk.mail
        bound = f"under TINYFAT_DISK_FLOOR ({_size(self._bounds.floor)}): no mail is taken" if refused else (
            f"under TINYFAT_DISK_ALARM ({_size(self._bounds.alarm)})"
        )  # fmt: skip
        words = disk.words if disk.complaint else f"{disk.words}, {bound}. `tinyfat disk` shows what takes room."
        return Alarm(AlarmKind.DISK, f"{self._scope} {disk.path}", words)


_LEVELS = {DiskState.OK: logging.WARNING, DiskState.LOW: logging.WARNING, DiskState.FULL: logging.ERROR}


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
