"""The connection to Postgres, where other processes on the same database misbehave."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.machine_speed import patient
from tests.postgres import Server
from tests.running import until
from tinyfat.ports.ledger import NotStorable, StoreUnavailable
from tinyfat.store import database as module
from tinyfat.store.agents import AgentStore
from tinyfat.store.database import Database, OneConnection

A_LOCK = 4711


async def test_a_process_that_stands_still_loses_its_locks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_SECONDS_MAX", 1)
    still, living = Database(server.url()), Database(server.url())
    await still.open()
    await living.open()
    try:
        with pytest.raises(StoreUnavailable):  # it goes on, and must look again at what it was about to do
            async with still.transaction() as held:
                await held.execute("select pg_advisory_xact_lock(%s)", (A_LOCK,))
                async with asyncio.timeout(patient(8)), living.transaction() as other:
                    await other.execute("select pg_advisory_xact_lock(%s)", (A_LOCK,))
                await held.execute("select 1")
    finally:
        await still.close()
        await living.close()


@pytest.mark.parametrize("steps", range(6))
async def test_who_waits_for_a_database_that_is_away_is_told_to_end_once(steps: int) -> None:
    """So many steps of the loop after the pool was closed: some of them end the waiting in the same moment."""
    database = Database("postgresql://nobody@127.0.0.1:9/none")
    await database.open()
    waits = asyncio.Event()

    async def flow() -> None:
        while True:
            try:
                waits.set()
                async with database.connection():
                    pass
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    task = asyncio.create_task(flow())
    await waits.wait()
    await asyncio.sleep(0)
    await database.close()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    _, left = await asyncio.wait({task}, timeout=patient(8))
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert not left


async def test_a_timeout_over_a_database_that_is_away_is_a_timeout() -> None:
    database = Database("postgresql://nobody@127.0.0.1:9/none")
    await database.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), database.connection():
            pass
    with pytest.raises(StoreUnavailable):
        await database.close()
        await database.ping()


async def test_one_connection_is_closed_when_its_statement_has_ended(server: Server) -> None:
    """Under a statement, to close it would leave that one waiting for ever, and libuv abort the process."""
    one = OneConnection(server.url())
    asleep = asyncio.create_task(one.fetch("select 1 from pg_sleep(0.3)", ()))
    async with asyncio.timeout(patient(8)):
        while one._connection is None:
            await asyncio.sleep(0)
        await one.close()
        assert await asleep == [(1,)]
    assert one._connection is None


async def test_one_connection_that_was_ended_while_nothing_was_asked_is_made_anew(server: Server) -> None:
    one, other = OneConnection(server.url()), Database(server.url())
    await other.open()
    [(pid,)] = await one.fetch("select pg_backend_pid()", ())

    async def is_gone() -> bool:
        async with other.connection() as connection:
            cursor = await connection.execute("select 1 from pg_stat_activity where pid = %s", (pid,))
            return await cursor.fetchone() is None

    async with other.connection() as connection:
        await connection.execute("select pg_terminate_backend(%s)", (pid,))
    await until(is_gone, 10.0, "it is ended")
    assert await one.fetch("select pg_backend_pid() <> %s", (pid,)) == [(True,)]
    await one.close()
    await other.close()


async def test_a_statement_that_fails_takes_no_other_with_it(server: Server) -> None:
    one = OneConnection(server.url())
    doomed = asyncio.create_task(one.fetch("select pg_terminate_backend(pg_backend_pid())", ()))
    others = [asyncio.create_task(one.fetch("select 1 from pg_sleep(0.05)", ())) for _ in range(3)]
    async with asyncio.timeout(patient(8)):
        with pytest.raises(StoreUnavailable):
            await doomed
        assert await asyncio.gather(*others) == [[(1,)]] * 3
    await one.close()


async def test_a_nul_is_refused_in_words_wherever_it_comes_from(database: Database) -> None:
    with pytest.raises(NotStorable, match="NUL"):
        await AgentStore(database).find("a\x00b")
    with pytest.raises(psycopg.DataError):
        async with database.connection() as connection:
            await connection.execute("select 1 / 0")
