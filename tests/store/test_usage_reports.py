"""Reports are sums of the ledger's rows: by day, model and turn; who paid is told apart."""

from __future__ import annotations

from datetime import UTC, date, datetime

from tests.store.ledgers import Ledgers, ended
from tinyfat.domain.usage import Price, Usage
from tinyfat.ports.usage import UsageBy
from tinyfat.store.servers import ServerStore
from tinyfat.store.usage_reports import UsageReportStore

PRICE = Price(1, 0, 0, 0, "x")


async def test_sums_by_day_model_turn_and_month(ledgers: Ledgers) -> None:
    one, key = await ledgers.agent()
    two, other_key = await ledgers.agent()
    await ledgers.rows("update budgets set byok_vendors = '{openai}' where agent_id = %s", two)
    for day, turn, model, amount in ((19, "a", "m1", 10), (20, "a", "m2", 20), (20, "", "m1", 40)):
        ledgers.now = datetime(2026, 11, day, 12, amount, tzinfo=UTC)
        call = await ledgers.held(key, 100, turn=turn, model=model)
        await ledgers.first.settle([ended(call, Usage(amount, 1, cached=0, estimated=day == 19), price=PRICE)])
    ledgers.now = datetime(2026, 12, 1, tzinfo=UTC)
    await ledgers.first.settle([ended(await ledgers.held(other_key, 100), Usage(5, 0), price=PRICE)])
    reports = UsageReportStore(ledgers.database)

    async def by(what: UsageBy, since: date = date(2026, 11, 1)) -> list[tuple[str, int, int, int]]:
        lines = await reports.of_agent(one, what, since, 10)
        return [(line.of, line.calls, line.paid_by_us, line.estimated) for line in lines]

    assert await by(UsageBy.DAY) == [("2026-11-20", 2, 60, 0), ("2026-11-19", 1, 10, 1)]
    assert await by(UsageBy.MODEL) == [("fireworks/m1", 2, 50, 1), ("fireworks/m2", 1, 20, 0)]
    assert await by(UsageBy.TURN, date(2026, 11, 20)) == [("", 1, 40, 0), ("a", 1, 20, 0)]
    assert len(await reports.of_agent(one, UsageBy.DAY, date(2026, 1, 1), 1)) == 1
    month = [(m.agent_name, m.calls, m.paid_by_us, m.paid_by_owner) for m in await reports.month(date(2026, 11, 1))]
    assert month == [("agent1", 3, 70, 0), ("agent2", 0, 0, 0)]
    await ledgers.rows("update agents set state = 'destroyed', state_since = '2026-11-25' where id = %s", one)
    month = [(m.agent_name, m.calls, m.paid_by_us, m.paid_by_owner) for m in await reports.month(date(2026, 12, 1))]
    assert month == [("agent2", 1, 0, 5)]
    assert [m.agent_name for m in await reports.month(date(2026, 11, 1))] == ["agent1", "agent2"]


async def test_the_stand_in_for_a_model_costs_nothing(ledgers: Ledgers) -> None:
    one, key = await ledgers.agent()
    ledgers.now = datetime(2026, 11, 19, 12, tzinfo=UTC)
    call = await ledgers.held(key, 100)
    await ledgers.first.settle([ended(call, Usage(10, 1), price=PRICE)])
    reports = UsageReportStore(ledgers.database)
    [before] = await reports.month(date(2026, 11, 1))
    await ledgers.rows("alter table calls disable trigger all")
    await ledgers.rows("update calls set vendor = 'stand-in' where agent_id = %s", one)
    [after] = await reports.month(date(2026, 11, 1))
    assert (before.calls, before.paid_by_us, after.calls, after.paid_by_us) == (1, 10, 1, 0)


async def test_what_a_machine_that_is_gone_has_cost_is_kept(ledgers: Ledgers) -> None:
    one, _ = await ledgers.agent()
    await ledgers.rows(
        "insert into machines (id, agent_id, kind, host, token_hash, monthly_nanodollars, pool) values "
        "(gen_random_uuid(), %s, 'cloud', '', '', 5, ''), (gen_random_uuid(), null, 'cloud', '', 'b', 7, 'ready'), "
        "(gen_random_uuid(), null, 'process', '', 'c', 0, 'ready')",
        one,
    )
    await ledgers.rows("delete from machines")
    gone = await ServerStore(ledgers.database).gone(date(2026, 11, 1))
    assert sorted((one.agent_id != "", one.monthly_nanodollars) for one in gone) == [(False, 7), (True, 5)]
    assert all(machine.since <= machine.ended_at for machine in gone)
