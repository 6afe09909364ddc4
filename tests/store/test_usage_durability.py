"""What was held and what ended, when the database dies: each call that ended is on disk, and no hold is forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.running import until
from tests.store.ledgers import Ledgers, ask, ended
from tinyfat.domain.usage import Caps, Usage
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held
from tinyfat.store.embedded import EmbeddedPostgres

# The server outlives whoever started it, on purpose: nobody waits for it as for a child.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

FLUSHED = "select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"


async def test_the_log_is_flushed_past_a_call_before_its_end_is_said(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    async with await psycopg.AsyncConnection.connect(ledgers.url, autocommit=True) as onlooker:
        for number in range(40):
            call_id = await ledgers.held(key)
            if number % 2:
                await ledgers.first.settle([ended(call_id)])
            else:
                await ledgers.first.commit([ask(key)], [], [call_id])
            assert await (await onlooker.execute(FLUSHED)).fetchone() == (True,), f"call {number} ended before"


async def test_what_ends_is_paid_though_the_database_forgot_that_it_was_held(ledgers: Ledgers) -> None:
    """As after its death in the moment of the hold: that commit, all of it, is not there."""
    agent_id, key = await ledgers.agent(Caps(100_000, None, None, None))
    call_id = await ledgers.held(key, 5000, turn="t", conversation="c")
    kept = await ledgers.held(key, 700)
    await _forget(ledgers, call_id, agent_id, 5000)
    await ledgers.first.close()
    usage = Usage(input=5, output=2, cached=2)
    for _ in range(2):  # and once
        await ledgers.first.settle([ended(kept, Usage(1, 0)), ended(call_id, usage)])
    rows = await ledgers.rows(
        "select cost, held, turn, conversation, key_id is null, executor from calls order by held"
    )
    assert rows == [
        (300, 700, "", "", False, "relay:1"),
        (3 * 300 + 2 * 30 + 2 * 1200, 5000, "t", "c", False, "relay:1"),
    ]
    spend = await ledgers.second.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (300 + 3360, 0, 2)
    await ledgers.must_add_up()


async def test_what_was_ended_elsewhere_is_not_paid_again(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    swept, released = await ledgers.held(key, 5000), await ledgers.held(key, 700)
    await ledgers.first.release([released])
    await ledgers.rows("update holds set at = at - interval '3 hours'")
    assert await ledgers.second.sweep(60) == 1
    await ledgers.first.close()
    await ledgers.first.settle([ended(swept), ended(released)])
    spend = await ledgers.second.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (5000, 0, 1)
    await ledgers.must_add_up()


async def test_calls_under_way_are_paid_when_the_database_dies_and_comes_back(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    await postgres.start()
    ledgers = Ledgers(postgres.url)
    await ledgers.database.open()
    await ledgers.database.migrate()
    await ledgers.open()
    try:
        agent_id, key = await ledgers.agent()
        [done] = [await ledgers.held(key)]
        await ledgers.first.settle([ended(done, Usage(1, 0))])
        held = await ledgers.first.reserve([ask(key, turn="t") for _ in range(40)])
        calls = [one.call_id for one in held if isinstance(one, Held)]
        await _die(postgres)
        with pytest.raises(StoreUnavailable):
            await ledgers.first.settle([ended(call_id, Usage(1, 0)) for call_id in calls])
        await postgres.start()

        async def beats() -> bool:  # the pool's connections broke, too, and are found out one by one
            try:
                await ledgers.first.beat()
            except StoreUnavailable:
                return False
            return True

        await until(beats, 60.0, "the database answers again")
        spend = await ledgers.first.spend(agent_id)
        assert (spend.spent, spend.reserved, spend.calls) == (41 * 300, 0, 41)
        await ledgers.must_add_up()
    finally:
        await ledgers.close()
        await postgres.stop()


async def _forget(ledgers: Ledgers, call_id: str, agent_id: str, amount: int) -> None:
    await ledgers.rows("delete from holds where call_id = %s", call_id)
    await ledgers.rows("delete from turn_sums where agent_id = %s", agent_id)
    await ledgers.rows("update budgets set reserved = reserved - %s where agent_id = %s", amount, agent_id)


async def _die(postgres: EmbeddedPostgres) -> None:
    process = postgres.process()
    assert process is not None
    for one in [process, *process.children(recursive=True)]:
        one.kill()
    await asyncio.to_thread(process.wait, 10)
