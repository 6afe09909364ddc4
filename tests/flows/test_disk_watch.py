"""An alarm while there is still room, no mail once there is none, and mail again when there is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tinyfat.domain.disks import DiskBounds, DiskReading
from tinyfat.flows.disk_watch import DiskWatch, Place
from tinyfat.flows.readiness import KNOWN_SECONDS, Readiness
from tinyfat.ports.disks import DiskUnread
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import DiskLow
from tinyfat.ports.server_ledger import AlarmKind
from tinyfat.store.alarms import AlarmStore
from tinyfat.store.database import Database

HOME, DATA, CACHE = Path("/home"), Path("/home/postgres"), Path("/cache")
BOUNDS = DiskBounds(floor=1000, alarm=5000)


class _Disks:
    def __init__(self) -> None:
        self.devices = {HOME: 1, DATA: 1, CACHE: 2}
        self.free: dict[int, int | str] = {1: 10_000, 2: 10_000}

    async def read(self, path: Path) -> DiskReading:
        device = self.devices[path]
        free = self.free[device]
        if isinstance(free, str):
            raise DiskUnread(free)
        return DiskReading(device, free, 100_000)


class _Scene:
    def __init__(self, database: Database) -> None:
        self.disks = _Disks()
        self.alarms = AlarmStore(database)
        places = [Place("home", HOME), Place("database", DATA, mail=True), Place("cache", CACHE)]
        self.watch = DiskWatch(places, self.disks, self.alarms, BOUNDS, "host-1")

    async def said(self, device: int, free: int | str) -> list[str]:
        self.disks.free[device] = free
        await self.watch.look()
        return [alarm.detail for alarm in await self.alarms.open() if alarm.kind is AlarmKind.DISK]


@pytest.fixture
def scene(database: Database) -> _Scene:
    return _Scene(database)


async def test_the_alarm_comes_before_the_refusal_and_both_end(scene: _Scene) -> None:
    assert await scene.said(1, 10_000) == []
    [said] = await scene.said(1, 4000)
    assert "/home (home, database)" in said and "TINYFAT_DISK_ALARM" in said
    scene.watch.room(1000)
    [said] = await scene.said(1, 900)
    assert "TINYFAT_DISK_FLOOR" in said and "no mail is taken" in said
    with pytest.raises(DiskLow):
        scene.watch.room(0)
    await scene.said(1, 1100)
    with pytest.raises(DiskLow):
        scene.watch.room(0)
    await scene.said(1, 2000)
    scene.watch.room(0)
    assert await scene.said(1, 10_000) == []


async def test_a_mail_that_would_take_the_floor_is_refused_before_it(scene: _Scene) -> None:
    await scene.said(1, 6000)
    scene.watch.room(2000)
    with pytest.raises(DiskLow, match="of this size"):
        scene.watch.room(2600)


async def test_a_disk_that_no_mail_lies_on_is_an_alarm_and_no_refusal(scene: _Scene) -> None:
    [said] = await scene.said(2, 10)
    assert said.startswith("/cache (cache)")
    scene.watch.room(1000)


async def test_a_disk_that_does_not_answer_is_said_and_refuses_nothing(scene: _Scene) -> None:
    [said] = await scene.said(2, "/cache does not answer for 5 s")
    assert "does not answer" in said
    scene.watch.room(1000)
    assert await scene.said(2, 10_000) == []


async def test_a_change_is_logged_once(scene: _Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for free in (10_000, 4000, 4000, 4100, 900, 900, 950, 900):
        await scene.said(1, free)
    assert len(caplog.records) == 2


async def test_the_refusal_stands_though_the_alarm_cannot_be_written(
    scene: _Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("no space left on device")

    monkeypatch.setattr(scene.alarms, "now", away)
    with pytest.raises(StoreUnavailable):
        await scene.said(1, 900)
    with pytest.raises(DiskLow):
        scene.watch.room(0)


async def test_an_alarm_of_a_process_that_is_gone_ends(scene: _Scene, database: Database) -> None:
    await scene.said(1, 4000)
    async with database.connection() as connection:
        await connection.execute("update alarms set seen_at = now() - interval '1 hour', subject = 'disk host-2 /home'")
    assert len(await scene.said(2, 4000)) == 2  # its own two; the other's is over


class _Ready:
    def __init__(self) -> None:
        self.now = 0.0
        self.writes = 0
        self.error: Exception | None = None
        self.low: DiskLow | None = None
        self.ready = Readiness(self.write, self.room, lambda: self.now)

    async def write(self) -> None:
        self.writes += 1
        if self.error:
            raise self.error

    def room(self, size: int) -> None:
        if self.low:
            raise self.low


async def test_readiness_is_a_commit_and_the_room_on_the_disk() -> None:
    scene = _Ready()
    assert await scene.ready.complaint() == ""
    scene.now, scene.error = 10.0, StoreUnavailable("no space left on device")
    assert "no space" in await scene.ready.complaint()
    scene.now, scene.error, scene.low = 20.0, None, DiskLow("nearly full")
    assert await scene.ready.complaint() == "nearly full"
    scene.now, scene.low = 30.0, None
    assert await scene.ready.complaint() == ""


async def test_whoever_asks_again_and_again_costs_one_commit_a_second() -> None:
    scene = _Ready()
    for _ in range(500):
        await scene.ready.complaint()
    assert scene.writes == 1
    scene.now = KNOWN_SECONDS
    await scene.ready.complaint()
    assert scene.writes == 2
