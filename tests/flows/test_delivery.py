"""A reply leaves: pauses that grow, five days, one lease, and the order of a conversation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.flows.small_world import DOMAIN, SmallWorld, mail, small_world
from tinyfat.domain.turns import TurnOutcome
from tinyfat.flows.delivery import EXPIRY_SECONDS, PAUSE_SECONDS_MAX, Delivery, pause_seconds
from tinyfat.ports.mail import Delivered
from tinyfat.store.database import Database
from tinyfat.store.deliveries import DeliveryStore


async def replied(world: SmallWorld, *answers: str, count: int = 1) -> list[str]:
    """The rows of `count` replies of one conversation, the smarthost answering as told."""
    agent = await world.ready_agent()
    world.out.answer_next(answers)
    first = f"<{uuid.uuid4().hex}@example.org>"
    for number in range(count):
        await world.send(agent, mail(f"number {number}", message_id=first if not number else "", references=first))
    await world.flows.all_ended()
    found = await world.rows(
        "select id from messages where direction = 'out' and agent_id = %s order by position", agent.id
    )
    return [str(row[0]) for row in found]


async def state(world: SmallWorld, row_id: str) -> str:
    ((found,),) = await world.rows("select state from messages where id = %s", row_id)
    return str(found)


async def pause(world: SmallWorld, row_id: str) -> float:
    ((seconds,),) = await world.rows(
        "select extract(epoch from next_attempt_at - now())::float from messages where id = %s", row_id
    )
    return float(seconds)


async def is_due(world: SmallWorld) -> None:
    await world.rows("update messages set next_attempt_at = now() where direction = 'out' returning id")


def clock(later: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + later


def test_the_pauses_grow_from_seconds_to_an_hour() -> None:
    pauses = [pause_seconds(attempts) for attempts in range(1, 400)]
    assert pauses[:4] == [15.0, 30.0, 60.0, 120.0]
    assert pauses == sorted(pauses) and pauses[-1] == PAUSE_SECONDS_MAX


async def test_a_4xx_is_tried_again_after_pauses_that_grow(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, *["451 4.3.0 Later"] * 4)
        for attempts in range(1, 4):
            assert await state(world, row) == "deferred"
            assert pause_seconds(attempts) - 5 < await pause(world, row) <= pause_seconds(attempts)
            await world.delivery.sweep()  # not due yet
            assert world.out.attempts == attempts
            await is_due(world)
            await world.delivery.sweep()
        await is_due(world)
        await world.delivery.sweep()
        assert await state(world, row) == "sent" and len(world.out.sent) == 1
        message, _ = await world.ledger.show(row)
        assert message.attempts == 5 and message.reason == "" and message.delivered_at is not None


async def test_after_five_days_it_is_given_up_and_not_before(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, *["connection refused"] * 3)
        for later, becomes in ((EXPIRY_SECONDS - 60, "deferred"), (EXPIRY_SECONDS + 60, "expired")):
            delivery = Delivery(DOMAIN, world.deliveries, world.out, b"secret", clock(timedelta(seconds=later)))
            await is_due(world)
            await delivery.sweep()
            assert await state(world, row) == becomes
        message, _ = await world.ledger.show(row)
        assert "5 days" in message.reason and "connection refused" in message.reason
        await is_due(world)
        await world.delivery.sweep()
        assert world.out.sent == []


async def test_a_5xx_is_for_good(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, "550 5.7.1 We do not want this")
        await is_due(world)
        await world.delivery.sweep()
        assert await state(world, row) == "refused" and world.out.attempts == 1
        message, _ = await world.ledger.show(row)
        assert "We do not want this" in message.reason


@pytest.mark.parametrize("first", ["451 4.3.0 Later", "550 5.7.1 Never"])
async def test_replies_of_a_conversation_leave_in_their_order(database: Database, first: str) -> None:
    async with small_world(database) as world:
        rows = await replied(world, first, count=4)
        if first.startswith("4"):
            assert world.out.sent == [], "the later ones wait for the first"
        await is_due(world)
        await world.delivery.sweep()
        refused = first.startswith("5")
        assert [await state(world, row) for row in rows] == ["refused" if refused else "sent", "sent", "sent", "sent"]
        numbers = [text for sent in world.out.sent for text in range(4) if f"number {text}".encode() in sent.raw]
        assert numbers == [1, 2, 3] if refused else [0, 1, 2, 3]


async def test_attempts_at_once_are_one_attempt(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, "451 4.3.0 Later")
        await is_due(world)
        world.out.attempts = 0
        other = Delivery(DOMAIN, DeliveryStore(database, "host-2"), world.out, b"secret")
        await asyncio.gather(*(delivery.attempt(row) for delivery in (world.delivery, other) for _ in range(5)))
        assert world.out.attempts == 1 and len(world.out.sent) == 1


class Dies:
    """A process that dies between the smarthost's 250 and its own commit."""

    def __init__(self, world: SmallWorld) -> None:
        self._world = world

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        await self._world.out.send(envelope_from, recipient, raw)
        raise asyncio.CancelledError


async def test_a_lease_of_the_dead_is_its_own_again_and_anothers_only_when_it_is_over(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, "451 4.3.0 Later")
        await is_due(world)
        with pytest.raises(asyncio.CancelledError):
            await Delivery(DOMAIN, world.deliveries, Dies(world), b"secret").attempt(row)
        other = Delivery(DOMAIN, DeliveryStore(database, "host-2"), world.out, b"secret")
        await other.sweep()
        assert len(world.out.sent) == 1, "the dead one has the lease"
        await world.rows("update messages set leased_until = now() - interval '1 second' returning id")
        await other.sweep()
        assert await state(world, row) == "sent"
        first, second = world.out.sent
        assert first.raw == second.raw, "the one case that cannot be decided sends the same mail"


async def test_its_own_lease_of_an_earlier_life_keeps_nobody_waiting(database: Database) -> None:
    async with small_world(database) as world:
        (row,) = await replied(world, "451 4.3.0 Later")
        await is_due(world)
        with pytest.raises(asyncio.CancelledError):
            await Delivery(DOMAIN, world.deliveries, Dies(world), b"secret").attempt(row)
        await world.delivery.sweep()  # the same executor, started again
        assert await state(world, row) == "sent"


async def test_bad_news_is_delivered_like_any_reply(database: Database) -> None:
    async with small_world(database) as world:
        world.box.outcome = TurnOutcome.FAILED
        (row,) = await replied(world)
        assert await state(world, row) == "sent"
        (sent,) = world.out.sent
        assert b"model could not answer." in sent.raw and sent.envelope_from.partition("+")[2].startswith("bounce.")
