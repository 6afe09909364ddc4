"""Many relays at once on one budget: the cap holds at every commit, and the sums are right to the nano-dollar."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.machine_speed import patient
from tests.store.ledgers import Ledgers, ask, ended
from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, Caps, Price, Usage
from tinyfat.ports.usage import Held

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
RELAYS = 3
CALLS = 334  # each
PROCESS_SECONDS_MAX = 120.0

# At every change of the row, by whichever connection: a violation aborts that commit and is written down.
_WITNESS = (
    "create function witness() returns trigger language plpgsql as $$ begin "
    "if new.month_spent + new.reserved > new.month_cap then raise exception 'over the cap'; end if; "
    "return new; end $$; create trigger witness before update on budgets for each row execute function witness()"
)


async def test_a_thousand_calls_at_once_against_one_dollar(ledgers: Ledgers) -> None:
    """Three relay processes, one of them killed in the middle; then the sweep."""
    agent_id, key = await ledgers.agent(Caps(NANODOLLARS_PER_DOLLAR, None, None, None))
    await ledgers.rows(_WITNESS)
    ledgers.now = None
    relays = [await _relay(ledgers.url, key, seed) for seed in range(RELAYS)]
    first_line = await relays[0].stdout.readline()  # type: ignore[union-attr]
    assert first_line == b"begun\n"
    relays[0].kill()
    async with asyncio.timeout(patient(PROCESS_SECONDS_MAX)):
        outputs = [await relay.communicate() for relay in relays]
    assert [relay.returncode for relay in relays[1:]] == [0, 0], outputs
    counts = [
        dict(zip(("made", "refused", "spent"), map(int, out.split()[-3:]), strict=True)) for out, _ in outputs[1:]
    ]
    await ledgers.must_add_up()
    await ledgers.rows("update holds set at = at - interval '61 s'")
    await ledgers.rows("update executors set heartbeat_at = now() - interval '61 s'")
    await ledgers.second.sweep(60.0)
    await ledgers.must_add_up()
    spend = await ledgers.second.spend(agent_id)
    [(by_rows,)] = await ledgers.rows("select sum(cost)::bigint from calls")
    assert spend.reserved == 0 and spend.spent == by_rows <= NANODOLLARS_PER_DOLLAR
    # What the living relays say they paid is what the ledger has of them.
    theirs = await ledgers.rows(
        "select executor, count(*), sum(cost)::bigint from calls where executor <> 'relay:0' and outcome = 'ok' "
        "group by 1 order by 1"
    )
    assert [(c["made"], c["spent"]) for c in counts] == [(n, s) for _, n, s in theirs]
    assert sum(c["refused"] for c in counts) > 0, "the cap was never reached: this test shows nothing"


async def _relay(url: str, key: str, seed: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store.one_relay", str(seed), str(CALLS),
        env={**os.environ, "LEDGER_URL": url, "LEDGER_KEY": key, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_batches_of_many_agents_in_any_order_never_wait_for_each_other(ledgers: Ledgers) -> None:
    agents = [await ledgers.agent() for _ in range(6)]
    random = Random(3)

    async def relay(number: int) -> int:
        ledger = (ledgers.first, ledgers.second)[number % 2]
        settled = 0
        for _ in range(20):
            keys = [key for _, key in random.sample(agents, 5)]
            held = [
                v.call_id for v in await ledger.reserve([ask(key, turn="t") for key in keys]) if isinstance(v, Held)
            ]
            random.shuffle(held)
            await ledger.settle([ended(call_id) for call_id in held[:3]])
            await ledger.release(held[3:])
            settled += 3
        return settled

    async with asyncio.timeout(patient(60)):
        assert sum(await asyncio.gather(*(relay(n) for n in range(4)))) == 4 * 20 * 3
    assert await ledgers.rows("select call_id from holds") == []
    await ledgers.must_add_up()


async def test_a_call_is_settled_or_swept_or_released_never_two_of_them(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    calls = [await ledgers.held(key, 5) for _ in range(60)]
    await ledgers.rows("update holds set at = at - interval '3 h'")
    await asyncio.gather(
        ledgers.first.settle([ended(c, Usage(1, 0), price=Price(3, 0, 0, 0, "x")) for c in calls]),
        ledgers.second.sweep(1.0),
        ledgers.first.release(calls[:30]),
        ledgers.second.release(calls[20:50]),
        ledgers.second.settle([ended(c, Usage(1, 0), price=Price(3, 0, 0, 0, "x")) for c in reversed(calls)]),
    )
    assert (await ledgers.first.spend(agent_id)).reserved == 0
    await ledgers.must_add_up()


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserve", "reserve", "reserve", "settle", "settle", "release", "crash", "sweep", "night", "kill"]
        ),
        st.integers(0, 2),
        st.integers(0, 400),
    ),
    min_size=5,
    max_size=40,
)


@settings(
    max_examples=25,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=_STEPS)
def test_any_interleaving_keeps_every_sum_and_cap(database_url: str, steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(_interleaving(database_url, steps))


async def _interleaving(url: str, steps: list[tuple[str, int, int]]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter table calls disable trigger calls_append_only")
        connection.execute("truncate calls, holds, turn_sums, usage_alerts, budgets, relay_keys, agents cascade")
    ledgers = Ledgers(url)
    await ledgers.open()
    try:
        await _Model(ledgers).run(steps)
    finally:
        await ledgers.close()


class _Model:
    """What the ledger should say, kept beside it in the plainest way."""

    def __init__(self, ledgers: Ledgers) -> None:
        self.ledgers = ledgers
        self.keys: list[str] = []
        self.ids: list[str] = []
        self.open: list[dict[str, int | str]] = []  # call, agent, amount, relay
        self.paid: list[tuple[int, datetime, int]] = []  # agent, when, cost
        self.killed = [False] * 3
        self.caps = Caps(1000, 600, 500, 8)

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        for _ in range(3):
            agent_id, key = await self.ledgers.agent(self.caps)
            self.ids.append(agent_id)
            self.keys.append(key)
        for action, agent, amount in steps:
            await getattr(self, action)(agent, amount)
            await self.check()

    def sums(self, agent: int) -> tuple[int, int, int]:
        """(month, day, reserved)"""
        now = self.ledgers.now
        assert now is not None
        month = sum(c for a, at, c in self.paid if a == agent and (at.year, at.month) == (now.year, now.month))
        day = sum(c for a, at, c in self.paid if a == agent and at.date() == now.date())
        return month, day, sum(int(h["amount"]) for h in self.open if h["agent"] == agent)

    async def reserve(self, agent: int, amount: int) -> None:
        relay = amount % 2
        ledger = (self.ledgers.first, self.ledgers.second)[relay]
        [verdict] = await ledger.reserve([ask(self.keys[agent], amount)])
        month, day, held = self.sums(agent)
        allowed = not self.killed[agent] and month + held + amount <= 1000 and day + held + amount <= 600
        assert isinstance(verdict, Held) == allowed, (verdict, month, day, held, amount)
        if isinstance(verdict, Held):
            assert verdict.agent_id == self.ids[agent]
            self.open.append({"call": verdict.call_id, "agent": agent, "amount": amount, "relay": relay})

    async def settle(self, agent: int, amount: int) -> None:
        if self.open:
            hold = self.open.pop(amount % len(self.open))
            cost = int(hold["amount"]) * (amount % 5) // 4
            price = Price(1, 0, 0, 0, "x")
            await self.ledgers.first.settle([ended(str(hold["call"]), Usage(cost, 0), price=price)])
            self.pay(hold, cost)

    async def release(self, agent: int, amount: int) -> None:
        if self.open:
            hold = self.open.pop(amount % len(self.open))
            await self.ledgers.second.release([str(hold["call"])])
            await self.ledgers.first.settle([ended(str(hold["call"]))])  # too late: nothing

    async def crash(self, agent: int, amount: int) -> None:
        """The second relay's process is gone; what it held is old by the time of the next sweep."""
        await self.ledgers.second.leave()
        await self.ledgers.rows("update holds set at = at - interval '10 min' where executor = 'relay:2'")

    async def sweep(self, agent: int, amount: int) -> None:
        alive = await self.ledgers.rows("select id from executors where id = 'relay:2'")
        left = [] if alive else [h for h in self.open if h["relay"] == 1]
        # Reserved by a process that had already left, and still young: not yet anybody's to sweep.
        young = {r[0] for r in await self.ledgers.rows(
            "select call_id::text from holds where at > %s::timestamptz - interval '60 s'", self.ledgers.now
        )}  # fmt: skip
        left = [h for h in left if h["call"] not in young]
        assert await self.ledgers.first.sweep(60.0) == len(left)
        for hold in left:
            self.open.remove(hold)
            self.pay(hold, int(hold["amount"]))
        await self.ledgers.second.beat()

    async def night(self, agent: int, amount: int) -> None:
        """A quarter of a month goes by, within which every hold must survive: no relay is silent, none is swept."""
        assert self.ledgers.now is not None
        self.ledgers.now += timedelta(days=1 + amount % 9)
        await self.ledgers.rows("update holds set at = %s", self.ledgers.now)

    async def kill(self, agent: int, amount: int) -> None:
        self.killed[agent] = not self.killed[agent]
        await self.ledgers.budgets.kill(self.ids[agent], self.killed[agent])

    def pay(self, hold: dict[str, int | str], cost: int) -> None:
        assert self.ledgers.now is not None
        self.paid.append((int(hold["agent"]), self.ledgers.now, cost))

    async def check(self) -> None:
        await self.ledgers.must_add_up()
        for agent, agent_id in enumerate(self.ids):
            month, _, held = self.sums(agent)
            spend = await self.ledgers.second.spend(agent_id)
            assert (spend.spent, spend.reserved) == (month, held)
            assert month + held <= 1000 or not month  # what is held over the end of a month was allowed in the old one
