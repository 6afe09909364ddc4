"""What does not agree between the world and the ledger: open while it lasts, kept afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from tinyfat.ports.server_ledger import Alarm, AlarmKind
from tinyfat.store.database import Database, storable


class AlarmStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self, scope: str, seen: Sequence[Alarm]) -> list[Alarm]:
        async with self._database.transaction() as connection:
            await connection.execute(
                "update alarms set ended_at = now() where ended_at is null and subject like %s || ' %%' "
                "and kind || ' ' || subject <> all(%s)",
                (scope, [f"{alarm.kind} {alarm.subject}" for alarm in seen]),
            )
            new = []
            for alarm in seen:
                cursor = await connection.execute(
                    "insert into alarms as known (kind, subject, detail, agent_id) values (%s, %s, %s, "
                    "(select id from agents where id = %s)) on conflict (kind, subject) where ended_at is null "
                    "do update set detail = excluded.detail, seen_at = now() returning known.since = known.seen_at",
                    (alarm.kind, storable(alarm.subject), storable(alarm.detail), alarm.agent_id or None),
                )
                row = await cursor.fetchone()
                if row and row[0]:
                    new.append(alarm)
            return new

    async def open(self, scope: str = "") -> list[Alarm]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select kind, subject, detail, coalesce(agent_id::text, ''), since, seen_at, ended_at from alarms "
                "where ended_at is null and (%(scope)s = '' or subject like %(scope)s || ' %%') order by since, id",
                {"scope": scope},
            )
            return [Alarm(AlarmKind(row[0]), *row[1:]) for row in await cursor.fetchall()]

    async def end_stale(self, kind: AlarmKind, seconds: float) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update alarms set ended_at = now() where kind = %s and ended_at is null "
                "and seen_at < now() - make_interval(secs => %s)",
                (kind, seconds),
            )
