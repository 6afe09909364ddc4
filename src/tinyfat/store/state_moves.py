"""An agent's state on its way from one machine to the next: how far it is, and the file itself."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any

from tinyfat.ports.server_ledger import MovePhase, StateMove
from tinyfat.store.database import Connection, Database, storable
from tinyfat.store.servers import SPECS
from tinyfat.store.signals import signal

DETAIL_CHARS_MAX = 2000
_COLUMNS = (
    "id::text, agent_id::text, from_machine::text, coalesce(to_machine::text, ''), phase, sha256, bytes, detail, "
    "asked_at, kept_at"
)


class StateMoveStore:
    """Implements ports/server_ledger StateMoves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, move_id: str, agent_id: str, from_machine: str, to_machine: str) -> None:
        await self._change(
            move_id,
            "insert into state_moves (agent_id, from_machine, to_machine, id) values (%s, %s, %s, %s) "
            "on conflict do nothing",
            agent_id,
            from_machine,
            to_machine or None,
        )

    async def get(self, move_id: str) -> StateMove | None:
        found = await self._find("id = %s", _uuid(move_id))
        return found[0] if found else None

    async def latest_of(self, machine_id: str) -> StateMove | None:
        machine = _uuid(machine_id)
        found = await self._find(
            "%s in (from_machine, to_machine) order by (to_machine is not null and phase <> 'failed' "
            "and from_machine = %s) desc, asked_at desc limit 1",
            machine,
            machine,
        )
        return found[0] if found else None

    async def exports(self) -> list[StateMove]:
        return await self._find("to_machine is null and phase in ('asked', 'kept') order by asked_at")

    async def _find(self, where: str, *values: uuid.UUID | None) -> list[StateMove]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"select {_COLUMNS} from state_moves where {where}".encode(), values)  # noqa: S608
            return [_move(row) for row in await cursor.fetchall()]

    async def kept(self, move_id: str, sha256: str, size: int) -> None:
        await self._change(
            move_id,
            "update state_moves set phase = 'kept', sha256 = %s, bytes = %s, kept_at = now() "
            "where id = %s and phase = 'asked'",
            sha256,
            size,
        )

    async def restored(self, move_id: str) -> None:
        await self._change(
            move_id, "update state_moves set phase = 'restored', restored_at = now() where id = %s and phase = 'kept'"
        )

    async def fetched(self, move_id: str) -> None:
        await self._change(
            move_id,
            "update state_moves set phase = 'fetched' where id = %s and to_machine is null and phase in "
            "('asked', 'kept')",
        )

    async def failed(self, move_id: str, detail: str) -> None:
        await self._change(
            move_id,
            "update state_moves set phase = 'failed', detail = %s where id = %s and phase <> 'failed'",
            storable(detail)[:DETAIL_CHARS_MAX],
        )

    async def _change(self, move_id: str, statement: str, *values: object) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(statement.encode(), (*values, move_id))
            await _tell(connection, move_id)


class MoveFolder:
    """Implements ports/server_ledger MoveFiles. On the disk of the process that the boxes call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, move_id: str) -> Path:
        """Raises ValueError for what is no id of ours."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / f"{uuid.UUID(move_id)}.tar.gz"

    def room(self) -> int:
        """Free bytes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free

    async def ids(self) -> list[str]:
        """Of whatever else lies there nothing is said."""
        names = await asyncio.to_thread(lambda: [file.name.partition(".")[0] for file in self._folder.glob("*.tar.*")])
        return sorted({name for name in names if _uuid(name)})

    async def remove(self, move_id: str) -> None:
        name = self.file(move_id).name.partition(".")[0]
        for file in await asyncio.to_thread(lambda: list(self._folder.glob(f"{name}.tar.*"))):
            await asyncio.to_thread(file.unlink, True)


def _move(row: tuple[Any, ...]) -> StateMove:
    move_id, agent_id, from_machine, to_machine, phase, sha256, size, detail, asked_at, kept_at = row
    return StateMove(
        move_id, agent_id, from_machine, to_machine, MovePhase(phase), sha256, size, detail, asked_at, kept_at
    )


async def _tell(connection: Connection, move_id: str) -> None:
    cursor = await connection.execute(
        "select from_machine::text, to_machine::text from state_moves where id = %s", (move_id,)
    )
    for machine_id in filter(None, await cursor.fetchone() or ()):
        await signal(connection, SPECS, machine_id)


def _uuid(text: str) -> uuid.UUID | None:
    """What a box says is an id may be anything; None matches no row."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
