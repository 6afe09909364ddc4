"""What every usage ledger promises (ports/usage.py): the one over Postgres, and its twin in memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from tests.store.conftest import database_url, postgres
from tests.store.ledgers import NO_CAPS, PRICE, Ledgers, ask, ended, key_number
from tinyfat.domain.relay_keys import key_hash
from tinyfat.domain.usage import Caps, Refusal, Usage, cost
from tinyfat.drivers.usage.memory import MemoryUsageLedger
from tinyfat.ports.usage import Held, Refused, UsageLedger

__all__ = ["database_url", "postgres"]  # fixtures


@dataclass(frozen=True, slots=True)
class World:
    ledger: UsageLedger
    agent: Callable[[Caps], Awaitable[tuple[str, str]]]  # (id, key)
    owner_pays: Callable[
        [str, str], Awaitable[None]
    ]  # the agent's calls go to this vendor on its owner's key; "": ours


@pytest.fixture(params=["memory", "postgres"])
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    name: str = request.param
    return name, request.getfixturevalue("database_url") if name == "postgres" else ""


@pytest.fixture
async def world(kind: tuple[str, str]) -> AsyncIterator[World]:
    if kind[0] == "memory":
        yield _memory()
        return
    ledgers = Ledgers(kind[1])
    await ledgers.open()

    async def owner_pays(agent_id: str, vendor: str) -> None:
        vendors = [vendor] if vendor else []
        await ledgers.rows("update budgets set byok_vendors = %s where agent_id = %s", vendors, agent_id)

    yield World(ledgers.first, ledgers.agent, owner_pays)
    await ledgers.close()


def _memory() -> World:
    ledger = MemoryUsageLedger()
    keys = iter(range(1, 100))

    async def agent(caps: Caps) -> tuple[str, str]:
        name, key = str(uuid.uuid4()), key_number(next(keys))
        ledger.add(name, key_hash(key), caps)
        return name, key

    async def owner_pays(agent_id: str, vendor: str) -> None:
        ledger.paid_by(agent_id, vendor)

    return World(ledger, agent, owner_pays)


async def _one(world: World, key: str, amount: int = 1000, turn: str = "") -> Held | Refused:
    [verdict] = await world.ledger.reserve([ask(key, amount, turn=turn)])
    return verdict


async def test_what_is_held_is_reserved_and_what_is_settled_is_spent(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    held = await _one(world, key, 5000)
    assert isinstance(held, Held)
    assert held.agent_id == agent_id
    spend = await world.ledger.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (0, 5000, 0)
    usage = Usage(100, 20, cached=60)
    await world.ledger.settle([ended(held.call_id, usage)])
    spend = await world.ledger.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (cost(usage, PRICE), 0, 1)


async def test_a_hold_ends_once(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    held = await _one(world, key)
    assert isinstance(held, Held)
    await world.ledger.settle([ended(held.call_id)])
    await world.ledger.settle([ended(held.call_id, Usage(9, 9))])
    await world.ledger.release([held.call_id])
    spend = await world.ledger.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (1500, 0, 1)


async def test_what_is_released_is_not_owed(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    held = await _one(world, key)
    assert isinstance(held, Held)
    await world.ledger.release([held.call_id])
    await world.ledger.settle([ended(held.call_id)])
    spend = await world.ledger.spend(agent_id)
    assert (spend.spent, spend.reserved, spend.calls) == (0, 0, 0)


async def test_another_vendor_is_paid_its_own_price(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    held = await _one(world, key)
    assert isinstance(held, Held)
    dear = replace(PRICE, input=7000)
    await world.ledger.settle([ended(held.call_id, Usage(1, 0), vendor="other", model="o", price=dear)])
    assert (await world.ledger.spend(agent_id)).spent == 7000


async def test_the_same_call_asked_twice_is_one_hold(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    asked = ask(key, 1000)
    verdicts = [(await world.ledger.reserve([asked]))[0] for _ in range(2)]
    assert all(isinstance(verdict, Held) for verdict in verdicts)
    assert (await world.ledger.spend(agent_id)).reserved == 1000


async def test_a_batch_is_judged_in_order_each_after_those_before(world: World) -> None:
    _, key = await world.agent(replace(NO_CAPS, month=2500))
    verdicts = await world.ledger.reserve([ask(key, 1000), ask(key, 1000), ask(key, 1000), ask(key, 500)])
    assert [isinstance(verdict, Held) for verdict in verdicts] == [True, True, False, True]
    assert isinstance(verdicts[2], Refused)
    assert verdicts[2].refusal is Refusal.MONTH
    assert "$" in verdicts[2].words


@pytest.mark.parametrize(
    ("caps", "refusal"),
    [
        (replace(NO_CAPS, killed=True), Refusal.KILLED),
        (replace(NO_CAPS, month=1500), Refusal.MONTH),
        (replace(NO_CAPS, day=1500), Refusal.DAY),
        (replace(NO_CAPS, turn=1500), Refusal.TURN_MONEY),
        (replace(NO_CAPS, turn_calls=1), Refusal.TURN_CALLS),
    ],
)
async def test_each_cap_refuses(world: World, caps: Caps, refusal: Refusal) -> None:
    agent_id, key = await world.agent(caps)
    verdicts = [await _one(world, key, 1000, turn="t") for _ in range(2)]
    last = verdicts[-1]
    assert isinstance(last, Refused)
    assert (last.refusal, last.agent_id) == (refusal, agent_id)
    assert last.words


async def test_an_unknown_key_opens_nothing(world: World) -> None:
    await world.agent(NO_CAPS)
    verdict = await _one(world, key_number(77))
    assert isinstance(verdict, Refused)
    assert verdict.refusal is Refusal.UNKNOWN_KEY


INCLUDED = replace(NO_CAPS, month=2500, included=True)


async def test_what_we_include_does_not_bound_what_the_owner_pays(world: World) -> None:
    agent_id, key = await world.agent(INCLUDED)
    await world.owner_pays(agent_id, "anthropic")
    held = await _one(world, key, 1_000_000)
    assert isinstance(held, Held) and held.byok_vendor == "anthropic"
    [stale] = await world.ledger.commit([ask(key, 10**9, owner_vendor="")], [], [])
    assert isinstance(stale, Refused) and (stale.refusal, stale.byok_vendor) == (Refusal.OTHER_KEY, "anthropic")
    [known] = await world.ledger.commit([ask(key, owner_vendor="anthropic")], [], [])
    assert isinstance(known, Held)
    await world.ledger.commit([], [], [known.call_id])
    await world.ledger.settle([ended(held.call_id, Usage(1000, 100))])
    # The owner's key is gone, and we pay again: as much as we include, whatever the owner has spent.
    await world.owner_pays(agent_id, "")
    verdicts = [await _one(world, key, 1000) for _ in range(3)]
    assert [isinstance(verdict, Held) for verdict in verdicts] == [True, True, False]
    assert isinstance(verdicts[2], Refused) and verdicts[2].refusal is Refusal.MONTH
    assert (await world.ledger.spend(agent_id)).spent == cost(Usage(1000, 100), PRICE)  # people see all of it


@pytest.mark.parametrize(
    ("caps", "refusal"),
    [
        (replace(INCLUDED, included=False), Refusal.MONTH),
        (replace(INCLUDED, day=2500), Refusal.DAY),
        (replace(INCLUDED, turn=2500), Refusal.TURN_MONEY),
        (replace(INCLUDED, turn_calls=2), Refusal.TURN_CALLS),
        (replace(INCLUDED, killed=True), Refusal.KILLED),
    ],
)
async def test_caps_that_somebody_set_hold_on_the_owners_key_too(world: World, caps: Caps, refusal: Refusal) -> None:
    agent_id, key = await world.agent(caps)
    await world.owner_pays(agent_id, "anthropic")
    last = [await _one(world, key, 1000, turn="t") for _ in range(3)][-1]
    assert isinstance(last, Refused) and last.refusal is refusal


async def test_what_is_written_to_the_cache_for_an_hour_has_its_own_price(world: World) -> None:
    agent_id, key = await world.agent(NO_CAPS)
    price = replace(PRICE, cache_written=375, cache_written_1h=600)
    held = [await _one(world, key) for _ in range(2)]
    assert isinstance(held[0], Held) and isinstance(held[1], Held)
    usage = Usage(100, 0, cached=10, cache_written=50, cache_written_1h=20)
    await world.ledger.settle([ended(held[0].call_id, usage, price=price)])
    spent = (await world.ledger.spend(agent_id)).spent
    assert spent == 40 * 300 + 10 * 30 + 30 * 375 + 20 * 600 == cost(usage, price)
    await world.ledger.settle([ended(held[1].call_id, usage)])  # a price without one: as any other writing
    assert (await world.ledger.spend(agent_id)).spent - spent == cost(usage, PRICE)


async def test_near_a_cap_what_is_left_is_held_where_it_is_enough(world: World) -> None:
    """Of every cap the nearest counts; at less than the least nothing is held."""
    agent_id, key = await world.agent(replace(NO_CAPS, month=10_000, day=9_000, turn=8_000))
    for turn, amount, least, granted in (
        ("t1", 5_000, 1_000, 5_000), ("t1", 5_000, 1_000, 3_000), ("t2", 5_000, 1_000, 1_000),
        ("t3", 5_000, 1, None), ("", 5_000, 5_000, None),
    ):  # fmt: skip
        [verdict] = await world.ledger.reserve([replace(ask(key, amount, turn=turn), least=least)])
        if granted is None:
            assert isinstance(verdict, Refused) and verdict.refusal is Refusal.DAY
        else:
            assert isinstance(verdict, Held) and verdict.amount == granted
    assert (await world.ledger.spend(agent_id)).reserved == 9_000


async def test_a_hold_that_is_asked_for_again_is_as_large_as_it_was(world: World) -> None:
    _, key = await world.agent(replace(NO_CAPS, month=10_000))
    asked = replace(ask(key, 50_000), least=1)
    for _ in range(2):
        [verdict] = await world.ledger.reserve([asked])
        assert isinstance(verdict, Held) and verdict.amount == 10_000


async def test_nothing_left_is_not_enough_for_anything(world: World) -> None:
    agent_id, key = await world.agent(replace(NO_CAPS, month=1_000))
    [held] = await world.ledger.reserve([ask(key, 1_000)])
    assert isinstance(held, Held)
    [verdict] = await world.ledger.reserve([replace(ask(key, 1_000), least=1)])
    assert isinstance(verdict, Refused) and verdict.refusal is Refusal.MONTH
    assert (await world.ledger.spend(agent_id)).reserved == 1_000
