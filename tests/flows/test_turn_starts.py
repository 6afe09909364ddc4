"""The peer's 250 does not wait for its turn's start, and a start that is lost is the sweep's."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.small_world import mail, small_world
from tinyfat.flows import turn_starts
from tinyfat.flows.turn_starts import TurnStarts
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.store.database import Database


class _Engine:
    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[str] = []
        self.started: list[str] = []

    async def start(self, turn_id: str, attempt: int) -> None:
        self.asked.append(turn_id)
        await self.go.wait()
        if turn_id == "away":
            raise StoreUnavailable("away")
        self.started.append(turn_id)


async def test_a_mail_is_accepted_before_its_turn_is_started(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        engine = _Engine()
        starts = TurnStarts(engine.start)
        world.intake._start_turn = starts.soon
        row = await world.send(agent, mail("one"))
        assert await world.rows("select state from messages where id = %s", row) == [("queued",)]
        assert engine.started == []
        engine.go.set()
        await starts.close()
        assert engine.started == [str(turn[0]) for turn in await world.rows("select turn_id from messages")]


async def test_of_a_process_killed_before_the_start_the_next_ones_sweep_starts_it(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        engine = _Engine()
        starts = TurnStarts(engine.start)
        world.intake._start_turn = starts.soon
        await world.send(agent, mail("one"))
        for task in list(starts._under_way):
            task.cancel()
        assert world.out.sent == []
        await world.rows("update turns set created_at = now() - interval '1 minute' returning id")
        await world.mail_turn.sweep(10)
        await world.flows.all_ended()
        assert len(world.box.asked) == 1 and len(world.out.sent) == 1


async def test_a_start_that_fails_harms_nobody_else_and_too_many_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_starts, "UNDER_WAY_MAX", 2)
    engine = _Engine()
    starts = TurnStarts(engine.start)
    for turn_id in ("away", "one", "two"):
        await starts.soon(turn_id, 1)
    engine.go.set()
    await starts.close()
    assert engine.asked == ["away", "one"] and engine.started == ["one"]
    await starts.soon("three", 1)
    await starts.close()
    assert engine.started == ["one", "three"]
