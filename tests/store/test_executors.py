"""Who is taken for dead, and when: the engine is less patient with processes than the sweep is with relays' holds."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psycopg

import tinyfat
from tests.machine_speed import patient
from tests.store.ledgers import Ledgers, ask
from tinyfat.ports.server_ledger import NewServer, Wish
from tinyfat.store import advisory_locks
from tinyfat.store.executors import ExecutorStore
from tinyfat.store.servers import ServerStore

SOURCE = Path(tinyfat.__file__).parent
SECONDS_MAX = 20.0


async def _silent(ledgers: Ledgers, seconds: float, executor: str) -> None:
    await ledgers.rows(
        "update executors set heartbeat_at = now() - make_interval(secs => %s) where id = %s", seconds, executor
    )


async def _taken_for_dead(ledgers: Ledgers) -> list[str]:
    async with ExecutorStore(ledgers.database).dead("me", 20.0) as dead:
        return dead


async def test_a_relay_that_stood_still_for_21_seconds_keeps_its_holds(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    ledgers.now = None
    await ledgers.held(key, 700)
    await ledgers.rows("update holds set at = at - interval '300 s'")  # a long answer, which goes on
    await ExecutorStore(ledgers.database).beat("flows-of-a-dead-process")
    for executor in ("relay:1", "flows-of-a-dead-process"):
        await _silent(ledgers, 21, executor)
    assert await _taken_for_dead(ledgers) == ["flows-of-a-dead-process"]
    assert await ledgers.second.sweep(60.0) == 0
    await ledgers.first.beat()
    assert (await ledgers.first.spend(agent_id)).reserved == 700


async def test_a_dead_relay_is_forgotten_once_its_holds_are_swept(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    ledgers.now = None
    await ledgers.held(key, 700)
    await ledgers.rows("update holds set at = at - interval '61 s'")
    await _silent(ledgers, 61, "relay:1")
    assert await _taken_for_dead(ledgers) == []
    assert await ledgers.second.sweep(60.0) == 1
    assert await _taken_for_dead(ledgers) == ["relay:1"]
    assert await _taken_for_dead(ledgers) == []


async def test_who_beats_or_holds_while_the_dead_are_taken_over_is_not_forgotten(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    ledgers.now = None
    await _silent(ledgers, 21, "relay:1")
    await _silent(ledgers, 21, "relay:2")
    async with ExecutorStore(ledgers.database).dead("me", 20.0) as dead:
        assert sorted(dead) == ["relay:1", "relay:2"]
        await ledgers.first.reserve([ask(key, 1)])
        await ledgers.second.beat()
    assert await ledgers.rows("select id from executors order by id") == [("relay:1",), ("relay:2",)]


async def test_the_pool_is_filled_while_flows_are_taken_over(ledgers: Ledgers) -> None:
    servers = ServerStore(ledgers.database)
    async with asyncio.timeout(patient(SECONDS_MAX)), ExecutorStore(ledgers.database).dead("me", 20.0):
        assert await servers.fill_pool(Wish("nspawn", "echo", "here", "", ""), 0, 0, _no_new_server) == []


def _no_new_server() -> NewServer:
    raise AssertionError("none is wanted")


def test_each_advisory_lock_is_a_lock_of_its_own_and_its_number_stands_in_one_place() -> None:
    numbers = [value for name, value in vars(advisory_locks).items() if name.isupper()]
    assert len(numbers) == len(set(numbers)) >= 3
    takes = re.compile(r"pg_(?:try_)?advisory_\w*lock\w*\((?P<what>[^)]*)\)\"(?P<after>[^\n]*)")
    for file in SOURCE.rglob("*.py"):
        for taken in takes.finditer(file.read_text(encoding="utf-8")):
            by_agent = taken["what"].startswith("hashtextextended")
            assert by_agent or (taken["what"] == "%s" and "(advisory_locks." in taken["after"]), (file, taken[0])


async def test_two_of_the_locks_do_not_wait_for_each_other(database_url: str) -> None:
    numbers = [value for name, value in vars(advisory_locks).items() if name.isupper()]
    connections = [await psycopg.AsyncConnection.connect(database_url) for _ in numbers]
    for connection, number in zip(connections, numbers, strict=True):
        row = await (await connection.execute("select pg_try_advisory_xact_lock(%s)", (number,))).fetchone()
        assert row == (True,)
    for connection in connections:
        await connection.close()
