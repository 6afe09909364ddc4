"""The usage ledger on the real Postgres: what each method promises."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from random import Random

import psycopg
import pytest

from tests.store.ledgers import NO_CAPS, Ledgers, ask, ended, key_number
from tinyfat.domain.usage import MANAGED_CAPS, Caps, Price, Refusal, Usage, cost
from tinyfat.ports.ledger import NotFound, StoreUnavailable
from tinyfat.ports.usage import Held, Refused
from tinyfat.store.budgets import BudgetStore
from tinyfat.store.database import Database, OneConnection, migrations
from tinyfat.store.embedded import EmbeddedPostgres
from tinyfat.store.usage import CALL_SECONDS_MAX


async def test_a_call_is_held_and_settled(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent(Caps(10_000, None, None, None))
    call_id = await ledgers.held(key, 1000, turn="t", conversation="c")
    assert (await ledgers.second.spend(agent_id)).reserved == 1000
    usage = Usage(input=5, output=2, cached=2, cache_written=1, reasoning=1)
    await ledgers.first.settle([ended(call_id, usage, latency_ms=7)])
    paid = 2 * 300 + 2 * 30 + 300 + 2 * 1200
    spend = await ledgers.second.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (paid, 0, 1)
    [row] = await ledgers.rows(
        "select cost, held, input, output, cached, cache_written, reasoning, estimated, price_source, turn, "
        "conversation, latency_ms, outcome, vendor, model, surface, alias, executor from calls"
    )
    assert row == (
        paid, 1000, 5, 2, 2, 1, 1, False, "test", "t", "c", 7, "ok", "fireworks", "m2", "chat", "main", "relay:1",
    )  # fmt: skip
    await ledgers.must_add_up()


async def test_released_nothing_is_owed(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    call_id = await ledgers.held(key, turn="t")
    await ledgers.second.release([call_id, call_id, str(uuid.uuid4())])
    await ledgers.first.settle([ended(call_id)])
    assert (await ledgers.first.spend(agent_id)) == (await ledgers.second.spend(agent_id))
    assert (await ledgers.first.spend(agent_id)).spent == (await ledgers.first.spend(agent_id)).reserved == 0
    await ledgers.must_add_up()


async def test_asked_twice_is_one_hold_settled_twice_is_one_call(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent(Caps(1500, None, None, 1))
    asked = ask(key, 1000, turn="t")
    first, again = await ledgers.first.reserve([asked, asked])
    [elsewhere] = await ledgers.second.reserve([asked])
    assert first == again == elsewhere == Held(asked.call_id, agent_id, "")
    await ledgers.first.settle([ended(asked.call_id), ended(asked.call_id)])
    await ledgers.second.settle([ended(asked.call_id, Usage(1, 0))])
    assert (await ledgers.first.spend(agent_id)).calls == 1
    [late] = await ledgers.first.reserve([ask(key, 0, call_id=asked.call_id)])
    assert isinstance(late, Refused) and late.refusal is Refusal.REPEATED
    await ledgers.must_add_up()


async def test_another_agents_call_id_is_no_hold(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    _, other = await ledgers.agent()
    call_id = await ledgers.held(key)
    [verdict] = await ledgers.first.reserve([ask(other, call_id=call_id)])
    assert isinstance(verdict, Refused) and verdict.refusal is Refusal.REPEATED
    await ledgers.must_add_up()


async def test_a_batch_is_judged_in_its_order_and_answered_in_it(ledgers: Ledgers) -> None:
    one, one_key = await ledgers.agent(Caps(1000, None, None, None))
    two, two_key = await ledgers.agent(Caps(500, None, None, None))
    verdicts = await ledgers.first.reserve(
        [ask(two_key, 400), ask(one_key, 600), ask("tfk_none", 1), ask(two_key, 200), ask(one_key, 600),
         ask(two_key, 100), ask(one_key, 400)]
    )  # fmt: skip
    agents = [v.agent_id for v in verdicts]
    assert agents == [two, one, "", two, one, two, one]
    refusals = [v.refusal if isinstance(v, Refused) else None for v in verdicts]
    assert refusals == [None, None, Refusal.UNKNOWN_KEY, Refusal.MONTH, Refusal.MONTH, None, None]
    await ledgers.must_add_up()


@pytest.mark.parametrize(
    ("caps", "asked", "refusal", "words"),
    [
        (Caps(999, None, None, None), {}, Refusal.MONTH, "this month"),
        (Caps(0, None, None, None), {"amount": 1}, Refusal.MONTH, "--month"),
        (Caps(None, 999, None, None), {}, Refusal.DAY, "today"),
        (Caps(None, None, 999, None), {"turn": "t"}, Refusal.TURN_MONEY, "one answer"),
        (Caps(None, None, None, 0), {"turn": "t"}, Refusal.TURN_CALLS, "circles"),
        (Caps(None, None, None, None, killed=True), {"amount": 0}, Refusal.KILLED, "switched off"),
    ],
)
async def test_each_cap_refuses_in_words(
    ledgers: Ledgers, caps: Caps, asked: dict[str, object], refusal: Refusal, words: str
) -> None:
    agent_id, key = await ledgers.agent(caps)
    [verdict] = await ledgers.first.reserve([ask(key, **asked)])  # type: ignore[arg-type]
    assert isinstance(verdict, Refused)
    assert (verdict.refusal, verdict.agent_id) == (refusal, agent_id)
    assert words in verdict.words and "agent1" in verdict.words
    assert (await ledgers.first.spend(agent_id)).reserved == 0
    assert (await ledgers.first.spend(agent_id)).caps == caps


async def test_a_turn_is_cut_where_it_goes_in_circles_and_another_is_not(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent(Caps(None, None, 2500, 3))
    for _ in range(2):
        await ledgers.first.settle([ended(await ledgers.held(key, 1000, turn="loop"), Usage(1, 0))])
    [dear] = await ledgers.first.reserve([ask(key, 2000, turn="loop")])
    assert isinstance(dear, Refused) and dear.refusal is Refusal.TURN_MONEY
    await ledgers.held(key, 100, turn="loop")
    [fourth] = await ledgers.second.reserve([ask(key, 0, turn="loop")])
    assert isinstance(fourth, Refused) and fourth.refusal is Refusal.TURN_CALLS
    await ledgers.held(key, 2500, turn="another")


async def test_whatever_cannot_be_told_is_refused(ledgers: Ledgers) -> None:
    _, without_budget = await ledgers.agent(None)
    destroyed, destroyed_key = await ledgers.agent()
    await ledgers.rows("update agents set state = 'destroyed' where id = %s", destroyed)
    revoked, revoked_key = await ledgers.agent()
    await ledgers.keys.revoke_all(revoked)
    keys = [without_budget, destroyed_key, revoked_key, "", "tfk_unknown"]
    verdicts = await ledgers.first.reserve([ask(key, 0) for key in keys])
    assert [v.refusal for v in verdicts if isinstance(v, Refused)] == [Refusal.UNKNOWN_KEY] * len(keys)
    for column in ("month_cap", "day_cap", "turn_cap", "turn_calls", "killed", "month_spent", "reserved"):
        with pytest.raises(psycopg.errors.NotNullViolation):
            await ledgers.rows(f"update budgets set {column} = null")
    with pytest.raises(NotFound):
        await ledgers.first.spend(str(uuid.uuid4()))


async def test_revoking_and_the_kill_switch_are_effective_at_once(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    second_key = key_number(999)
    await ledgers.keys.add(agent_id, second_key, "laptop")
    under_way = await ledgers.held(key)
    await ledgers.keys.revoke(agent_id, (await ledgers.keys.list(agent_id))[0].id)
    old, new = await ledgers.first.reserve([ask(key), ask(second_key)])
    assert isinstance(old, Refused) and isinstance(new, Held)
    await ledgers.budgets.kill(agent_id, True)
    [killed] = await ledgers.second.reserve([ask(second_key)])
    assert isinstance(killed, Refused) and killed.refusal is Refusal.KILLED
    await ledgers.first.settle([ended(under_way)])  # what was under way is paid nevertheless
    await ledgers.budgets.kill(agent_id, False)
    assert isinstance((await ledgers.second.reserve([ask(second_key)]))[0], Held)
    await ledgers.must_add_up()


async def test_day_and_month_begin_anew_by_utc(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent(Caps(3000, 1000, None, None))
    ledgers.now = datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC)
    await ledgers.first.settle([ended(await ledgers.held(key, 1000), Usage(0, 1), price=Price(0, 1000, 0, 0, "x"))])
    assert isinstance((await ledgers.first.reserve([ask(key)]))[0], Refused)
    ledgers.now = datetime(2026, 11, 30, 0, 0, 0, tzinfo=UTC)
    over_midnight = await ledgers.held(key, 1000)
    assert (await ledgers.first.spend(agent_id)).spent == 1000
    ledgers.now = datetime(2026, 12, 1, 0, 0, 0, tzinfo=UTC)
    spend = await ledgers.first.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (0, 1000, 0)
    [verdict] = await ledgers.first.reserve([ask(key, 1)])
    assert isinstance(verdict, Refused)  # what is held from before midnight counts today
    await ledgers.first.settle([ended(over_midnight, Usage(0, 1), price=Price(0, 900, 0, 0, "x"))])
    assert (await ledgers.first.spend(agent_id)).spent == 900
    await ledgers.must_add_up()
    ledgers.now = datetime(2026, 11, 30, 12, tzinfo=UTC)  # a clock that was wrong is put back
    assert (await ledgers.first.spend(agent_id)).spent == 1000
    await ledgers.held(key, 10)
    await ledgers.must_add_up()


async def test_a_price_that_changes_meanwhile_does_not_change_the_call(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    before = await ledgers.held(key, 10_000, price=Price(1, 1, 1, 1, "old"))
    after = await ledgers.held(key, 10_000, price=Price(2, 2, 2, 2, "new"))
    other = await ledgers.held(key, 10_000)
    elsewhere = ended(other, Usage(10, 0), vendor="openai", model="gpt", price=Price(5, 5, 5, 5, "fallback"))
    await ledgers.first.settle([ended(before, Usage(10, 0)), ended(after, Usage(10, 0)), elsewhere])
    rows = await ledgers.rows("select price_source, cost, vendor, model from calls order by cost")
    assert rows == [("old", 10, "fireworks", "m2"), ("new", 20, "fireworks", "m2"), ("fallback", 50, "openai", "gpt")]
    assert (await ledgers.first.spend(agent_id)).spent == 80


async def test_the_sums_of_long_ended_turns_are_forgotten(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    await ledgers.first.settle([ended(await ledgers.held(key, turn="over"))])
    await ledgers.held(key, turn="open")
    assert await ledgers.first.forget_turns() == 0
    ledgers.now = datetime(2026, 11, 28, tzinfo=UTC)
    assert await ledgers.first.forget_turns() == 1
    assert await ledgers.rows("select turn from turn_sums") == [("open",)]
    assert (await ledgers.first.spend(agent_id)).calls == 1


async def test_agents_from_before_the_ledger_get_the_managed_budget(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database older")
    url = postgres.url.replace("/postgres?", "/older?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(migrations()[1][1].encode())
        connection.execute("create table schema_versions (version int primary key, name text, applied_at timestamptz)")
        connection.execute("insert into schema_versions values (1, 'first')")
        connection.execute(
            "insert into agents (name, owner, runtime, machine_kind, state) values "
            "('ada', 'o@x.example', 'echo', 'process', 'ready'), ('bob', 'o@x.example', 'echo', 'process', 'destroyed')"
        )
    database = Database(url, 2)
    await database.open()
    await database.migrate()
    async with database.transaction() as session:
        cursor = await session.execute("select agent_id::text, name from budgets join agents on id = agent_id")
        [(agent_id, name)] = await cursor.fetchall()
    assert name == "ada" and await BudgetStore(database).caps(agent_id) == MANAGED_CAPS
    await database.close()


async def test_the_ledger_of_calls_is_append_only(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    await ledgers.first.settle([ended(await ledgers.held(key))])
    for statement in ("update calls set cost = 0", "delete from calls", "truncate calls"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            await ledgers.rows(statement)


async def test_the_dead_are_swept_at_the_whole_amount_the_living_are_not(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    ledgers.now = None
    await ledgers.second.reserve([ask(key, 700, turn="t")])
    living = await ledgers.held(key, 50)
    assert await ledgers.first.sweep(60.0) == 0
    await ledgers.second.leave()
    assert await ledgers.first.sweep(60.0) == 0  # too young: its process may be about to say that it lives
    await ledgers.rows("update holds set at = at - interval '61 s'")
    assert await ledgers.first.sweep(60.0) == 1
    spend = await ledgers.first.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (700, 50, 1)
    assert await ledgers.rows("select outcome, cost, estimated from calls") == [("swept", 700, True)]
    await ledgers.first.settle([ended(living)])
    await ledgers.must_add_up()


async def test_a_silent_relay_and_a_forgotten_hold_are_swept(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    ledgers.now = None
    await ledgers.held(key, 1)
    await ledgers.second.reserve([ask(key, 2)])
    await ledgers.rows("update executors set heartbeat_at = now() - interval '61 s' where id = 'relay:2'")
    await ledgers.rows("update holds set at = at - interval '61 s'")
    assert await ledgers.first.sweep(60.0) == 1
    await ledgers.rows("update holds set at = at - make_interval(secs => %s)", CALL_SECONDS_MAX)
    assert await ledgers.first.sweep(60.0) == 1
    await ledgers.must_add_up()


async def test_what_the_database_missed_is_made_good_by_the_next_beat(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    settled, released = await ledgers.held(key, 100), await ledgers.held(key, 100)
    await ledgers.first.close()
    ledgers.first._commits = OneConnection("postgresql:///?host=/nowhere")
    lost = ask(key, 100)
    for work in (
        ledgers.first.settle([ended(settled, Usage(1, 0))]),
        ledgers.first.release([released]),
        ledgers.first.reserve([lost]),
    ):
        with pytest.raises(StoreUnavailable):
            await work
    with pytest.raises(StoreUnavailable, match="another id"):
        await ledgers.first.reserve([lost])
    await ledgers.second.reserve([lost])  # as if the commit had gone through and only its answer was lost
    ledgers.first._commits = ledgers.second._commits
    await ledgers.first.beat()
    spend = await ledgers.second.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (300, 0, 1)


async def test_wild_words_and_counts_spoil_no_batch(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent()
    wild = ask(key, turn="\x00\ud800" + "x" * 10_000, conversation="' || \\", alias="\u202e\x00")
    tame = ask(key)
    verdicts = await ledgers.first.reserve([wild, tame])
    assert all(isinstance(v, Held) for v in verdicts)
    await ledgers.first.settle([ended(wild.call_id, Usage(2**80, -5, cached=2**70), model="\x00"), ended(tame.call_id)])
    assert len(await ledgers.rows("select call_id from calls")) == 2
    await ledgers.must_add_up()
    with pytest.raises(ValueError, match="cannot be reserved"):
        await ledgers.first.reserve([ask(key, -1)])


async def test_the_statement_and_the_rule_agree_on_the_cost(ledgers: Ledgers) -> None:
    """The arithmetic stands twice, in SQL and in domain/usage: here they meet."""
    _, key = await ledgers.agent()
    price, random = Price(301, 1203, 31, 377, "x", 611), Random(7)
    asked = [ask(key, 0, price=price) for _ in range(200)]
    usages = [
        Usage(*(random.choice((0, 1, random.randrange(10**6))) for _ in range(4)), cache_written_1h=random.randrange(9))
        for _ in asked
    ]
    await ledgers.first.reserve(asked)
    await ledgers.first.settle([ended(a.call_id, u) for a, u in zip(asked, usages, strict=True)])
    charged = dict(await ledgers.rows("select call_id::text, cost from calls"))
    assert charged == {a.call_id: cost(u, price) for a, u in zip(asked, usages, strict=True)}


async def test_one_mail_each_at_the_levels_and_at_the_cap(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent(Caps(1000, None, None, None))
    price = Price(1, 0, 0, 0, "x")

    async def spend(amount: int) -> list[str]:
        await ledgers.first.settle([ended(await ledgers.held(key, amount), Usage(amount, 0), price=price)])
        return [r[0] for r in await ledgers.rows("select kind from usage_alerts order by at, kind")]

    assert await spend(499) == []
    assert await spend(1) == ["50"]
    assert await spend(100) == ["50"]
    ledgers.now = datetime(2026, 11, 21, tzinfo=UTC)
    assert await spend(250) == ["50", "80"]
    ledgers.now = datetime(2026, 11, 22, tzinfo=UTC)
    for _ in range(3):
        [verdict] = await ledgers.first.reserve([ask(key, 151)])
        assert isinstance(verdict, Refused)
    assert await spend(150) == ["50", "80", "100"]  # refused and spent: the same news
    ledgers.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert await spend(900) == ["50", "80", "100", "80"]  # a new month; the highest only


async def test_a_cap_that_was_raised_has_levels_of_its_own(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent(Caps(1000, None, None, None))
    price = Price(1, 0, 0, 0, "x")

    async def spend(amount: int) -> list[tuple[str, int]]:
        await ledgers.first.settle([ended(await ledgers.held(key, amount), Usage(amount, 0), price=price)])
        return await ledgers.rows("select kind, cap from usage_alerts order by at, cap, kind")

    told = [("100", 1000)]
    assert await spend(1000) == told
    for raised in (4000, 4000):  # to set it to what it is changes nothing
        await ledgers.budgets.change(agent_id, {"month": raised})
        [verdict] = await ledgers.first.reserve([ask(key, raised)])
        assert isinstance(verdict, Refused)
        told = [("100", 1000), ("100", 4000)]
        assert await ledgers.rows("select kind, cap from usage_alerts order by at, cap, kind") == told
    await ledgers.budgets.change(agent_id, {"month": 10_000})
    assert await spend(4000) == [*told, ("50", 10_000)]
    assert await spend(1) == [*told, ("50", 10_000)]
    assert sorted(await spend(4999)) == sorted([*told, ("50", 10_000), ("100", 10_000)])


ONE_AND_OTHER = ("revoke", "budget", "turn", "byok")


@pytest.mark.parametrize("what", ONE_AND_OTHER)
async def test_one_agents_key_never_touches_another(ledgers: Ledgers, what: str) -> None:
    one, key = await ledgers.agent(Caps(1000, 1000, 1000, 1))
    other, other_key = await ledgers.agent(Caps(1000, 1000, 1000, 1))
    if what == "revoke":
        with pytest.raises(NotFound):
            await ledgers.keys.revoke(one, (await ledgers.keys.list(other))[0].id)
    if what == "byok":
        await ledgers.rows("update budgets set byok_vendors = '{fireworks}' where agent_id = %s", other)
    before = await ledgers.rows("select * from budgets where agent_id = %s", other)
    [held] = await ledgers.first.reserve([ask(key, 1000, turn="same")])
    assert held == Held(held.call_id, one, "")  # type: ignore[union-attr]
    await ledgers.first.reserve([ask(key, 1000, turn="same")])
    assert await ledgers.rows("select * from budgets where agent_id = %s", other) == before
    [own] = await ledgers.first.reserve([ask(other_key, 1000, turn="same")])
    assert own == Held(own.call_id, other, "fireworks" if what == "byok" else "")  # type: ignore[union-attr]
    await ledgers.first.settle([ended(held.call_id)])  # type: ignore[union-attr]
    assert (await ledgers.first.spend(other)).reserved == 1000
    await ledgers.must_add_up()


async def test_whose_key_a_call_is_made_with(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent(NO_CAPS)
    await ledgers.rows("update budgets set byok_vendors = '{openai,anthropic}' where agent_id = %s", agent_id)
    verdicts = await ledgers.first.reserve([ask(key, table_vendor=v) for v in ("anthropic", "openai", "fireworks")])
    assert [v.byok_vendor for v in verdicts if isinstance(v, Held)] == ["anthropic", "openai", "openai"]
    await ledgers.first.settle([ended(v.call_id) for v in verdicts if isinstance(v, Held)])
    assert {r[0] for r in await ledgers.rows("select byok_vendor from calls")} == {"anthropic", "openai"}


@pytest.mark.parametrize(
    ("assumed", "brought"), [("anthropic", "{}"), ("", "{anthropic}"), ("openai", "{anthropic,openai}")]
)
async def test_by_a_price_that_is_not_to_be_paid_nothing_is_judged(
    ledgers: Ledgers, assumed: str, brought: str
) -> None:
    """The owner's keys changed since the relay last heard: too dear for the cap by the one price, well within it by the
    other."""
    agent_id, key = await ledgers.agent(Caps(1000, None, None, None))
    await ledgers.rows("update budgets set byok_vendors = %s where agent_id = %s", brought, agent_id)
    for amount in (1, 1001):
        [verdict] = await ledgers.first.reserve([ask(key, amount, owner_vendor=assumed)])
        assert isinstance(verdict, Refused) and verdict.refusal is Refusal.OTHER_KEY
        assert verdict.byok_vendor == ("" if brought == "{}" else "anthropic")
    assert await ledgers.rows("select count(*) from usage_alerts") == [(0,)]
    assert await ledgers.rows("select reserved, warned from budgets where agent_id = %s", agent_id) == [(0, 0)]
    await ledgers.held(key, 1000, owner_vendor=verdict.byok_vendor)
    await ledgers.must_add_up()
