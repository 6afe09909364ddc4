"""What bounds the room we take: quotas, retention, and the watch of every disk that is written to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from tinyfat.domain.disks import DiskBounds, Taken
from tinyfat.drivers.disk_usage import folders_usage
from tinyfat.drivers.disks import LocalDisks, read_disk
from tinyfat.engine.beats import Beat
from tinyfat.engine.durable import Engine
from tinyfat.flows.disk_watch import Disk, DiskWatch, Place, by_device
from tinyfat.flows.retention import Retention
from tinyfat.settings import Settings
from tinyfat.store.alarms import AlarmStore
from tinyfat.store.database import Database
from tinyfat.store.quotas import MailQuotas, Quotas
from tinyfat.store.retention import RetentionStore
from tinyfat.store.room_taken import database_taken, machines_agents

MACHINE = "machine"
MACHINE_FOLDERS = ("machines", "nspawn/machines", "local_vm/machines")  # in the home: in each, one for each machine
COUNTING_SECONDS_MAX = 10.0  # of all folders together
DISK_LOOK_SECONDS = 5.0
QUOTA_LOOK_SECONDS = 60.0
RETENTION_SECONDS = 900.0


class Room:
    def __init__(self, settings: Settings, database: Database, quotas: MailQuotas, engine: Engine, host: str) -> None:
        self._settings = settings
        self._database = database
        self._quotas = quotas
        bounds = DiskBounds(settings.disk_floor, settings.disk_alarm)
        self.disks = DiskWatch(places_of(settings), LocalDisks(), AlarmStore(database), bounds, host)
        self._retention = Retention(RetentionStore(database), engine, settings.days_kept, settings.keep_flows)

    async def taken(self) -> list[Taken]:
        """What takes room, for the operator."""
        folders = await asyncio.to_thread(_folders, self._settings)
        usage = await asyncio.to_thread(
            folders_usage, [folder for _, folder, _ in folders], COUNTING_SECONDS_MAX, time.monotonic
        )
        agents = await machines_agents(self._database)
        found = await database_taken(self._database)
        for (kind, folder, setting), used in zip(folders, usage, strict=True):
            of = agents.get(folder.name, "") if kind == MACHINE else ""
            found.append(Taken(kind, of, used.bytes, used.files, setting, used.whole))
        return found

    async def open(self) -> None:
        """Before the first mail comes."""
        await self.disks.look()
        await self._quotas.look()

    def beats(self) -> Sequence[Beat]:
        return (
            ("disks", DISK_LOOK_SECONDS, self.disks.look),
            ("quotas", QUOTA_LOOK_SECONDS, self._quotas.look),
            ("retention", RETENTION_SECONDS, self._retention.run),
        )


def quotas_of(settings: Settings) -> Quotas:
    return Quotas(
        settings.quarantine_bytes,
        settings.quarantine_mails,
        settings.quarantine_sender_bytes,
        settings.quarantine_sender_mails,
        settings.conversations_bytes,
    )


def places_of(settings: Settings) -> list[Place]:
    """Where this process writes. A database of the operator's own lies elsewhere: only its commits tell of its disk."""
    home = settings.home
    places = [Place("home", home)]
    if settings.database_url is None:
        data = home / "postgres"
        places += [Place("database", data, mail=True), Place("its log", _real(data / "pg_wal"), mail=True)]
    places += [Place("machines", home / name) for name in MACHINE_FOLDERS]
    places += [Place("moves of state", home / "moves")]
    return [*places, Place("cache", settings.cache)]


def disks_now(settings: Settings) -> list[Disk]:
    """As a process would find them. Waits for the disks. Raises OSError."""
    readings = [(place, read_disk(place.path)) for place in places_of(settings)]
    return by_device(readings, DiskBounds(settings.disk_floor, settings.disk_alarm), {})


def _real(path: Path) -> Path:
    """A log that was put on another disk is a link."""
    return path.resolve()


def _folders(settings: Settings) -> list[tuple[str, Path, str]]:
    """(kind, folder, what bounds it). For a thread."""
    home, cache = settings.home, settings.cache
    machines = [entry for name in MACHINE_FOLDERS for entry in _inside(home / name)]
    return [
        *((MACHINE, folder, "") for folder in machines),
        ("moves of state", home / "moves", ""),
        ("runtimes", cache / "runtimes", ""),
        ("images", cache / "images", "`tinyfat image prune`"),
    ]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return []
