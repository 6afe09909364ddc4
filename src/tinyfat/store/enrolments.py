"""Machines that enrol: which key is whose. We keep hashes alone."""

from __future__ import annotations

import uuid

import psycopg

from tinyfat.domain.enrolment import Outcome
from tinyfat.ports.enrolments import EnrolOutcome
from tinyfat.store.database import Database, storable
from tinyfat.store.machines import MACHINES
from tinyfat.store.signals import signal


class EnrolmentStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def enrol(self, machine_id: str, token_hash: bytes, key_hash: bytes) -> EnrolOutcome:
        """One statement decides, so that of two who come at the same moment one is first."""
        if not _is_uuid(machine_id):
            return EnrolOutcome.REFUSED
        try:
            return await self._enrol(machine_id, token_hash, key_hash)
        except psycopg.errors.UniqueViolation:
            return EnrolOutcome.REFUSED  # another machine's key

    async def _enrol(self, machine_id: str, token_hash: bytes, key_hash: bytes) -> EnrolOutcome:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update machines set key_hash = %(key)s, enrolled_at = coalesce(enrolled_at, now()) "
                "where id = %(id)s and wanted and enrol_token_hash = %(token)s "
                "and (key_hash = %(key)s or (key_hash is null and enrol_until > now()))",
                {"id": machine_id, "token": token_hash, "key": key_hash},
            )
            if cursor.rowcount == 1:
                return EnrolOutcome.ENROLLED
            cursor = await connection.execute(
                "select 1 from machines where id = %s and enrol_token_hash = %s and key_hash is not null "
                "and key_hash <> %s",
                (machine_id, token_hash, key_hash),
            )
            return EnrolOutcome.TAKEN if await cursor.fetchone() else EnrolOutcome.REFUSED

    async def by_key(self, key_hash: bytes) -> str | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute("select id from machines where key_hash = %s and wanted", (key_hash,))
            row = await cursor.fetchone()
        return str(row[0]) if row else None

    async def fetched(self, machine_id: str, serial: int) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                "update machines set identity_fetched = greatest(identity_fetched, %s) where id = %s",
                (serial, machine_id),
            )
            await signal(connection, MACHINES, machine_id)

    async def became(self, machine_id: str, outcome: Outcome) -> None:
        """What it said of a newer one stands."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update machines set identity_complaint = %(complaint)s, identity_in_force = case "
                "when %(complaint)s = '' then %(serial)s else identity_in_force end "
                "where id = %(id)s and identity_in_force <= %(serial)s and %(serial)s <= identity_fetched",
                {"id": machine_id, "serial": outcome.serial, "complaint": storable(outcome.complaint)},
            )

    async def doubted(self, machine_id: str, words: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update machines set link_detail = %s where id = %s", (storable(words), machine_id)
            )


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
