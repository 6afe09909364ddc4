"""When `accept` returns, the mail is on the disk: not in the memory of a Postgres that may die the next moment."""

from __future__ import annotations

import asyncio
import ipaddress
import re
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
from tinyfat.store.database import Connection, Database
from tinyfat.store.embedded import EmbeddedPostgres, wheels_programs
from tinyfat.store.mail import MailStore

# The server outlives whoever started it, on purpose: nobody waits for it as for a child.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

MAILS = 40
_COMMIT = re.compile(r"/ *(?P<bytes>\d+), tx: +(?P<tx>\d+), lsn: (?P<high>\w+)/(?P<low>\w+),.*desc: COMMIT")
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


async def test_a_mails_commit_is_on_the_disk_when_its_acceptance_is_said(tmp_path: Path) -> None:
    assert await _said_too_early(tmp_path, "") == []


async def test_and_where_commits_do_not_wait_for_the_disk_it_is_seen(tmp_path: Path) -> None:
    never = "alter system set synchronous_commit = off; alter system set wal_writer_delay = '10s'"
    assert await _said_too_early(tmp_path, never) != []


async def _said_too_early(home: Path, configuration: str) -> list[int]:
    """Mails whose own commit was not flushed yet when they were said to be kept."""
    postgres = EmbeddedPostgres(home)
    await postgres.start()
    database = Database(postgres.url)
    try:
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as onlooker:
            for statement in configuration.split(";") if configuration else ():
                await onlooker.execute(statement.encode())
            await onlooker.execute("select pg_reload_conf()")
            await database.open()
            await database.migrate()
            await AgentStore(database).create("ada", OWNER, "echo", "process")
            begin = await _one(onlooker, "select pg_current_wal_insert_lsn()::text")
            intake = _intake(database)
            flushed = [await _flushed_when_said(onlooker, intake, number) for number in range(MAILS)]
            await onlooker.execute("checkpoint")
            commits = await _commits(postgres.data / "pg_wal", begin)
        return [number for number, (writer, at) in enumerate(flushed) if commits[writer] > at]
    finally:
        await database.close()
        await postgres.stop()


async def _flushed_when_said(onlooker: Connection, intake: MailIntake, number: int) -> tuple[str, int]:
    """(the transaction that wrote the mail; how far the log was on the disk)."""
    raw = letter("Hello", message_id=f"<{number}@example.org>").as_bytes()
    row = await intake.accept(ENVELOPE, ["ada@tinyfat.localhost"], raw)
    flushed = await _one(onlooker, "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text")
    return await _one(onlooker, f"select xmin::text from messages where id = '{row}'"), int(flushed)


async def _one(onlooker: Connection, query: str) -> str:
    row = await (await onlooker.execute(query.encode())).fetchone()
    assert row is not None
    return str(row[0])


async def _commits(log: Path, begin: str) -> dict[str, int]:
    """Transaction -> where its commit ends in the log, as pg_waldump tells it; it ends where the log does, with 1."""
    run = await asyncio.create_subprocess_exec(
        str(wheels_programs() / "pg_waldump"), "--path", str(log), "--start", begin, "--rmgr", "Transaction",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await run.communicate()
    return {
        found["tx"]: (int(found["high"], 16) << 32) + int(found["low"], 16) + int(found["bytes"])
        for found in _COMMIT.finditer(out.decode())
    }


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
