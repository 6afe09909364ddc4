"""When `accept` returns, the mail is on the disk: not in the memory of a Postgres that may die the next moment."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from tests.running import OWNER, letter
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.flows.intake import MailIntake
from tinyfat.ports.mail import Authentication, Envelope
from tinyfat.store.agents import AgentStore
from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres
from tinyfat.store.mail import MailStore

# The server outlives whoever started it, on purpose: nobody waits for it as for a child.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

MAILS = 40
ENVELOPE = Envelope("127.0.0.1", "peer.example.org", OWNER)


class _NobodyAsks:
    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        raise AssertionError("a trusted network needs no proof")


async def _start_nothing(turn_id: str, attempt: int) -> None:
    pass


def _intake(database: Database) -> MailIntake:
    trusted: Sequence[ipaddress.IPv4Network] = [ipaddress.ip_network("127.0.0.0/8")]
    ledger = MailStore(database, RateCaps(1000, 1000))
    agents = AgentStore(database)
    return MailIntake("tinyfat.localhost", trusted, agents, ledger, _NobodyAsks(), _start_nothing, b"secret")


async def test_the_log_is_flushed_past_a_mail_before_its_acceptance_is_said(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    await postgres.start()
    database = Database(postgres.url)
    try:
        await database.open()
        await database.migrate()
        await AgentStore(database).create("ada", OWNER, "echo", "process")
        intake = _intake(database)
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as onlooker:
            for number in range(MAILS):
                raw = letter("Hello", message_id=f"<{number}@example.org>").as_bytes()
                await intake.accept(ENVELOPE, ["ada@tinyfat.localhost"], raw)
                cursor = await onlooker.execute("select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()")
                assert await cursor.fetchone() == (True,), f"mail {number} was accepted before it was on the disk"
    finally:
        await database.close()
        await postgres.stop()


async def test_mails_said_to_be_kept_survive_the_death_of_the_database(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    await postgres.start()
    database = Database(postgres.url)
    await database.open()
    await database.migrate()
    await AgentStore(database).create("ada", OWNER, "echo", "process")
    intake = _intake(database)
    letters = [letter("Hello", message_id=f"<{uuid.uuid4()}@example.org>").as_bytes() for _ in range(MAILS)]
    kept = await asyncio.gather(*(intake.accept(ENVELOPE, ["ada@tinyfat.localhost"], raw) for raw in letters))
    process = postgres.process()
    assert process is not None
    workers = process.children(recursive=True)
    for one in [process, *workers]:
        one.kill()
    await asyncio.to_thread(process.wait, 10)
    await database.close()
    await postgres.start()
    try:
        async with await psycopg.AsyncConnection.connect(postgres.url) as onlooker:
            cursor = await onlooker.execute("select count(*) from messages where id = any(%s::uuid[])", (kept,))
            assert await cursor.fetchone() == (MAILS,)
    finally:
        await postgres.stop()
